"""A decoder that raises what a file's name says: as Pillow's own plugins raise whatever they like for damaged files."""

from __future__ import annotations

import builtins
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile

MARK = b"RAISES "
ERRORS = {"struct.error": struct.error, "zlib.error": zlib.error}
NAMES = (
    *ERRORS,
    *("RuntimeError", "IndexError", "KeyError", "AttributeError", "OverflowError", "ZeroDivisionError"),
    *("AssertionError", "TypeError", "NotImplementedError", "RecursionError", "UnicodeDecodeError", "EOFError"),
    *("SyntaxError", "ValueError", "OSError", "BufferError", "ArithmeticError", "LookupError", "StopIteration"),
)


def write(path: Path, error: str, when: str = "load") -> Path:
    """Write a file that raises the named error when it is opened ("open") or decoded ("load")."""
    path.write_bytes(MARK + f"{when} {error}".encode())
    return path


class RaisingFile(ImageFile.ImageFile):
    """Raises what its file says."""

    format, format_description = "RAISES", "a file that raises"

    def _open(self) -> None:
        assert self.fp is not None
        _, self.when, self.error = self.fp.read().decode().split(" ")
        self._mode, self._size = "RGB", (4, 4)
        if self.when == "open":
            self._raise()

    def _raise(self) -> None:
        kind = ERRORS.get(self.error) or getattr(builtins, self.error)
        raise kind("utf-8", b"", 0, 1, "odd") if kind is UnicodeDecodeError else kind("odd bytes")

    def load(self):
        if self.when == "load":
            self._raise()
        return super().load()


@contextmanager
def registered() -> Iterator[None]:
    """Have Pillow know the decoder, for files that end in .raises too."""
    Image.init()
    Image.register_open("RAISES", RaisingFile, lambda prefix: prefix.startswith(MARK))
    Image.register_extension("RAISES", ".raises")
    try:
        yield
    finally:
        del Image.OPEN["RAISES"], Image.EXTENSION[".raises"]
        Image.ID.remove("RAISES")
