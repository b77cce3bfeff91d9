"""Reading pictures: every mode becomes the 8-bit RGB that a person sees, damaged files one kind of error."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import raising_decoder
import torch
from made_layouts import reader, small
from PIL import Image, TiffImagePlugin

from datasets import conversions, pictures
from datasets.checking.check import check
from datasets.checking.presence import with_images_there
from datasets.conversions import Conversion
from datasets.deep_grey import to_grey
from datasets.loaders import image_batches
from datasets.own import folder as folders
from datasets.pictures import Look, UnreadablePicture, glance_at, look_at, read_picture
from errors import UserError

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=2)
WHITE_IS_ZERO = TiffImagePlugin.ImageFileDirectory_v2()
WHITE_IS_ZERO[262] = 0


def pixels(path: Path, turned: bool = False) -> np.ndarray:
    picture = read_picture(path, turned=turned)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path: Path, width: int, bits: int, colour: int, line: bytes, *chunks: bytes) -> Path:
    """A PNG file of one line, as Pillow would not write it."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" + line))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + data + chunk(b"IEND", b""))
    return path


# grey of more than 8 bits ---------------------------------------------------------------------------------------------

DEEP = {
    "16 bits": (GREY.astype(np.uint16) * 257, "png", GREY, [Conversion.BITS_16]),
    "16 bits in TIFF": (GREY.astype(np.uint16) * 257, "tif", GREY, [Conversion.BITS_16]),
    "16 bits in JPEG 2000": (GREY.astype(np.uint16) * 257, "jp2", GREY, [Conversion.BITS_16]),
    "16 bits in PGM, which Pillow calls I": (GREY.astype(np.uint16) * 257, "pgm", GREY, [Conversion.BITS_16]),
    "a dark picture of 16 bits stays dark": (GREY.astype(np.uint16), "pgm", GREY // 129, [Conversion.BITS_16]),
    "32 bits with values of 8": (GREY.astype(np.int32), "tif", GREY, [Conversion.INTEGERS_8]),
    "32 bits with values of 16": (GREY.astype(np.int32) * 257, "tif", GREY, [Conversion.INTEGERS_16]),
    "32 bits": (GREY.astype(np.int32) * 1_000_000, "tif", GREY, [Conversion.INTEGERS]),
    "below 0": (GREY.astype(np.int32) - 100, "tif", GREY, [Conversion.INTEGERS]),
    "floats to 1": (GREY.astype(np.float32) / 255, "tif", GREY, [Conversion.FLOATS_1]),
    "floats to 255": (GREY.astype(np.float32) + 0.25 * (GREY < 255), "tif", GREY, [Conversion.FLOATS_255]),
    "floats beyond": (GREY.astype(np.float32) * 1000, "tif", GREY, [Conversion.FLOATS]),
    "floats below 0": (GREY.astype(np.float32) / 255 - 0.5, "tif", GREY, [Conversion.FLOATS]),
    "black floats": (np.zeros((16, 16), np.float32), "tif", np.zeros((16, 16)), [Conversion.FLOATS_1]),
    "one value below 0": (np.full((16, 16), -7, np.float32), "tif", np.zeros((16, 16)), [Conversion.FLOATS]),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_is_scaled_by_its_range(name, tmp_path):
    values, ending, expected, done = DEEP[name]
    path = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(path, **({"irreversible": False} if ending == "jp2" else {}))
    np.testing.assert_array_equal(pixels(path), rgb(expected))
    assert list(look_at(path).conversions) == done
    assert glance_at(path) == look_at(path)


def test_deep_grey_of_either_byte_order_and_of_fewer_bits(tmp_path):
    values = GREY.astype(np.uint16) * 257
    big = Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes())
    big.save(tmp_path / "big.tif")
    assert (tmp_path / "big.tif").read_bytes()[:2] == b"MM"
    np.testing.assert_array_equal(pixels(tmp_path / "big.tif"), rgb(GREY))
    little = Image.fromarray(values)
    little.save(tmp_path / "white.tif", tiffinfo=WHITE_IS_ZERO)
    np.testing.assert_array_equal(pixels(tmp_path / "white.tif"), rgb(255 - GREY))
    line = Image.fromarray(np.array([[0, 2048, 4095]], np.uint16))
    line.tag_v2 = {258: (12,)}
    assert np.asarray(to_grey(line, "I;12")[0])[0].tolist() == [0, 128, 255]
    signed = Image.fromarray(np.array([[0, 16384, 32767]], np.int32))
    assert np.asarray(to_grey(signed, "I;16S")[0])[0].tolist() == [0, 128, 255]


def test_values_that_are_no_numbers_are_black(tmp_path):
    values = np.array([[0, 0.5, 1, np.nan, np.inf, -np.inf]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255, 0, 255, 0]
    assert look_at(tmp_path / "a.tif").conversions == (Conversion.FLOATS_1, Conversion.NOT_NUMBERS)
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "none.tif")
    assert not pixels(tmp_path / "none.tif").any()


def test_colours_of_16_bits_become_their_upper_8(tmp_path):
    grey = bytes(value for pixel in ((200, 10), (100, 255)) for value in pixel for _ in range(2))
    png(tmp_path / "colour.png", 2, 16, 2, bytes([1, 1, 2, 2, 3, 3, 9, 9, 9, 9, 9, 9]))
    assert pixels(tmp_path / "colour.png")[0].tolist() == [[1, 2, 3], [9, 9, 9]]
    assert look_at(tmp_path / "colour.png").conversions == (Conversion.DEEP_COLOUR,)
    png(tmp_path / "alpha.png", 2, 16, 4, grey)
    assert pixels(tmp_path / "alpha.png")[0, :, 0].tolist() == [253, 100]


# transparency ---------------------------------------------------------------------------------------------------------

CLEAR = np.where(GREY % 3 == 0, 0, np.where(GREY % 3 == 1, 255, 51)).astype(np.uint8)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_transparent_pictures_are_laid_on_white(ending, tmp_path):
    picture = Image.fromarray(np.dstack([COLOUR, CLEAR]))
    picture.save(tmp_path / f"a.{ending}", **({"lossless": True, "exact": True} if ending == "webp" else {}))
    np.testing.assert_allclose(pixels(tmp_path / f"a.{ending}"), on_white(COLOUR, CLEAR), atol=1)
    assert look_at(tmp_path / f"a.{ending}").conversions == (Conversion.TRANSPARENT,)


def test_a_white_icon_that_white_swallows_is_said(tmp_path):
    Image.fromarray(np.dstack([np.full_like(COLOUR, 255), CLEAR])).save(tmp_path / "a.png")
    assert look_at(tmp_path / "a.png").conversions == (Conversion.TRANSPARENT, Conversion.BLANK)
    (_, said) = pictures.look_sentences([look_at(tmp_path / "a.png")], turned=True)
    assert said == "1 image with transparent parts has one colour all over on white, so that nothing is to be seen."


@pytest.mark.parametrize("mode", ["LA", "La", "RGBa", "PA", "RGBA"])
def test_every_mode_with_alpha_is_laid_on_white(mode):
    grey = Image.fromarray(np.dstack([GREY, CLEAR]))
    whole = grey.convert("RGBA") if mode in ("RGBA", "RGBa", "PA") else grey
    if mode == "PA":
        whole = Image.new("PA", (16, 16))
        whole.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
        whole.im.putband(Image.fromarray(GREY).im, 0)
        whole.im.putband(Image.fromarray(CLEAR).im, 1)
    elif mode != whole.mode:
        whole = whole.convert(mode)
    found, done = pictures._decoded(whole)
    assert Conversion.TRANSPARENT in done
    np.testing.assert_allclose(np.asarray(found), on_white(rgb(GREY), CLEAR), atol=3)


def test_an_opaque_picture_with_alpha_is_the_same_as_without(tmp_path):
    colour = Image.fromarray(COLOUR)
    for mode, expected in (("RGBA", colour), ("LA", colour.convert("L")), ("PA", None)):
        picture = colour.convert(mode) if mode != "PA" else colour.quantize(16).convert("PA")
        found, done = pictures._decoded(picture)
        assert Conversion.TRANSPARENT not in done
        wanted = picture.convert("RGB") if expected is None else expected.convert("RGB")
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    colour.convert("RGBA").save(tmp_path / "a.png")
    assert look_at(tmp_path / "a.png") == glance_at(tmp_path / "a.png") == Look()


def test_transparent_entries_of_palettes_and_transparent_colours(tmp_path):
    paletted = Image.frombytes("P", (4, 1), bytes([0, 1, 2, 1]))
    paletted.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    paletted.save(tmp_path / "index.png", transparency=1)
    paletted.save(tmp_path / "index.gif", transparency=1)
    paletted.save(tmp_path / "bytes.png", transparency=bytes([255, 0, 128]))
    white = [255, 255, 255]
    for name in ("index.png", "index.gif"):
        assert pixels(tmp_path / name)[0].tolist() == [[10, 20, 30], white, [70, 80, 90], white]
        assert Conversion.TRANSPARENT in look_at(tmp_path / name).conversions
    assert pixels(tmp_path / "bytes.png")[0].tolist() == [[10, 20, 30], white, [162, 167, 172], white]
    paletted.save(tmp_path / "opaque.png")
    assert pixels(tmp_path / "opaque.png")[0, 1].tolist() == [40, 50, 60]
    assert look_at(tmp_path / "opaque.png").conversions == (Conversion.PALETTE,)
    Image.fromarray(COLOUR).save(tmp_path / "key.png", transparency=tuple(COLOUR[3, 4].tolist()))
    assert pixels(tmp_path / "key.png")[3, 4].tolist() == white
    assert (pixels(tmp_path / "key.png") == COLOUR).all(axis=2).sum() == 255


@pytest.mark.parametrize(
    ("bits", "key", "line", "expected"),
    [
        (1, 1, bytes([0b10100000]), [255, 0, 255, 0]),
        (1, 0, bytes([0b10100000]), [255, 255, 255, 255]),
        (2, 1, bytes([0b00011011]), [0, 255, 170, 255]),
        (4, 2, bytes([0x12, 0x3F]), [17, 255, 51, 255]),
        (8, 2, bytes([1, 2, 3, 4]), [1, 255, 3, 4]),
        (16, 0x0202, bytes([1, 1, 2, 2, 2, 3, 4, 4]), [1, 255, 2, 4]),
    ],
)
def test_the_transparent_value_of_grey_of_every_depth(bits, key, line, expected, tmp_path):
    path = png(tmp_path / "a.png", 4, bits, 0, line, chunk(b"tRNS", struct.pack(">H", key)))
    assert pixels(path)[0, :, 0].tolist() == expected


def test_the_transparent_colour_of_16_bits(tmp_path):
    line = bytes([1, 9, 2, 9, 3, 9, 9, 9, 9, 9, 9, 9])
    path = png(tmp_path / "a.png", 2, 16, 2, line, chunk(b"tRNS", struct.pack(">HHH", 0x0109, 0x0209, 0x0309)))
    assert pixels(path)[0].tolist() == [[255, 255, 255], [9, 9, 9]]


# other modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_modes_are_converted_as_pillow_does(mode):
    from PIL import ImageCms

    picture = Image.fromarray(COLOUR)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.applyTransform(picture, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        picture = picture.convert(mode)
    assert picture.mode == mode
    found, done = pictures._decoded(picture)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(picture.convert("RGB")))
    assert list(done) == ([conversions.MODES[mode]] if mode in conversions.MODES else [])
    if mode in ("LAB", "HSV", "YCbCr", "RGB", "RGBX"):
        assert np.abs(np.asarray(found).astype(int) - COLOUR).mean() < 12, "the colours are those that were there"


def test_a_cmyk_jpeg_is_not_inverted_and_frames_are_counted(tmp_path):
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red; Pillow writes it inverted, as Adobe does
    cmyk.save(tmp_path / "a.jpg")
    red = pixels(tmp_path / "a.jpg")[4, 4]
    assert red[0] > 250 and red[1:].max() < 5
    assert look_at(tmp_path / "a.jpg").conversions == glance_at(tmp_path / "a.jpg").conversions == (Conversion.CMYK,)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        lossless = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
        assert pixels(tmp_path / name)[0, 0].tolist() == [255, 0, 0], name
        assert Conversion.FRAMES in look_at(tmp_path / name).conversions, name
        assert glance_at(tmp_path / name) == look_at(tmp_path / name)


# orientation ----------------------------------------------------------------------------------------------------------

UPRIGHT = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
STORED = {  # by orientation: how a camera stores the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


def stored(path: Path, orientation: int, upright: np.ndarray = UPRIGHT, **options) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(turned).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_where_wanted(orientation, tmp_path):
    as_stored = STORED[orientation](UPRIGHT)
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True})):
        path = stored(tmp_path / name, orientation, **options)
        np.testing.assert_array_equal(pixels(path, turned=True), UPRIGHT)
        np.testing.assert_array_equal(pixels(path), as_stored)
        assert look_at(path) == glance_at(path) == Look(orientation=orientation)
    path = stored(tmp_path / "a.jpg", orientation, quality=100, subsampling=0)
    assert np.abs(pixels(path, turned=True).astype(int) - UPRIGHT).max() < 8
    assert glance_at(path).orientation == orientation
    # Pillow turns TIFF by itself; it must not be turned twice.
    path = stored(tmp_path / "a.tif", orientation)
    np.testing.assert_array_equal(pixels(path, turned=True), UPRIGHT)
    assert look_at(path) == glance_at(path) == Look()


BROKEN_EXIF = {
    "garbage": b"Exif\0\0garbage",
    "cut off": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "no such orientation": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
    "0": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0",
    "a text": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02\x36\0\0\0\0\0\0\0",
    "beyond the end": b"Exif\0\0II*\0\xff\xff\xff\x7f",
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # which Pillow says while it opens a JPEG
@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_exif_data_that_say_nothing_leave_the_picture_as_it_is(name, tmp_path):
    for ending in ("jpg", "png"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(UPRIGHT).save(path, exif=BROKEN_EXIF[name])
        np.testing.assert_array_equal(pixels(path, turned=True), pixels(path))
        assert look_at(path).orientation == 1


# own data, published data ---------------------------------------------------------------------------------------------

PAIRS = [(state, obj) for state in ("dry", "old", "wet") for obj in ("cat", "dog", "fox")]


@pytest.fixture
def photos(tmp_path) -> Path:
    for number, (state, obj) in enumerate(PAIRS * 4):
        file = tmp_path / "photos" / f"{state} {obj}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(UPRIGHT, number, axis=1) + np.uint8(number)).save(file)
    return tmp_path / "photos"


def test_digests_of_own_data_of_plain_pictures_are_what_they_were(photos):
    dataset = folders.load(str(photos))
    words = dataset.vocabulary
    table = sorted(
        [phase, name, words.states[s], words.objects[o], path.stat().st_size, hashlib.sha256(content).hexdigest()]
        for phase, split in dataset.splits.items()
        for name, s, o in zip(split.images, split.states, split.objects, strict=True)
        for path in [photos / name]
        for content in [path.read_bytes()]
    )
    table.sort(key=lambda row: row[1])
    assert dataset.digest == hashlib.sha256(json.dumps([1, table]).encode()).hexdigest()


@pytest.mark.parametrize("kind", ["orientation", "16 bits", "transparency"])
def test_the_digest_of_own_data_tells_how_pictures_are_read_where_it_matters(kind, photos, monkeypatch):
    file = next(photos.rglob("8.png"))
    if kind == "orientation":
        stored(file, 6)
    elif kind == "16 bits":
        Image.fromarray(GREY.astype(np.uint16) * 257).save(file)
    else:
        Image.fromarray(np.dstack([COLOUR, CLEAR])).save(file)
    dataset = folders.load(str(photos))
    assert folders.load(str(photos)).digest == dataset.digest, "looks are remembered"
    said = {"orientation": "1 image has an orientation in its EXIF data and was turned upright."}
    said |= {"16 bits": "1 image of 16 bits a pixel was scaled to 8, divided by 257."}
    said |= {"transparency": "1 image with transparent parts was laid on white."}
    assert said[kind] in dataset.notes
    report = check(str(photos))
    assert said[kind] in [finding.text for finding in report.findings if not finding.problem]
    assert report.problems == []
    monkeypatch.setattr(folders, "looks_of", lambda paths: [Look()] * len(paths))
    assert folders.load(str(photos)).digest != dataset.digest


def test_own_images_are_turned_and_published_ones_are_not(photos, tmp_path, monkeypatch):
    file = next(photos.rglob("8.png"))
    stored(file, 8)
    dataset = folders.load(str(photos))
    place = next((phase, split.images.index(name)) for phase, split in dataset.splits.items()
                 for name in split.images if name.endswith("/8.png"))  # fmt: skip
    np.testing.assert_array_equal(np.asarray(dataset.load_image(*place)), UPRIGHT)
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    small("mit_states", tmp_path, pictures=True, pixels=8)
    published = reader("mit_states")()
    path = published.image_path("test", 0)
    stored(path, 6, quality=100, subsampling=0)
    np.testing.assert_allclose(np.asarray(published.load_image("test", 0)), STORED[6](UPRIGHT), atol=8)
    assert (
        "1 image has an orientation in its EXIF data and is read as stored, not turned (docs/datasets.md says why)."
        in [finding.text for finding in check("mit_states").findings if not finding.problem]
    )
    assert reader("mit_states")().digest == published.digest
    turned = dataclasses.replace(published, turned=True)
    np.testing.assert_allclose(np.asarray(turned.load_image("test", 0)), UPRIGHT, atol=8)


# damaged files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def decoder():
    with raising_decoder.registered():
        yield


@pytest.mark.parametrize("when", ["open", "load"])
@pytest.mark.parametrize("error", raising_decoder.NAMES)
def test_whatever_a_decoder_raises_is_an_unreadable_picture(error, when, decoder, tmp_path):
    path = raising_decoder.write(tmp_path / "a.raises", error, when)
    for read in (read_picture, look_at, glance_at):
        with pytest.raises(UnreadablePicture) as caught:
            read(path)
        assert str(path) not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_reason_is_a_sentence_or_begins_with_the_kind_of_error(decoder, tmp_path):
    def reason(path: Path) -> str:
        with pytest.raises(UnreadablePicture) as caught:
            read_picture(path)
        return str(caught.value)

    assert reason(raising_decoder.write(tmp_path / "a", "RuntimeError")) == "odd bytes"
    assert reason(raising_decoder.write(tmp_path / "b", "KeyError")) == "KeyError: 'odd bytes'"
    assert reason(tmp_path / "c") == "no such file"
    assert reason(tmp_path) == "Is a directory"
    (tmp_path / "d").write_bytes(b"text")
    assert reason(tmp_path / "d") == "cannot identify image file"


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "MemoryError"])
def test_what_is_not_the_file_s_fault_goes_through(error, decoder, tmp_path):
    with pytest.raises(getattr(builtins, error)):
        read_picture(raising_decoder.write(tmp_path / "a", error))


def test_memory_that_an_absurd_size_asks_for_is_the_file_s_fault(decoder, tmp_path, monkeypatch):
    with pytest.raises(UnreadablePicture, match="its head asks for more memory"):
        read_picture(raising_decoder.write(tmp_path / "a", "MemoryError", "open"))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 15)  # of 16: Pillow warns, and refuses twice as many
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(UnreadablePicture, match="its 4 x 4 pixels do not fit"),
    ):
        read_picture(raising_decoder.write(tmp_path / "a", "MemoryError"))


@pytest.mark.parametrize("error", ["RuntimeError", "struct.error", "KeyError"])
def test_a_damaged_file_is_named_by_every_way_to_read_a_data_set(error, decoder, photos):
    file = raising_decoder.write(next(photos.rglob("8.png")), error)
    dataset = folders.load(str(photos))
    (problem,) = check(str(photos)).problems
    assert problem.text.startswith("1 image cannot be read: ") and f"/{file.name} (" in problem.text
    rest = with_images_there(dataset, 1)
    assert [Path(name).name for name in rest.left_out] == [file.name]
    phase = next(name for name, split in dataset.splits.items() if any(i.endswith("/8.png") for i in split.images))
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"'8\.png' of the .* cannot be read .*--allow-missing 1"):
            list(image_batches(dataset, phase, lambda picture: torch.zeros(1), 4, workers=workers))


def test_a_look_is_remembered_as_text():
    look = Look((Conversion.BITS_16, Conversion.TRANSPARENT), 6)
    assert Look.parse(look.text) == look
    assert Look.parse(Look().text) == Look()
    with pytest.raises(ValueError):
        Look.parse("1; nothing")
    assert all(kind.text for kind in Conversion)
    assert not any("; " in kind for kind in Conversion)
