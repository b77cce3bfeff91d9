"""How figures look: the size of a column, a fixed colour, marker and dash pattern for each method, and the files.

Colours are those of Okabe and Ito (Color universal design, 2008), chosen for every kind of colour vision; in grey,
markers and dashes still tell the methods apart. Nothing depends on time or machine: the same records, the same files.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import fonts
from benchmarks.report.groups import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 3.3  # inches: a column of a two-column paper
SMALLEST = 7  # points: the smallest letter at that width
DPI = 300

Dashes = tuple[float, ...]


@dataclass(frozen=True)
class Style:
    """How a row of runs is drawn. dashes: lengths of strokes and gaps in line widths, () is solid."""

    colour: str
    marker: str
    dashes: Dashes = ()

    @property
    def line(self) -> Any:
        """The dash pattern as matplotlib wants it."""
        return (0, self.dashes or None)


METHOD_STYLES = {
    "clip_zero_shot": Style("#000000", "o", (1, 1)),
    "coop": Style("#56B4E9", "s", (4, 1, 1, 1)),
    "csp": Style("#009E73", "D", (6, 2)),
    "dfsp": Style("#E69F00", "^", (3, 1)),
    "msci": Style("#D55E00", "*"),
    "troika": Style("#0072B2", "X", (5, 1, 1, 1, 1, 1)),
    "refiner_style": Style("#CC79A7", "P", (8, 1.5, 2, 1.5)),
    "caila": Style("#117733", "8", (1, 2, 5, 2)),
    "cams": Style("#8B0000", "h", (2, 1, 6, 1)),
    "vp_cmjl": Style("#332288", "p", (9, 1, 1, 1)),
}
"""Fixed, so that a method looks the same in every figure of every report."""

OTHERS = tuple(
    Style(colour, marker, dashes)
    for colour, marker, dashes in (
        ("#8C6D1F", "v", (2, 1)),
        ("#5E4FA2", "<", (7, 2, 1, 2)),
        ("#6E6E6E", ">", (2, 2)),
        ("#8B1E3F", "h", (9, 2)),
        ("#3B7A57", "p", (1, 2)),
    )
)
"""For methods of other packages, by their names."""

VARIANTS: tuple[tuple[str, Dashes], ...] = (("v", (2, 2)), ("<", (1, 3)), (">", (6, 3)), ("h", (3, 3)), ("d", (2, 4)))
"""Markers and dashes for further rows of one method, which keep its colour."""


def method_style(method: str) -> Style:
    """Return a method's own style."""
    if method in METHOD_STYLES:
        return METHOD_STYLES[method]
    return OTHERS[hashlib.sha256(method.encode()).digest()[0] % len(OTHERS)]


def styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Return each row's style by its label: of its method; a method's further rows have other markers and dashes."""
    found: dict[str, Style] = {}
    rows_of: dict[str, int] = {}
    for row in rows:
        place = rows_of.get(row.method, 0)
        rows_of[row.method] = place + 1
        style = method_style(row.method)
        if place:
            marker, dashes = VARIANTS[(place - 1) % len(VARIANTS)]
            style = replace(style, marker=marker, dashes=dashes)
        found[row.label] = style
    return found


def pyplot() -> Any:
    """Return matplotlib's pyplot, without a window and with the settings of all figures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine has it
            "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": SMALLEST,
            "xtick.labelsize": SMALLEST, "ytick.labelsize": SMALLEST, "axes.linewidth": 0.6,
            "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.spines.top": False, "axes.spines.right": False,
            "svg.hashsalt": "czsl", "pdf.fonttype": 42, "figure.dpi": 100, "savefig.bbox": None,
            "figure.constrained_layout.use": True,
            # Words of data sets are drawn as they are: "$10-$50" is no mathematics.
            "text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False,
            # Letters as outlines: in a browser without the font they would have other widths and run into each other.
            "svg.fonttype": "path",
        }
    )  # fmt: skip
    fonts.quiet()
    return pyplot


LONGEST = 40
"""Letters of a name in a figure: beside longer ones there would be no room for what the figure shows."""


def words(text: object, longest: int = LONGEST) -> str:
    """Return words of a data set or method as figures draw them: in one line, signs that do not print as spaces, cut.

    >>> words("a\\nb"), words("x" * 99, 5)
    ('a b', 'xx…xx')
    """
    said = "".join(sign if sign.isprintable() else " " for sign in str(text) if unicodedata.category(sign) != "Cf")
    said = said.strip(" ")
    if len(said) <= longest:
        return said
    return f"{said[: longest // 2]}…{said[len(said) - (longest - 1) // 2 :]}"


def new(height: float, width: float = WIDTH, **subplots: Any) -> tuple[Figure, Any]:
    """Return a new figure of a size in inches and its axes."""
    return pyplot().subplots(figsize=(width, height), **subplots)


FORMATS = ((".pdf", {"CreationDate": None}), (".svg", {"Date": None}), (".png", {"Software": None}))
"""Endings of a figure's files, each with the metadata that would differ between two makings of one figure."""


PATH = re.compile(r' d="[^"]*"')
NUMBER = re.compile(r"-?\d+\.\d{3,}")


def coarse(drawing: str) -> str:
    """Return an SVG whose paths have hundredths of a point, which no screen shows, instead of matplotlib's millionths.

    A curve over all images takes a third less room so.

    >>> coarse('<path id="a.123456" d="M 1.234567 -0.001 L 3.5 20"/>')
    '<path id="a.123456" d="M 1.23 0 L 3.5 20"/>'
    """
    return PATH.sub(lambda path: NUMBER.sub(_hundredths, path[0]), drawing)


def _hundredths(number: re.Match[str]) -> str:
    return f"{round(float(number[0]), 2) or 0.0:.2f}".rstrip("0").rstrip(".")


def save(
    figure: Figure,
    path: Path,
    endings: Sequence[str] = (".pdf", ".svg", ".png"),
    lacking: set[str] | None = None,
) -> list[Path]:
    """Write a figure as `path` with each of the endings, close it, and return the files.

    lacking: receives the letters that no installed font has, see `fonts`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    try:
        without = fonts.supply(fonts.texts_of(figure))
        if lacking is not None:
            lacking |= without
        kind = fonts.pdf_type(fonts.texts_of(figure))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is found once, not for each file
        for suffix, extra in (known for known in FORMATS if known[0] in endings):
            target = path.with_name(path.name + suffix)
            with pyplot().rc_context({"pdf.fonttype": kind}):
                figure.savefig(target, dpi=DPI, metadata=extra)
            written.append(target)
            if suffix == ".svg":
                drawing = target.read_text(encoding="utf-8")
                target.write_text(coarse(drawing), encoding="utf-8", newline="\n")
    except BaseException:
        for target in written:  # a figure is there in every format or not at all
            target.unlink(missing_ok=True)
        raise
    finally:
        pyplot().close(figure)
    return written
