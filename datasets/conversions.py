"""What is done to a picture that is not 8-bit RGB, in words that `data check` and `run` print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from errors import counted


class Conversion(StrEnum):
    """A way in which a picture becomes 8-bit RGB. The value goes into digests of own data: never change one."""

    BITS_16 = "16 bits"
    BITS_12 = "12 bits"
    SIGNED_16 = "signed 16 bits"
    INTEGERS_8 = "32-bit integers, 0 to 255"
    INTEGERS_16 = "32-bit integers, 0 to 65535"
    INTEGERS = "32-bit integers, own range"
    FLOATS_1 = "floats, 0 to 1"
    FLOATS_255 = "floats, 0 to 255"
    FLOATS = "floats, own range"
    NOT_NUMBERS = "not numbers are black"
    TRANSPARENT = "transparency on white"
    BLANK = "blank on white"
    DEEP_COLOUR = "16 bits a colour"
    BILEVEL = "1 bit"
    PALETTE = "palette"
    CMYK = "CMYK"
    YCBCR = "YCbCr"
    LAB = "LAB"
    HSV = "HSV"
    FRAMES = "first frame"


MODES = {
    "1": Conversion.BILEVEL,
    "P": Conversion.PALETTE,
    "PA": Conversion.PALETTE,
    "CMYK": Conversion.CMYK,
    "YCbCr": Conversion.YCBCR,
    "LAB": Conversion.LAB,
    "HSV": Conversion.HSV,
}
"""What Pillow's modes are called here, of those that its own conversion turns into RGB as it should."""

PLAIN = frozenset({*MODES.values(), Conversion.DEEP_COLOUR, Conversion.FRAMES})
"""What Pillow's own conversion does. The others changed numbers when they came, so digests of own data hold them."""

TEXTS = {
    Conversion.BITS_16: "of 16 bits a pixel {was} scaled to 8, divided by 257",
    Conversion.BITS_12: "of fewer than 16 and more than 8 bits a pixel {was} scaled to 8",
    Conversion.SIGNED_16: "of 16 bits a pixel with a sign {was} scaled to 8, 32,767 being white",
    Conversion.INTEGERS_8: "of 32 bits a pixel with values of 0 to 255 {was} taken as 8 bits",
    Conversion.INTEGERS_16: "of 32 bits a pixel with values of 0 to 65,535 {was} scaled to 8, divided by 257",
    Conversion.INTEGERS: "of whole numbers beyond 16 bits or below 0 {was} scaled to 8 bits, {each} from its own "
    "smallest value to its largest",
    Conversion.FLOATS_1: "of floating-point numbers from 0 to 1 {was} scaled to 8 bits, times 255",
    Conversion.FLOATS_255: "of floating-point numbers from 0 to 255 {was} rounded to 8 bits",
    Conversion.FLOATS: "of floating-point numbers below 0 or above 255 {was} scaled to 8 bits, {each} from its own "
    "smallest value to its largest",
    Conversion.NOT_NUMBERS: "{has} pixels that are infinite or no numbers, which became an end of the range or black",
    Conversion.TRANSPARENT: "with transparent parts {was} laid on white",
    Conversion.BLANK: "with transparent parts {has} one colour all over on white, so that nothing is to be seen",
    Conversion.DEEP_COLOUR: "of 16 bits a colour {was} cut to the upper 8",
    Conversion.BILEVEL: "of 1 bit a pixel {was} converted to RGB",
    Conversion.PALETTE: "with a palette {was} converted to RGB",
    Conversion.CMYK: "of CMYK colours {was} converted to RGB, without their profile",
    Conversion.YCBCR: "of YCbCr colours {was} converted to RGB",
    Conversion.LAB: "of Lab colours {was} converted to RGB",
    Conversion.HSV: "of HSV colours {was} converted to RGB",
    Conversion.FRAMES: "with several frames {was} taken as the first of them",
}


def sentences(conversions: Iterable[Conversion]) -> list[str]:
    """Return how many images each conversion was done to, a sentence each, in the order of `Conversion`.

    >>> sentences([Conversion.BITS_16, Conversion.BITS_16])
    ['2 images of 16 bits a pixel were scaled to 8, divided by 257.']
    """
    counts = Counter(conversions)
    return [
        f"{counted(counts[kind], 'image')} "
        + TEXTS[kind].format(
            was="was" if counts[kind] == 1 else "were",
            has="has" if counts[kind] == 1 else "have",
            each="it" if counts[kind] == 1 else "each",
        )
        + "."
        for kind in Conversion
        if counts[kind]
    ]


def orientation_sentence(count: int, turned: bool) -> str:
    """Return what a person should know of `count` images that are stored lying or mirrored."""
    images = counted(
        count, "image has an orientation in its EXIF data", "images have an orientation in their EXIF data"
    )
    return (
        f"{images} and {'was' if count == 1 else 'were'} turned upright."
        if turned
        else f"{images} and {'is' if count == 1 else 'are'} read as stored, not turned (docs/datasets.md says why)."
    )
