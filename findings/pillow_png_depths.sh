#!/usr/bin/env bash
# Pillow: a grey PNG picture that has not 8 bits a pixel, and Image.open(file).convert("RGB") or ("RGBA").
#
# Surprising:
# - 16 bits are cut off at 255 and not scaled. Grey 300 of 65,535, nearly black, becomes white, and so does all above it:
#   of an ordinary 16-bit photograph a white rectangle is left, without a warning. "L" does the same.
# - 2 and 4 bits are scaled to 0 .. 255, but the transparent value (tRNS) stays as it is in the file and is compared with
#   the scaled ones: nothing becomes transparent. With 1 and 8 bits it is right.
# The loaders that CSP, DFSP and Troika share are one line, Image.open(file).convert("RGB").
#
# Here: datasets/deep_grey.py scales 16 bits by their range, datasets/pictures.py scales the transparent value with the
# pixels; `bench.py data check` counts such pictures.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import struct
import sys
import zlib

import PIL
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(path: str, bits: int, values: list[int], transparent: int | None = None) -> None:
    """Write a grey PNG picture of one row."""
    row = "".join(format(value, f"0{bits}b") for value in values)
    row += "0" * (-len(row) % 8)
    packed = bytes(int(row[at : at + 8], 2) for at in range(0, len(row), 8))
    key = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0))
    content = header + key + chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + content)


def pixels(path: str, mode: str) -> list[int]:
    """Return the first channel, or for RGBA the last."""
    with Image.open(path) as picture:
        converted = picture.convert(mode)
    return [converted.getchannel("A" if mode == "RGBA" else 0).getpixel((x, 0)) for x in range(converted.width)]


print(f"Pillow {PIL.__version__}")
values = [0, 100, 300, 1000, 30000, 65535]
write("16.png", 16, values)
print(f"16 bits      {values}")
print(f"  scaled     {[round(value / 257) for value in values]}")
seen = {mode: pixels("16.png", mode) for mode in ("RGB", "L")}
for mode, found in seen.items():
    print(f"  {mode:<10} {found}")
alphas = {}
for bits in (1, 2, 4, 8):
    write("key.png", bits, [0, 1, 1, 0], transparent=1)
    alphas[bits] = pixels("key.png", "RGBA")
    print(f"{bits} bits [0, 1, 1, 0] with 1 transparent: alpha {alphas[bits]}")
right, lost = [255, 0, 0, 255], [255, 255, 255, 255]
same = all(found == [0, 100, 255, 255, 255, 255] for found in seen.values())
same = same and alphas == {1: right, 2: lost, 4: lost, 8: right}
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
