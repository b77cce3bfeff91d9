"""Unpacking archives from strangers: zip and tar (plain or compressed), member by member, into a folder of our own.

Nothing of the archive decides where a file lands: a `Place` says which members are wanted and where they go, every name
is checked all the same, links and devices are never made, and what is written is counted against what was announced.
`zipfile` and `tarfile` do the reading; their own `extractall` has no limits.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from errors import UserError

Place = Callable[[PurePosixPath], Collection[PurePosixPath]]
"""From a member's name to the paths its file goes to, below the folder; none for a member that is not wanted."""

CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Limits:
    """What an archive may become. ratio: unpacked to packed bytes, once more than `free` bytes come out of it."""

    total: int = 1 << 37  # bytes, 128 GiB
    ratio: float = 100.0
    free: int = 1 << 26  # bytes, 64 MiB
    members: int = 1_000_000

    def most(self, packed: int) -> int:
        """Return how many bytes an archive of `packed` bytes may hold."""
        return min(self.total, max(self.free, int(self.ratio * packed)))


LIMITS = Limits()


@dataclass(frozen=True)
class _Member:
    """A file of the archive. open: gives its content, once. special: a link, device or other thing that is no file."""

    name: str
    size: int
    special: str
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    folder: Path,
    place: Place,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    limits: Limits = LIMITS,
) -> dict[str, int]:
    """Write the wanted members of `archive` below `folder`, an existing one; return their paths and sizes in bytes.

    progress: called with the bytes written and the bytes in all, None where the archive does not say. Raises UserError
    for an archive that is damaged, truncated, encrypted, harmful or of another kind, and OSError where the disk does;
    what was written till then stays for the caller to remove.
    """
    packed = archive.stat().st_size
    most = limits.most(packed)
    written: dict[str, int] = {}
    announced = done = count = 0
    with _reading(archive), ExitStack() as stack:
        members = _members(archive, most, stack)
        total = None
        if isinstance(members, list):  # a zip lists its members beforehand
            total = sum(member.size for member in members if place(PurePosixPath(member.name)))
            _need_space(folder, min(total, most))
        for member in members:
            count += 1
            announced += member.size
            if count > limits.members:
                raise _bomb(archive, f"it has more than {limits.members:,} members")
            if announced > most:
                raise _bomb(archive, f"its {packed:,} bytes would become more than {most:,}")
            name = _safe(archive, member.name)
            targets = [_safe(archive, str(target)) for target in place(name)]
            if targets and member.special:
                raise UserError(
                    f"The archive {archive.name} is refused: its member {member.name!r} is {member.special}.",
                    "Only plain files are unpacked, since a link can lead out of the folder.",
                    f"Get the archive from another place and put it at {archive}.",
                )
            for target in targets:
                path = folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists():
                    raise UserError(
                        f"The archive {archive.name} is refused: two of its members become {target.as_posix()!r}.",
                        f"The second is {member.name!r}.",
                        f"Get the archive from another place and put it at {archive}.",
                    )
                if target is targets[0]:
                    with path.open("xb") as file:
                        for piece in _content(archive, member):
                            file.write(piece)
                            done += len(piece)
                            progress(done, total)
                else:
                    shutil.copyfile(folder / targets[0], path)
                written[target.as_posix()] = member.size
    return written


def check_archive(archive: Path) -> None:
    """Raise a UserError where a file is no archive or a truncated one, as far as that shows without unpacking it.

    A zip's list of members lies at its end, so a truncated one has none. A compressed tar must be read whole.
    """
    with _reading(archive), ExitStack() as stack:
        for _ in _members(archive, LIMITS.most(archive.stat().st_size), stack):
            pass


def _content(archive: Path, member: _Member) -> Iterator[bytes]:
    """Yield a member's bytes, exactly as many as it announced; zipfile compares its checksum at the end."""
    left = member.size
    with member.open() as source:
        while piece := source.read(min(CHUNK, left + 1)):  # one more than announced, to see that there is no more
            left -= len(piece)
            if left < 0:
                raise _bomb(archive, f"its member {member.name!r} is larger than the {member.size:,} bytes announced")
            yield piece
    if left > 0:
        raise EOFError(f"the member {member.name!r} ends {left:,} bytes early")


def _members(archive: Path, most: int, stack: ExitStack) -> Iterable[_Member]:
    """Return the files of an archive: a list for a zip, one after the other for a tar."""
    with archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        package = stack.enter_context(zipfile.ZipFile(archive))
        return [_zip_member(package, info) for info in package.infolist() if not info.is_dir()]
    source = _Bounded(archive, stack.enter_context(_decompressed(archive, start)), most)
    return _tar_members(stack.enter_context(tarfile.open(fileobj=source, mode="r:")), source)  # type: ignore[arg-type]


def _tar_members(tar: tarfile.TarFile, source: IO[bytes]) -> Iterator[_Member]:
    for info in tar:
        if not info.isdir():
            yield _tar_member(tar, info)
    while source.read(CHUNK):  # to the end, where gzip has its checksum: tarfile takes a spoilt header for the end
        pass


def _zip_member(package: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    special = "a link" if kind == stat.S_IFLNK else "no plain file" if kind not in (0, stat.S_IFREG) else ""
    return _Member(info.filename, info.file_size, special, lambda: package.open(info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    special = (
        "" if info.isreg() and not info.issparse() else "a link" if info.islnk() or info.issym() else "no plain file"
    )
    return _Member(info.name, info.size, special, lambda: tar.extractfile(info))  # type: ignore[arg-type, return-value]


def _decompressed(archive: Path, start: bytes) -> IO[bytes]:
    """Return the bytes of a tar file, decompressed if need be; its first bytes tell how, whatever its name says."""
    for magic, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)):
        if start.startswith(magic):
            return opened(archive, "rb")  # type: ignore[operator, return-value]
    return archive.open("rb")


class _Bounded(io.RawIOBase):
    """A reader that ends in an error once more comes out of a compressed file than an archive may hold.

    tarfile skips members and reads extended headers without a limit of its own; both pass through here.
    """

    HEADER = 1 << 24  # bytes tarfile may ask for at once: names and extended headers are small

    def __init__(self, archive: Path, source: IO[bytes], most: int) -> None:
        self._archive, self._source, self._most = archive, source, most + (1 << 20)  # padding and headers

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.HEADER:
            raise _bomb(self._archive, f"it has a header of {size:,} bytes")
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
        return _bomb(self._archive, f"its {self._archive.stat().st_size:,} bytes would become more than {self._most:,}")


def _safe(archive: Path, name: str) -> PurePosixPath:
    """Return a name as a path below the folder; one that could lie anywhere else is a UserError.

    A backslash separates folders on Windows and is part of a name elsewhere, so both readings must be harmless.
    """
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise UserError(
            f"The archive {archive.name} is refused: its member {name!r} would land outside of the folder.",
            "It is damaged or made to do harm, and nothing of it is kept.",
            f"Get the archive from another place and put it at {archive}.",
        )
    return PurePosixPath(name)


def _need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(28, f"{size:,} bytes are to be unpacked and {free:,} are free")


def _bomb(archive: Path, reason: str) -> UserError:
    return UserError(
        f"The archive {archive.name} is refused: {reason}.",
        "Archives of images grow little when they are unpacked, so this one is damaged or made to fill the disk.",
        f"Get the archive from another place and put it at {archive}.",
    )


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
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
