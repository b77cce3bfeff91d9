"""What is done to a picture that is not 8-bit RGB, in words that `data check` and `run` print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from errors import counted


class Conversion(StrEnum):
    """A way in which a picture becomes 8-bit RGB. The value goes into digests of own data: never change one.

    text: what was done to images, with places for {was}, {has} and {each} in the singular or the plural
    """

    text: str

    def __new__(cls, value: str, text: str = "") -> Self:
        """Return the string `value` with its text."""
        kind = str.__new__(cls, value)
        kind._value_, kind.text = value, text
        return kind

    BITS_16 = "16 bits", "of 16 bits a pixel {was} scaled to 8, divided by 257"
    BITS_12 = "12 bits", "of fewer than 16 and more than 8 bits a pixel {was} scaled to 8"
    SIGNED_16 = "signed 16 bits", "of 16 bits a pixel with a sign {was} scaled to 8, 32,767 being white"
    INTEGERS_8 = "32-bit integers, 0 to 255", "of 32 bits a pixel with values of 0 to 255 {was} taken as 8 bits"
    INTEGERS_16 = (
        "32-bit integers, 0 to 65535",
        "of 32 bits a pixel with values of 0 to 65,535 {was} scaled to 8, divided by 257",
    )
    INTEGERS = (
        "32-bit integers, own range",
        "of whole numbers beyond 16 bits or below 0 {was} scaled to 8 bits, {each} from its own smallest value to "
        "its largest",
    )
    FLOATS_1 = "floats, 0 to 1", "of floating-point numbers from 0 to 1 {was} scaled to 8 bits, times 255"
    FLOATS_255 = "floats, 0 to 255", "of floating-point numbers from 0 to 255 {was} rounded to 8 bits"
    FLOATS = (
        "floats, own range",
        "of floating-point numbers below 0 or above 255 {was} scaled to 8 bits, {each} from its own smallest value "
        "to its largest",
    )
    NOT_NUMBERS = (
        "not numbers are black",
        "{has} pixels that are infinite or no numbers, which became an end of the range or black",
    )
    TRANSPARENT = "transparency on white", "with transparent parts {was} laid on white"
    BLANK = (
        "blank on white",
        "with transparent parts {has} one colour all over on white, so that nothing is to be seen",
    )
    DEEP_COLOUR = "16 bits a colour", "of 16 bits a colour {was} cut to the upper 8"
    BILEVEL = "1 bit", "of 1 bit a pixel {was} converted to RGB"
    PALETTE = "palette", "with a palette {was} converted to RGB"
    CMYK = "CMYK", "of CMYK colours {was} converted to RGB, without their profile"
    YCBCR = "YCbCr", "of YCbCr colours {was} converted to RGB"
    LAB = "LAB", "of Lab colours {was} converted to RGB"
    HSV = "HSV", "of HSV colours {was} converted to RGB"
    FRAMES = "first frame", "with several frames {was} taken as the first of them"


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


def sentences(conversions: Iterable[Conversion]) -> list[str]:
    """Return how many images each conversion was done to, a sentence each, in the order of `Conversion`.

    >>> sentences([Conversion.BITS_16, Conversion.BITS_16])
    ['2 images of 16 bits a pixel were scaled to 8, divided by 257.']
    """
    counts = Counter(conversions)
    return [
        f"{counted(counts[kind], 'image')} "
        + kind.text.format(
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
