"""Grey pictures of more than 8 bits, of integers or floating-point numbers, scaled to 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from datasets.conversions import Conversion

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF
WHITE_IS_ZERO = 0


def to_grey(picture: Image.Image, rawmode: str) -> tuple[Image.Image, tuple[Conversion, ...], np.ndarray | None]:
    """Return a picture of a mode I or F in mode L, what was done, and which pixels its transparent value has.

    rawmode: how the pixels lie in the file, which Pillow forgets when it decodes them. The last is bool [height,
    width], None for a picture without such a value.
    """
    values = np.asarray(picture)
    key = picture.info.get("transparency")
    tags = getattr(picture, "tag_v2", {})
    if picture.mode.startswith("I;16"):
        grey, conversions = _of_16_bits(values, int(tags.get(BITS_PER_SAMPLE, (16,))[0]))
    elif picture.mode == "F":
        grey, conversions = _of_floats(values)
    else:
        grey, conversions = _of_integers(values, "PPM" if picture.format == "PPM" else rawmode)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow minds this with 8 bits alone
        grey = 255 - grey
    return Image.fromarray(grey), conversions, values == key if isinstance(key, int) else None


def _of_16_bits(values: np.ndarray, bits: int) -> tuple[np.ndarray, tuple[Conversion, ...]]:
    """Scale by the range of the file's bits, so that 257 v of 16 bits is v again."""
    top = 2 ** min(max(bits, 8), 16) - 1
    table = np.full(65_536, 255, dtype=np.uint8)
    table[: top + 1] = np.rint(np.arange(top + 1) * (255 / top))
    return table[values], (Conversion.BITS_16 if top == 65_535 else Conversion.BITS_12,)


def _of_integers(values: np.ndarray, kind: str) -> tuple[np.ndarray, tuple[Conversion, ...]]:
    """Scale by the range of the file's type if that has 16 bits; of 32 bits by the values that there are.

    kind: rawmode or "PPM", whose values Pillow brings to 16 bits.
    """
    low, high = int(values.min()), int(values.max())
    if low >= 0 and kind in ("I;16S", "I;16BS", "I;16NS"):
        return _stretched(values, 0, 32_767), (Conversion.SIGNED_16,)
    if low >= 0 and high <= 65_535 and (kind == "PPM" or kind.startswith("I;16")):
        return _stretched(values, 0, 65_535), (Conversion.BITS_16,)
    if low >= 0 and high <= 255:
        return values.astype(np.uint8), (Conversion.INTEGERS_8,)
    if low >= 0 and high <= 65_535:
        return _stretched(values, 0, 65_535), (Conversion.INTEGERS_16,)
    return _stretched(values, low, high), (Conversion.INTEGERS,)


def _of_floats(values: np.ndarray) -> tuple[np.ndarray, tuple[Conversion, ...]]:
    """Scale from 0 .. 1 or 0 .. 255, whichever holds all values, else from the smallest to the largest.

    What is no number becomes black; infinity the end of the range.
    """
    finite = values[np.isfinite(values)]
    odd = (Conversion.NOT_NUMBERS,) if finite.size < values.size else ()
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low >= 0 and high <= 1:
        return _stretched(values, 0, 1), (Conversion.FLOATS_1, *odd)
    if low >= 0 and high <= 255:
        return _stretched(values, 0, 255), (Conversion.FLOATS_255, *odd)
    return _stretched(values, low, high), (Conversion.FLOATS, *odd)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return low .. high as 0 .. 255, uint8; one value alone is black."""
    span = high - low or 1
    scaled = np.rint(np.clip((values.astype(np.float64) - low) * (255 / span), 0, 255))
    return np.nan_to_num(scaled, nan=0).astype(np.uint8)
