"""Reading a picture file: decoded, turned upright where that is wanted, as 8-bit RGB; and what had to be done for that.

All pictures that a method or a person sees come through `read_picture`. What every mode becomes is in docs/datasets.md.
Nothing here imports torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import ExifTags, Image

from datasets.conversions import MODES, PLAIN, Conversion, orientation_sentence, sentences
from errors import UserError

GROUND = (255, 255, 255)
"""The colour that transparent pictures are laid on: white, as most programs show them."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its orientation in EXIF; 1 is upright already."""

SAID = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, Image.DecompressionBombError)
"""Errors whose text is a sentence; of any other the type says more."""


class UnreadablePicture(ValueError):
    """A file that is missing, damaged, far too large or no picture. Its text is the reason, without the path."""


@dataclass(frozen=True)
class Look:
    """What a picture file is.

    conversions: what is done to make it 8-bit RGB, in a fixed order; none for plain grey and colour.
    orientation: of its EXIF data, 1 to 8; 1 where there is none, or none that can be read.
    """

    conversions: tuple[Conversion, ...] = ()
    orientation: int = 1

    @property
    def rules(self) -> tuple[str, ...]:
        """What of this makes other pixels than Pillow's own conversion to RGB does, if the picture is turned."""
        deep = tuple(kind.value for kind in self.conversions if kind not in PLAIN)
        return deep if self.orientation == 1 else (*deep, "turned upright")

    @property
    def text(self) -> str:
        """All of it in one line, which `parse` reads."""
        return "; ".join([str(self.orientation), *self.conversions])

    @classmethod
    def parse(cls, text: str) -> Look:
        """Return the look that a `text` stands for; ValueError for any other text."""
        orientation, *conversions = text.split("; ")
        return cls(tuple(Conversion(kind) for kind in conversions), int(orientation))


def read_picture(path: Path, *, turned: bool = False) -> Image.Image:
    """Return the picture of a file in 8-bit RGB; of several frames the first.

    turned: whether a picture whose EXIF data have an orientation is turned upright. Raises `UnreadablePicture` for any
    file that is no whole picture, whatever its decoder raised.
    """
    with _opened(path) as picture:
        rgb, _ = _decoded(picture)
        turn = TURNS.get(_orientation(picture)) if turned else None
        return rgb if turn is None else rgb.transpose(turn)


def look_at(path: Path) -> Look:
    """Decode a file and return what it is; raises `UnreadablePicture` as `read_picture` does."""
    with _opened(path) as picture:
        frames = _has_frames(picture)
        depth = _is_deep_colour(picture)
        _, conversions = _decoded(picture)
        if depth:
            conversions = (Conversion.DEEP_COLOUR, *conversions)
        if frames:
            conversions = (*conversions, Conversion.FRAMES)
        return Look(conversions, _orientation(picture))


def glance_at(path: Path) -> Look:
    """Return what `look_at` returns, without decoding where the head of the file tells: plain JPEG and PNG files."""
    with _opened(path) as picture:
        mode = picture.mode
        if (mode in ("RGB", "L") or mode in MODES) and not picture.has_transparency_data:
            plain = () if mode not in MODES else (MODES[mode],)
            if picture.format in ("JPEG", "MPO"):
                return Look(plain, _orientation(picture))
            # PNG may keep EXIF data behind its pixels, where Pillow finds them by decoding.
            simple = picture.format == "PNG" and not _is_deep_colour(picture) and not _has_frames(picture)
            if simple and not _may_have_exif(path.read_bytes()):
                return Look(plain)
    return look_at(path)


def _may_have_exif(png: bytes) -> bool:
    return any(mark in png for mark in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; whatever is raised by then or inside becomes `UnreadablePicture`.

    Memory that ran out is the machine's trouble and stays a `MemoryError`, except where the file asks for an absurd
    amount of it: while its head is read, or with more pixels than Pillow takes without a warning.
    """
    picture: Image.Image | None = None
    try:
        with Image.open(path) as picture:
            yield picture
    except MemoryError as error:
        if picture is None:
            raise UnreadablePicture("its head asks for more memory than there is") from error
        width, height = picture.size
        if width * height <= (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise
        raise UnreadablePicture(f"its {width:,} x {height:,} pixels do not fit into memory") from error
    except UserError:
        raise
    except Exception as error:  # a decoder may raise anything, and nothing but decoders runs in here
        raise UnreadablePicture(_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    """Return what an error says of a file, in one line and without the path, which callers name."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    for name in (repr(str(path)), str(path)):
        text = text.replace(name, "")
    text = " ".join(text.split())
    if not text:
        return type(error).__name__
    return text if isinstance(error, SAID) else f"{type(error).__name__}: {text}"


def _orientation(picture: Image.Image) -> int:
    """Return the orientation, 1 to 8. Call it when the picture is decoded: Pillow turns TIFF files by itself then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of EXIF data that are cut off
        try:
            value = picture.getexif().get(ExifTags.Base.Orientation, 1)
        except MemoryError:
            raise
        except Exception:  # data beside the picture that cannot be read say nothing of how it is held
            return 1
    return int(value) if isinstance(value, int) and value in TURNS else 1


def _rawmode(picture: Image.Image) -> str:
    """Return how the pixels lie in the file, in Pillow's words; known until they are decoded, else ""."""
    for tile in picture.tile if hasattr(picture, "tile") else ():
        arguments = tile[3]
        first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        return first if isinstance(first, str) else ""
    return ""


def _is_deep_colour(picture: Image.Image) -> bool:
    """Return whether Pillow itself cuts the picture to the upper 8 of its 16 bits."""
    return picture.mode in ("RGB", "RGBA", "RGBa", "RGBX", "LA", "CMYK") and ";16" in _rawmode(picture)


def _has_frames(picture: Image.Image) -> bool:
    """Return whether there are several frames; the previews and depth maps in a telephone's JPEG are none."""
    return picture.format != "MPO" and bool(getattr(picture, "is_animated", False))


def _decoded(picture: Image.Image) -> tuple[Image.Image, tuple[Conversion, ...]]:
    """Return the picture in 8-bit RGB, and what was done for that."""
    mode = picture.mode
    keyed = "transparency" in picture.info
    if mode in ("RGB", "L") and not keyed:
        return picture.convert("RGB"), ()
    rawmode = _rawmode(picture)
    if mode.startswith("I") or mode == "F":
        from datasets.deep_grey import to_grey

        grey, conversions, key = to_grey(picture, rawmode)
        if key is not None and key.any():
            ground = Image.new("L", grey.size, GROUND[0])
            grey = Image.composite(ground, grey, Image.fromarray(key.astype(np.uint8) * 255))
            conversions = (*conversions, Conversion.TRANSPARENT)
        return grey.convert("RGB"), conversions
    own = () if mode not in MODES else (MODES[mode],)
    if not picture.has_transparency_data:
        return picture.convert("RGB"), own
    if keyed:
        picture.info["transparency"] = _key_of_8_bits(picture.info["transparency"], rawmode)
    if mode == "La":
        picture = picture.convert("LA")
    whole = picture.convert("RGBA")
    if whole.getchannel("A").getextrema()[0] == 255:
        return picture.convert("RGB"), own
    ground = Image.new("RGBA", whole.size, (*GROUND, 255))
    laid = Image.alpha_composite(ground, whole).convert("RGB")
    blank = all(low == high for low, high in cast(Sequence[tuple[int, int]], laid.getextrema()))
    return laid, (*own, Conversion.TRANSPARENT, *((Conversion.BLANK,) if blank else ()))


def _key_of_8_bits(key: object, rawmode: str) -> object:
    """Return the transparent colour of a PNG file as its decoded pixels have it; Pillow leaves it as in the file."""
    if isinstance(key, int) and rawmode in ("L;2", "L;4"):
        return key * {"L;2": 85, "L;4": 17}[rawmode]
    if isinstance(key, tuple) and ";16" in rawmode:
        return tuple(value >> 8 for value in key)
    return key


def look_sentences(looks: Sequence[Look], turned: bool, *, plain: bool = True) -> list[str]:
    """Return what was converted and how, and how many pictures have an orientation, in sentences with counts.

    turned: whether such pictures are turned upright
    plain: False leaves out what Pillow's own conversion does as well
    """
    found = sentences(kind for look in looks for kind in look.conversions if plain or kind not in PLAIN)
    count = sum(look.orientation != 1 for look in looks)
    return [*found, orientation_sentence(count, turned)] if count else found
