"""Unpacking archives from strangers: zip and tar (plain or compressed), member by member, into a folder of our own.

Nothing of the archive decides where a file lands: a `Place` says which members are wanted and where they go, every name
is checked all the same, links and devices are never made, and what is written is counted against what was announced.
`zipfile` and `tarfile` do the reading; their own `extractall` has no limits.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.fetching.archives import CHUNK, Member, bomb, members, reading
from errors import UserError

Place = Callable[[PurePosixPath], Collection[PurePosixPath]]
"""From a member's name to the paths its file goes to, below the folder; none for a member that is not wanted."""


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
    with reading(archive), ExitStack() as stack:
        found = members(archive, most, stack)
        total = None
        if isinstance(found, list):  # a zip lists its members beforehand
            total = sum(member.size for member in found if place(PurePosixPath(member.name)))
            _need_space(folder, min(total, most))
        for member in found:
            count += 1
            announced += member.size
            if count > limits.members:
                raise bomb(archive, f"it has more than {limits.members:,} members")
            if announced > most:
                raise bomb(archive, f"its {packed:,} bytes would become more than {most:,}")
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
    with reading(archive), ExitStack() as stack:
        for _ in members(archive, LIMITS.most(archive.stat().st_size), stack):
            pass


def _content(archive: Path, member: Member) -> Iterator[bytes]:
    """Yield a member's bytes, exactly as many as it announced; zipfile compares its checksum at the end."""
    left = member.size
    with member.open() as source:
        while piece := source.read(min(CHUNK, left + 1)):  # one more than announced, to see that there is no more
            left -= len(piece)
            if left < 0:
                raise bomb(archive, f"its member {member.name!r} is larger than the {member.size:,} bytes announced")
            yield piece
    if left > 0:
        raise EOFError(f"the member {member.name!r} ends {left:,} bytes early")


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
