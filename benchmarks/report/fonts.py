"""Letters that the figures' own font lacks: an installed font that has them, or a sentence that names a package.

matplotlib ships DejaVu Sans, which has Latin, Greek, Cyrillic and simple Arabic letters; every figure of such words is
the same on every machine. Other scripts are drawn in the first of the installed fonts that has the most of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from errors import some

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

FAMILY = "DejaVu Sans"

PACKAGES: tuple[tuple[int, int, str], ...] = (
    (0x1100, 0x11FF, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (0x2E80, 0x9FFF, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (0xA960, 0xA97F, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (0xAC00, 0xD7FF, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (0xF900, 0xFAFF, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (0xFE30, 0xFE4F, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (0xFF00, 0xFFEF, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
    (0x2190, 0x2BFF, "Symbola (Debian and Ubuntu: fonts-symbola)"),
    (0x1F000, 0x1FAFF, "Symbola (Debian and Ubuntu: fonts-symbola)"),
    (0x20000, 0x3FFFF, "Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)"),
)
"""Ranges of signs with the package that has them. Emoji in colour are pictures, which matplotlib cannot draw."""

OTHERS = "the Noto fonts of that script (Debian and Ubuntu: fonts-noto-core)"


class Installed(NamedTuple):
    """A font of this machine.

    path, family: its file and name. regular: upright and of normal weight. signs: those it has. postscript: whether its
    outlines are PostScript's (CFF), not TrueType's.
    """

    path: str
    family: str
    regular: bool
    signs: frozenset[int]
    postscript: bool


def texts_of(figure: Figure) -> Iterator[Text]:
    """Yield every text of a figure, those of ticks too, which matplotlib makes late."""
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_visible() and axes.axison:
                yield from axis.get_ticklabels(which="both")
    yield from figure.findobj(Text)


def supply(texts: Iterable[Text]) -> set[str]:
    """Have texts with letters that `FAMILY` lacks fall back to installed fonts; return the letters no font has.

    Other texts are not touched.
    """
    lacking = {text: wanted for text in texts if (wanted := _lacking(text.get_text()))}
    if not lacking:
        return set()
    from matplotlib.font_manager import fontManager

    wanted = frozenset().union(*lacking.values())
    chosen, left = choose(wanted)
    for font in chosen:
        if font.path not in {entry.fname for entry in fontManager.ttflist}:
            fontManager.addfont(font.path)  # one that was installed after matplotlib listed the fonts
    for text in lacking:
        text.set_fontfamily([FAMILY, *(font.family for font in chosen)])
    return {chr(sign) for sign in left}


def choose(wanted: frozenset[int]) -> tuple[list[Installed], frozenset[int]]:
    """Return fonts that have as many of the signs as can be, the one with the most first, and the signs left over."""
    chosen: list[Installed] = []
    while wanted:
        best = max(
            installed(), key=lambda font: (len(font.signs & wanted), font.regular, "sans" in font.family.lower()),
            default=None,
        )  # fmt: skip
        if best is None or not best.signs & wanted:
            break
        chosen.append(best)
        wanted -= best.signs
    return chosen, wanted


@lru_cache(maxsize=1)
def installed() -> tuple[Installed, ...]:
    """Return this machine's scalable fonts in order of family; found anew, for matplotlib's own list may be old."""
    from matplotlib.font_manager import findSystemFonts
    from matplotlib.ft2font import FT2Font

    found = []
    for path in findSystemFonts():
        try:
            font = FT2Font(path)
            signs = frozenset(font.get_charmap())
        except (RuntimeError, OSError, ValueError):  # FreeType cannot read every file that lies among fonts
            continue
        # Last Resort has a box for every sign there is; pictures (emoji in colour) have one size.
        if font.scalable and "last resort" not in font.family_name.lower():
            found.append(
                Installed(
                    path, font.family_name, font.style_name in ("Regular", "Book", "Roman"), signs, _is_postscript(path)
                )
            )
    return tuple(sorted(found, key=lambda font: (font.family, not font.regular, Path(font.path).name)))


def _is_postscript(path: str) -> bool:
    with Path(path).open("rb") as file:
        head = file.read(16)
        if head[:4] == b"ttcf":  # several fonts in one file, of which matplotlib takes the first
            file.seek(int.from_bytes(head[12:16], "big"))
            head = file.read(4)
    return head[:4] == b"OTTO"


def pdf_type(texts: Iterable[Text]) -> int:
    """Return how fonts are to lie in a PDF: 42, whole, as publishers ask for, or 3, as drawings.

    matplotlib writes PostScript outlines into a PDF as if they were TrueType's, which the format does not allow.
    """
    families = {family for text in texts for family in text.get_fontfamily()} - {FAMILY}
    return 3 if families and any(font.postscript for font in installed() if font.family in families) else 42


def sentence(letters: Iterable[str]) -> str:
    """Return what a reader is told of letters that no font has, "" for none."""
    ordered = sorted(set(letters))
    if not ordered:
        return ""
    packages = sorted({_package(ord(letter)) for letter in ordered})
    return (
        f"No installed font has the signs {some(ordered, 12, ' ')}, so figures show boxes in their place. "
        f"Install {' and '.join(packages)}, then make them again."
    )


def _package(sign: int) -> str:
    return next((name for first, last, name in PACKAGES if first <= sign <= last), OTHERS)


def _lacking(text: str) -> frozenset[int]:
    if text.isascii():
        return frozenset()
    return frozenset(ord(sign) for sign in text if not sign.isspace()) - _own_signs()


@lru_cache(maxsize=1)
def _own_signs() -> frozenset[int]:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont(FAMILY)).get_charmap())


def quiet() -> None:
    """Have matplotlib not warn of each letter that a font lacks: `sentence` says it once for all."""
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
