"""Rendering of one state-object image from a Font Awesome solid icon.

An image is made in layers: a calm dark ground, perhaps a dim second icon (clutter), and a light icon whose fill or
outline shows the state. All arithmetic is float64 and all randomness comes from the generator handed in, so an image is
a pure function of (spec, seed) for given releases of Pillow and of the font.

Icons: Font Awesome Free (fontawesome.com), icons CC BY 4.0, font SIL OFL 1.1, shipped by fonticon-fontawesome6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from datasets.streams import stream as stream  # where data sets and pretraining look for it

SIZE = 64  # pixels, both ways
GLYPH = 160  # pixels at which a glyph is rasterised once, before it is scaled and turned


@dataclass
class Canvas:
    """An icon before it is put on its ground. mask: [S, S] in [0, 1]; fill, ground: [S, S, 3] in [0, 1]."""

    mask: np.ndarray
    fill: np.ndarray
    ground: np.ndarray


Painter = Callable[[np.random.Generator, Canvas], None]


@dataclass(frozen=True)
class Look:
    """How hard a rendering is. Values are probabilities or ranges; the defaults are the benchmark's own.

    icon_size: range of the longer side in pixels; offset: largest shift from the centre in pixels; turn: largest
    rotation in degrees (before the state); texture, clutter, dark_icon: probabilities.
    """

    icon_size: tuple[float, float] = (34.0, 48.0)
    offset: float = 6.0
    turn: float = 8.0
    texture: float = 0.7
    clutter: float = 0.4
    dark_icon: float = 0.05


@cache
def _font() -> ImageFont.FreeTypeFont:
    import fonticon_fa6

    path = next((Path(fonticon_fa6.__file__).parent / "fonts").glob("*Solid*.otf"))
    return ImageFont.truetype(str(path), GLYPH)


@cache
def glyph(icon: str) -> Image.Image:
    """Return the tight 8-bit mask of an icon ("dog"), its longer side `GLYPH` pixels."""
    from fonticon_fa6 import FA6S

    character = getattr(FA6S, icon)[-1]  # the package prefixes its own font key
    left, top, right, bottom = map(int, _font().getbbox(character))  # whole pixels already
    picture = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(picture).text((-left, -top), character, fill=255, font=_font())
    picture = picture.crop(picture.getbbox())
    scale = GLYPH / max(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)


def place(icon: str, size: float, centre: tuple[float, float], degrees: float) -> np.ndarray:
    """Return the mask [S, S] of an icon of a given longer side, turned about its centre and put at (x, y)."""
    source = glyph(icon)
    scale = GLYPH / size
    cos, sin = np.cos(np.deg2rad(degrees)) * scale, np.sin(np.deg2rad(degrees)) * scale
    x0, y0 = source.width / 2, source.height / 2
    x, y = centre
    # PIL asks for the source position of each output pixel; blurring first keeps the down-scaling free of aliases.
    matrix = (cos, sin, x0 - cos * x - sin * y, -sin, cos, y0 + sin * x - cos * y)
    smooth = source.filter(ImageFilter.GaussianBlur(scale * 0.35))
    return np.asarray(smooth.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)) / 255.0


def noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Return smooth noise [S, S] in [0, 1] with about `cells` bumps a side."""
    grid = Image.fromarray(rng.random((cells + 2, cells + 2)).astype(np.float32))
    field = np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float64)
    return np.clip(field, 0.0, 1.0)


def blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return a mask [S, S] under a Gaussian blur of the given radius in pixels."""
    picture = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius))) / 255.0


def eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """Return a mask [S, S] after `steps` erosions by one pixel."""
    picture = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    for _ in range(steps):
        picture = picture.filter(ImageFilter.MinFilter(3))
    return np.asarray(picture) / 255.0


def drawn(draw: Callable[[ImageDraw.ImageDraw, float], None]) -> np.ndarray:
    """Return a mask [S, S] of something drawn in white at four times the size; `draw` gets the pen and the scale."""
    picture = Image.new("L", (SIZE * 4, SIZE * 4), 0)
    draw(ImageDraw.Draw(picture), 4.0)
    return np.asarray(picture.reduce(4)) / 255.0


def blend(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return `above` laid over `below` ([S, S, 3] or a colour) where the mask [S, S] says."""
    return below * (1.0 - mask[..., None]) + above * mask[..., None]


def _ground(rng: np.random.Generator, look: Look) -> np.ndarray:
    colour = rng.random(3) * 0.35
    ground = np.broadcast_to(colour, (SIZE, SIZE, 3)).copy()
    if rng.random() < look.texture:
        ground = blend(ground, rng.random(3) * 0.4, noise(rng, int(rng.integers(2, 7))) * rng.uniform(0.4, 0.9))
        ground = np.clip(ground + rng.normal(0.0, 0.02, (SIZE, SIZE, 1)), 0.0, 1.0)
    return ground


def _clutter(rng: np.random.Generator, ground: np.ndarray, icon: str) -> np.ndarray:
    side = rng.uniform(15.0, 24.0)
    corner = rng.choice([12.0, 52.0], size=2) + rng.uniform(-4.0, 4.0, size=2)
    mask = place(icon, side, (corner[0], corner[1]), rng.uniform(-40.0, 40.0))
    return blend(ground, rng.random(3) * 0.35 + 0.25, mask * rng.uniform(0.6, 0.9))


def render(
    rng: np.random.Generator,
    icon: str,
    paint: Painter,
    *,
    turn: tuple[float, float] | None = None,
    clutter: str | None = None,
    look: Look | None = None,
) -> np.ndarray:
    """Render one image, uint8 [S, S, 3].

    icon, clutter: Font Awesome names
    paint: draws the state on the canvas
    turn: range of the size of the rotation in degrees, when the state itself is a rotation
    """
    look = look or Look()
    ground = _ground(rng, look)
    if clutter is not None:
        ground = _clutter(rng, ground, clutter)
    size = rng.uniform(*look.icon_size)
    centre = SIZE / 2 + rng.uniform(-look.offset, look.offset, size=2)
    degrees = rng.uniform(-look.turn, look.turn) if turn is None else rng.uniform(*turn) * rng.choice([-1.0, 1.0])
    fill = rng.random(3) * 0.4 + 0.6
    if rng.random() < look.dark_icon:
        fill, ground = fill * 0.35, np.clip(ground + 0.55, 0.0, 1.0)
    shade = 1.0 - 0.18 * np.linspace(0.0, 1.0, SIZE)[:, None, None]  # a little light from above
    canvas = Canvas(place(icon, size, (centre[0], centre[1]), degrees), fill * shade * np.ones((SIZE, SIZE, 3)), ground)
    paint(rng, canvas)
    picture = blend(canvas.ground, canvas.fill, canvas.mask) + rng.normal(0.0, 0.012, (SIZE, SIZE, 3))
    return np.round(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)
