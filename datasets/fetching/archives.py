"""Reading archives from strangers: zip and tar (plain or compressed), member by member, never more than was announced.

`zipfile` and `tarfile` do the reading; links and devices are told apart, and what comes out is bounded.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from errors import UserError

CHUNK = 1 << 18  # bytes
COMPRESSED: dict[bytes, Callable[[Path], io.BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""What reads a file that begins so."""


@dataclass(frozen=True)
class Member:
    """A file of the archive.

    open: gives its content, once
    special: a link, device or other thing that is no file
    """

    name: str
    size: int
    special: str
    open: Callable[[], IO[bytes]]


def members(archive: Path, most: int, stack: ExitStack) -> Iterable[Member]:
    """Return the files of an archive: a list for a zip, one after the other for a tar.

    most: bytes that may come out of a compressed tar
    stack: closes what is opened
    """
    with archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        package = stack.enter_context(zipfile.ZipFile(archive))
        return [_zip_member(package, info) for info in package.infolist() if not info.is_dir()]
    source = _Bounded(archive, stack.enter_context(_decompressed(archive, start)), most)
    return _tar_members(stack.enter_context(tarfile.open(fileobj=source, mode="r:")), source)


def _tar_members(tar: tarfile.TarFile, source: io.RawIOBase) -> Iterator[Member]:
    for info in tar:
        if not info.isdir():
            yield _tar_member(tar, info)
    while source.read(CHUNK):  # to the end, where gzip has its checksum: tarfile takes a spoilt header for the end
        pass


def _zip_member(package: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    special = "a link" if kind == stat.S_IFLNK else "no plain file" if kind not in (0, stat.S_IFREG) else ""
    return Member(info.filename, info.file_size, special, lambda: package.open(info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    special = (
        "" if info.isreg() and not info.issparse() else "a link" if info.islnk() or info.issym() else "no plain file"
    )
    return Member(info.name, info.size, special, lambda: cast(IO[bytes], tar.extractfile(info)))  # None of a folder


def _decompressed(archive: Path, start: bytes) -> io.BufferedIOBase:
    """Return the bytes of a tar file, decompressed if need be; its first bytes tell how, whatever its name says."""
    for magic, opened in COMPRESSED.items():
        if start.startswith(magic):
            return opened(archive)
    return archive.open("rb")


class _Bounded(io.RawIOBase):
    """A reader that ends in an error once more comes out of a compressed file than an archive may hold.

    tarfile skips members and reads extended headers without a limit of its own; both pass through here.
    """

    HEADER = 1 << 24  # bytes tarfile may ask for at once: names and extended headers are small

    def __init__(self, archive: Path, source: io.BufferedIOBase, most: int) -> None:
        self._archive, self._source, self._most = archive, source, most + (1 << 20)  # padding and headers

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.HEADER:
            raise bomb(self._archive, f"it has a header of {size:,} bytes")
        data = self._source.read(size)
        self._check()
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset > self._most:
            raise self._too_large()
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _check(self) -> None:
        if self._source.tell() > self._most:
            raise self._too_large()

    def _too_large(self) -> UserError:
        return bomb(self._archive, f"its {self._archive.stat().st_size:,} bytes would become more than {self._most:,}")


def bomb(archive: Path, reason: str) -> UserError:
    """Return the error of an archive that would grow beyond all measure."""
    return UserError(
        f"The archive {archive.name} is refused: {reason}.",
        "Archives of images grow little when they are unpacked, so this one is damaged or made to fill the disk.",
        f"Get the archive from another place and put it at {archive}.",
    )


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn what the libraries say of a bad archive into a UserError; errors of the disk pass."""
    damage = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
    try:
        yield
    except (*damage, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"The archive {archive.name} is truncated or damaged ({reason}).",
            f"{archive} has {archive.stat().st_size:,} bytes.",
            "Delete it and run the command again, or put a whole copy there.",
        ) from error
