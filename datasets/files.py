"""Files that are whole or not there, and locks that end with the process that holds them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import BaseFileLock, FileLock

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


def write_aside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Have `write` fill a file beside `path`, force it to disk, and rename it there. Raises OSError."""
    with _put_in_place(path) as aside, aside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def link_aside(source: Path, path: Path) -> None:
    """Give a file a second name, put in the place of `path` by rename: the content lies on the disk once.

    Raises OSError, also where the file system has one name a file.
    """
    with _put_in_place(path) as aside:
        aside.unlink(missing_ok=True)
        os.link(source, aside)


@contextmanager
def _put_in_place(path: Path) -> Iterator[Path]:
    """Give the block a place beside `path`, and rename what it leaves there to `path`; nothing is left of a failure."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_whole(path: Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all; missing folders are made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, lambda file: file.write(text.encode()))


def acquire(place: Path, patience: float) -> BaseFileLock | None:
    """Return a lock on the file `place` once it is held; None where the file system knows no locks.

    patience: seconds until filelock's Timeout is raised, if another process holds it. Raises OSError where the file
    cannot be written. The system drops the lock when its process ends in any way.
    """
    lock = FileLock(place)
    try:
        lock.acquire(timeout=patience)
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return lock


def _sync_folder(folder: Path) -> None:
    # The rename itself is only on disk once the folder is; systems that cannot open a folder sync by themselves.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
