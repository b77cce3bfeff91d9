"""The states of icon_states: how each adjective looks on an icon.

A *local* state changes a small part of the icon, at a random place and extent; a *global* state changes all of it.
Several are made alike on purpose (cracked, torn, scratched; rusty, mossy, burnt; striped, wooden; faded, blurry), as
states of photographs are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from datasets.icons.render import SIZE, Canvas, Painter, blend, blurred, drawn, eroded, noise

Kind = Literal["local", "global"]
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


@dataclass(frozen=True)
class State:
    """An adjective: its kind, its painter, and the range of rotation (degrees) where rotation is the state."""

    kind: Kind
    paint: Painter
    turn: tuple[float, float] | None = None


def _spot(rng: np.random.Generator, mask: np.ndarray) -> tuple[float, float]:
    """Return a random (x, y) inside the icon."""
    rows, columns = np.nonzero(mask > 0.5)
    if len(rows) == 0:
        return SIZE / 2, SIZE / 2
    pick = int(rng.integers(len(rows)))
    return float(columns[pick]), float(rows[pick])


def _edge_spot(rng: np.random.Generator, mask: np.ndarray) -> tuple[float, float]:
    """Return a random (x, y) on the icon's outer contour."""
    solid = mask > 0.5
    border = solid & ~(eroded(mask, 1) > 0.5)
    return _spot(rng, border.astype(np.float64) if border.any() else mask)


def _middle(mask: np.ndarray) -> tuple[float, float]:
    weight = mask.sum() + 1e-9
    return float((COLUMNS * mask).sum() / weight), float((ROWS * mask).sum() / weight)


def _zigzag(
    rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float], jag: float, steps: int = 6
) -> list[tuple[float, float]]:
    """Return a jagged line from start to end, at most about `jag` pixels off the straight one."""
    points = np.linspace(start, end, steps)
    points[1:-1] += rng.uniform(-jag, jag, size=(steps - 2, 2))
    return [(float(x), float(y)) for x, y in points]


def _lines(lines: list[list[tuple[float, float]]], width: float) -> np.ndarray:
    def draw(pen: ImageDraw.ImageDraw, scale: float) -> None:
        for line in lines:
            pen.line([(x * scale, y * scale) for x, y in line], fill=255, width=round(width * scale), joint="curve")

    return drawn(draw)


def _blotch(rng: np.random.Generator, canvas: Canvas, centre: tuple[float, float], radius: float) -> np.ndarray:
    """Return a ragged patch [S, S] in [0, 1] around a point, inside the icon."""
    distance = np.hypot(COLUMNS - centre[0], ROWS - centre[1]) / radius
    ragged = 1.15 - distance + 1.1 * (noise(rng, 12) - 0.5)
    return np.clip(ragged * 4.0, 0.0, 1.0) * canvas.mask


def plain(rng: np.random.Generator, canvas: Canvas) -> None:
    """Leave the icon as it is."""


def cracked(rng: np.random.Generator, canvas: Canvas) -> None:
    """Dark jagged lines from the edge through the body, with a branch."""
    start = _edge_spot(rng, canvas.mask)
    x, y = _middle(canvas.mask)
    end = (x + (x - start[0]) * 0.8, y + (y - start[1]) * 0.8)
    crack = _zigzag(rng, start, end, 4.0, steps=8)
    knot = crack[int(rng.integers(2, 5))]
    branch = _zigzag(rng, knot, (knot[0] + rng.uniform(-14, 14), knot[1] + rng.uniform(-14, 14)), 3.0, steps=4)
    lines = _lines([crack, branch], rng.uniform(1.0, 1.9))
    canvas.fill = blend(canvas.fill, np.array([0.05, 0.05, 0.06]), lines)


def torn(rng: np.random.Generator, canvas: Canvas) -> None:
    """A ragged wedge missing from the edge, its rim pale like paper."""
    start = np.array(_edge_spot(rng, canvas.mask))
    inward = np.array(_middle(canvas.mask)) - start
    inward = inward / (np.hypot(*inward) + 1e-9)
    side = np.array([-inward[1], inward[0]])
    depth, width = rng.uniform(13.0, 20.0), rng.uniform(5.0, 8.0)
    tip = start + inward * depth
    left = _zigzag(rng, tuple(start - inward * 4 - side * width), tuple(tip), 2.4, steps=7)
    right = _zigzag(rng, tuple(tip), tuple(start - inward * 4 + side * width), 2.4, steps=7)
    gap = drawn(lambda pen, scale: pen.polygon([(x * scale, y * scale) for x, y in left + right], fill=255))
    rim = _lines([left, right], 2.4)
    canvas.fill = blend(canvas.fill, np.array([0.98, 0.97, 0.92]), rim)
    canvas.mask = canvas.mask * (1.0 - gap)


def _stain(
    rng: np.random.Generator, canvas: Canvas, dark: tuple[float, ...], light: tuple[float, ...], spots: int
) -> None:
    for _ in range(spots):
        patch = _blotch(rng, canvas, _spot(rng, canvas.mask), rng.uniform(6.0, 11.0))
        grain = noise(rng, 20)[..., None]
        canvas.fill = blend(canvas.fill, np.array(dark) * (1 - grain) + np.array(light) * grain, patch * 0.95)


def rusty(rng: np.random.Generator, canvas: Canvas) -> None:
    """Orange-brown grainy patches."""
    _stain(rng, canvas, (0.35, 0.14, 0.04), (0.80, 0.42, 0.14), int(rng.integers(1, 3)))


def mossy(rng: np.random.Generator, canvas: Canvas) -> None:
    """Dull green tufted patches."""
    _stain(rng, canvas, (0.10, 0.22, 0.05), (0.42, 0.60, 0.20), int(rng.integers(1, 3)))


def burnt(rng: np.random.Generator, canvas: Canvas) -> None:
    """A charred part at the edge with a thin ember rim."""
    centre, radius = _edge_spot(rng, canvas.mask), rng.uniform(9.0, 14.0)
    char = _blotch(rng, canvas, centre, radius)
    rim = np.clip(blurred(char, 1.5) * 2.0, 0.0, 1.0) * canvas.mask
    canvas.fill = blend(canvas.fill, np.array([0.75, 0.33, 0.10]), rim * 0.8)
    canvas.fill = blend(canvas.fill, np.array([0.07, 0.06, 0.06]), char)


def snowy(rng: np.random.Generator, canvas: Canvas) -> None:
    """White caps lying on the upper edges."""
    solid = canvas.mask > 0.5
    depth = rng.uniform(3.0, 6.0) + 3.0 * (noise(rng, 8)[0] - 0.5)
    run = np.zeros(SIZE)
    cap = np.zeros((SIZE, SIZE))
    for row in range(SIZE):  # distance below the nearest upper edge, column by column
        run = np.where(solid[row], run + 1.0, 0.0)
        cap[row] = solid[row] & (run <= depth)
    lift = np.zeros_like(cap)
    lift[:-2] = cap[2:]
    snow = np.clip(blurred(np.maximum(cap, lift), 0.7) * 1.5, 0.0, 1.0)
    white = np.array([0.97, 0.98, 1.0])
    # Snow must show on a light icon: the body below it goes a shade darker and cooler.
    canvas.fill = blend(canvas.fill * np.array([0.62, 0.66, 0.74]), white, snow)
    canvas.mask = np.maximum(canvas.mask, snow)


def patched(rng: np.random.Generator, canvas: Canvas) -> None:
    """A sewn-on square of another colour with dark stitches."""
    x, y = _spot(rng, eroded(canvas.mask, 3))
    half, angle = rng.uniform(5.5, 8.0), rng.uniform(0.0, np.pi / 2)
    corners = [
        (x + half * 1.414 * np.cos(angle + k * np.pi / 2), y + half * 1.414 * np.sin(angle + k * np.pi / 2))
        for k in range(4)
    ]
    square = drawn(lambda pen, scale: pen.polygon([(a * scale, b * scale) for a, b in corners], fill=255))
    stitches = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        for t in (0.2, 0.5, 0.8):
            px, py = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t
            nx, ny = (y0 - y1) / half * 0.4, (x1 - x0) / half * 0.4  # across the seam, under a pixel each way
            stitches.append([(px - nx, py - ny), (px + nx, py + ny)])
    cloth = rng.permutation(np.array([0.75, 0.30, 0.30])) * rng.uniform(0.8, 1.1)
    canvas.fill = blend(canvas.fill, np.clip(cloth, 0.0, 1.0), square)
    canvas.fill = blend(canvas.fill, np.array([0.08, 0.07, 0.07]), _lines(stitches, 0.8))


def scratched(rng: np.random.Generator, canvas: Canvas) -> None:
    """Three or four thin parallel strokes."""
    x, y = _spot(rng, eroded(canvas.mask, 2))
    angle, length = rng.uniform(0.0, np.pi), rng.uniform(9.0, 14.0)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    strokes = []
    for k in range(int(rng.integers(3, 5))):
        middle = np.array([x, y]) + across * (k - 1.2) * 3.2
        reach = along * length * rng.uniform(0.7, 1.1)
        strokes.append([tuple(middle - reach), tuple(middle + reach)])
    canvas.fill = blend(canvas.fill, np.array([0.22, 0.21, 0.22]), _lines(strokes, 0.9))


def bitten(rng: np.random.Generator, canvas: Canvas) -> None:
    """Scalloped round bites out of the edge."""
    x, y = _edge_spot(rng, canvas.mask)
    radius, angle = rng.uniform(5.0, 7.0), rng.uniform(0.0, 2 * np.pi)
    for k in (-1, 0, 1):
        cx, cy = x + k * radius * 0.95 * np.cos(angle), y + k * radius * 0.95 * np.sin(angle)
        hole = np.clip(radius + 0.5 - np.hypot(COLUMNS - cx, ROWS - cy), 0.0, 1.0)
        canvas.mask = canvas.mask * (1.0 - hole)


def wet(rng: np.random.Generator, canvas: Canvas) -> None:
    """Round pale drops with a dark lower rim."""
    for _ in range(int(rng.integers(4, 8))):
        x, y = _spot(rng, canvas.mask)
        radius = rng.uniform(1.8, 3.2)
        for shift, colour, size in ((0.7, (0.15, 0.30, 0.55), 1.0), (0.0, (0.75, 0.90, 1.0), 0.8)):
            drop = np.clip(radius * size + 0.5 - np.hypot(COLUMNS - x, ROWS - y - shift), 0.0, 1.0)
            canvas.fill = blend(canvas.fill, np.array(colour), drop)


def _two_tone(canvas: Canvas, pattern: np.ndarray, depth: float) -> None:
    canvas.fill = blend(canvas.fill, canvas.fill * (1.0 - depth), np.clip(pattern, 0.0, 1.0))


def striped(rng: np.random.Generator, canvas: Canvas) -> None:
    """Straight even bars of two shades."""
    angle, period = rng.uniform(0.0, np.pi), rng.uniform(6.5, 10.0)
    wave = np.sin((COLUMNS * np.cos(angle) + ROWS * np.sin(angle)) * 2 * np.pi / period + rng.uniform(0, 6.28))
    _two_tone(canvas, wave * 3.0 + 0.5, rng.uniform(0.55, 0.8))


def dotted(rng: np.random.Generator, canvas: Canvas) -> None:
    """A regular grid of dark dots."""
    period = rng.uniform(6.5, 9.0)
    x, y = COLUMNS + rng.uniform(0, 9), ROWS + rng.uniform(0, 9)
    row = np.floor(y / period)
    dx, dy = (x + row % 2 * period / 2) % period - period / 2, y % period - period / 2
    _two_tone(canvas, period * 0.30 + 0.5 - np.hypot(dx, dy), rng.uniform(0.6, 0.85))


def checkered(rng: np.random.Generator, canvas: Canvas) -> None:
    """Squares of two shades by turns."""
    period = rng.uniform(5.0, 7.5)
    board = (np.floor((COLUMNS + rng.uniform(0, 9)) / period) + np.floor((ROWS + rng.uniform(0, 9)) / period)) % 2
    _two_tone(canvas, board, rng.uniform(0.55, 0.8))


def _metal(rng: np.random.Generator, canvas: Canvas, dark: tuple[float, ...], light: tuple[float, ...]) -> None:
    sheen = np.sin((COLUMNS * 0.6 + ROWS) / rng.uniform(7.0, 11.0) + rng.uniform(0, 6.28)) * 0.5 + 0.5
    canvas.fill = blend(np.array(dark), np.array(light), sheen**1.5)


def golden(rng: np.random.Generator, canvas: Canvas) -> None:
    """Polished yellow metal with bands of light."""
    _metal(rng, canvas, (0.66, 0.45, 0.05), (1.0, 0.90, 0.45))


def silver(rng: np.random.Generator, canvas: Canvas) -> None:
    """Polished grey metal with bands of light."""
    _metal(rng, canvas, (0.42, 0.44, 0.47), (0.98, 0.98, 1.0))


def wooden(rng: np.random.Generator, canvas: Canvas) -> None:
    """Brown with wavy grain."""
    bend = 9.0 * (noise(rng, 3) - 0.5)
    grain = np.sin((ROWS + bend) * 2 * np.pi / rng.uniform(5.0, 8.0) + COLUMNS * 0.04) * 0.5 + 0.5
    grain = 0.75 * grain + 0.25 * noise(rng, 24)
    canvas.fill = blend(np.array([0.38, 0.22, 0.10]), np.array([0.76, 0.55, 0.32]), grain)


def frozen(rng: np.random.Generator, canvas: Canvas) -> None:
    """Pale blue ice with white facets and a frosty rim."""
    ice = blend(np.array([0.45, 0.68, 0.86]), np.array([0.86, 0.95, 1.0]), noise(rng, 5))
    facets = [_zigzag(rng, _spot(rng, canvas.mask), _spot(rng, canvas.mask), 1.0, steps=3) for _ in range(4)]
    ice = blend(ice, np.array([1.0, 1.0, 1.0]), _lines(facets, 1.0) * 0.7)
    rim = np.clip(canvas.mask - eroded(canvas.mask, 2), 0.0, 1.0)
    canvas.fill = blend(ice, np.array([0.96, 0.99, 1.0]), rim * 0.8)


def glowing(rng: np.random.Generator, canvas: Canvas) -> None:
    """A bright icon with a halo on the ground."""
    halo = np.clip(blurred(canvas.mask, rng.uniform(4.0, 6.5)) * 1.5, 0.0, 1.0)
    tint = np.array([1.0, 0.92, 0.6]) if rng.random() < 0.5 else rng.random(3) * 0.4 + 0.6
    canvas.ground = np.clip(canvas.ground + halo[..., None] * tint * rng.uniform(0.55, 0.8), 0.0, 1.0)
    canvas.fill = canvas.fill * 0.25 + 0.75


def outlined(rng: np.random.Generator, canvas: Canvas) -> None:
    """Only the contour line, the inside empty."""
    canvas.mask = np.clip(canvas.mask - eroded(canvas.mask, int(rng.integers(1, 3))) * 0.97, 0.0, 1.0)


def blurry(rng: np.random.Generator, canvas: Canvas) -> None:
    """Out of focus."""
    canvas.mask = blurred(canvas.mask, rng.uniform(1.7, 2.8))


def faded(rng: np.random.Generator, canvas: Canvas) -> None:
    """Washed out, the ground showing through."""
    grey = canvas.fill.mean(axis=2, keepdims=True)
    canvas.fill = canvas.fill * 0.4 + grey * 0.6
    canvas.mask = canvas.mask * rng.uniform(0.26, 0.42)


def pixelated(rng: np.random.Generator, canvas: Canvas) -> None:
    """Coarse squares."""
    small = Image.fromarray(np.round(canvas.mask * 255).astype(np.uint8)).reduce(4)
    canvas.mask = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.NEAREST)) / 255.0


STATES: dict[str, State] = {
    "bitten": State("local", bitten),
    "blurry": State("global", blurry),
    "burnt": State("local", burnt),
    "checkered": State("global", checkered),
    "cracked": State("local", cracked),
    "dotted": State("global", dotted),
    "faded": State("global", faded),
    "frozen": State("global", frozen),
    "glowing": State("global", glowing),
    "golden": State("global", golden),
    "mossy": State("local", mossy),
    "outlined": State("global", outlined),
    "patched": State("local", patched),
    "rusty": State("local", rusty),
    "scratched": State("local", scratched),
    "snowy": State("local", snowy),
    "striped": State("global", striped),
    "tilted": State("global", plain, turn=(32.0, 55.0)),
    "torn": State("local", torn),
    "wooden": State("global", wooden),
}
"""The benchmark's states."""

EXTRA_STATES: dict[str, State] = {
    "pixelated": State("global", pixelated),
    "plain": State("global", plain),
    "silver": State("global", silver),
    "wet": State("local", wet),
}
"""States that only the pretraining of the tiny CLIP shows."""
