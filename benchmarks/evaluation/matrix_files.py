"""Score matrices in files: .npy, .npz and safetensors, read once from front to end in blocks of bounded size.

Blocks are read and not mapped: mapped pages count as memory of the process, and a file that is cut while it is read
would end it. A file is read in its own order, by rows or by columns.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np

from errors import UserError

BLOCK_BYTES = 1 << 23
"""About how much a block takes in single precision: it stays in a processor's cache while it is looked at."""

NAME = "scores"
"""The array that is taken from a file with several."""

SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
FLOATS = ("float16", "float32", "float64")
SAVE = "Save it with numpy.save('scores.npy', scores.float().cpu().numpy())"


class Readable(Protocol):
    """What bytes are read from, front to end."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a part of a buffer and return how much; 0 at the end."""


@dataclass(frozen=True)
class Header:
    """What a file says of its matrix. by_columns: whether it lies column by column. start: where it begins, bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    by_columns: bool = False
    start: int = 0


@dataclass(frozen=True)
class MatrixFile:
    """A score matrix [rows, columns] of floats in a file. member: the entry of an npz that holds it, "" in others."""

    path: Path
    header: Header
    member: str = ""

    @property
    def rows(self) -> int:
        """How many images there are."""
        return self.header.shape[0]

    @property
    def columns(self) -> int:
        """How many pairs there are."""
        return self.header.shape[1]

    @property
    def dtype(self) -> str:
        """Name of the type that the scores are kept in."""
        return self.header.dtype.newbyteorder("=").name

    def blocks(self, block_bytes: int = BLOCK_BYTES, kept: int = 1) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (first row, first column, float32 [r, c]) once over the matrix.

        The last `kept` blocks that were yielded stay as they are, older ones are overwritten. Rows are whole where the
        file lies by rows, else columns are. The next block is read while one is looked at. A file that ends early is a
        `UserError`.
        """
        length, count = (self.columns, self.rows) if not self.header.by_columns else (self.rows, self.columns)
        lines = max(1, min(count, block_bytes // max(1, 4 * length)))
        parts = [(first, min(lines, count - first)) for first in range(0, count, lines)]
        buffers = [np.empty((lines, length), self.header.dtype) for _ in parts[: kept + 1]]
        as_it_is = buffers[0].dtype == np.float32
        singles = [] if as_it_is else [np.empty((lines, length), np.float32) for _ in parts[:kept]]
        with self._opened() as file, ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._fill, file, buffers[0][: parts[0][1]])
            for number, (first, here) in enumerate(parts):
                coming.result()
                block = buffers[number % len(buffers)][:here]
                if number + 1 < len(parts):
                    following = buffers[(number + 1) % len(buffers)][: parts[number + 1][1]]
                    coming = reader.submit(self._fill, file, following)
                if singles:
                    single = singles[number % len(singles)][:here]
                    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
                        np.copyto(single, block, casting="same_kind")
                    block = single
                yield (0, first, block.T) if self.header.by_columns else (first, 0, block)

    def _fill(self, file: Readable, into: np.ndarray) -> None:
        left = memoryview(into.data).cast("B")
        while len(left):
            with _reading(self.path):
                got = file.readinto(left)
            if not got:
                raise _unreadable(self.path, f"it ends before its {self.rows:,} x {self.columns:,} scores do")
            left = left[got:]

    @contextmanager
    def _opened(self) -> Iterator[Readable]:
        with ExitStack() as stack:
            with _reading(self.path):
                if self.member:
                    stream = stack.enter_context(stack.enter_context(zipfile.ZipFile(self.path)).open(self.member))
                    _npy_header(stream, self.path)
                else:
                    stream = stack.enter_context(self.path.open("rb", buffering=0))
                    stream.seek(self.header.start)
            yield cast(Readable, stream)

    def digest(self) -> str:
        """Return the hexadecimal SHA-256 of the file."""
        return file_digest(self.path)


def file_digest(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_matrix(path: Path) -> MatrixFile:
    """Return the matrix in a file; what is none, or holds something else than floats, is a `UserError`."""
    if path.is_dir() or not path.exists():
        what = "a folder" if path.is_dir() else "not there"
        raise UserError(f"The scores {path} cannot be read.", f"It is {what}.", "Pass a file of scores.")
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise UserError(
            f"The scores {path} cannot be read.",
            f"A file {path.suffix or 'without an ending'} is not known here; there are {', '.join(OPENERS)}.",
            f"{SAVE}.",
        )
    with _reading(path):
        found = opener(path)
    header = found.header
    if header.dtype.name not in FLOATS:
        raise _not_floats(path, header.dtype.name)
    if len(header.shape) != 2 or min(header.shape) < 1:
        raise UserError(
            f"The scores {path} are no matrix.",
            f"Their shape is {' x '.join(map(str, header.shape)) or 'that of a single number'}.",
            "Save a row for each image and a column for each pair.",
        )
    return found


def _not_floats(path: Path, dtype: str) -> UserError:
    return UserError(
        f"The scores {path} are not floats.", f"Their type is {dtype}; there are {', '.join(FLOATS)}.", f"{SAVE}."
    )


def _open_npy(path: Path) -> MatrixFile:
    with path.open("rb") as file:
        header = replace(_npy_header(file, path), start=file.tell())
    wanted, there = header.start + int(np.prod(header.shape)) * header.dtype.itemsize, path.stat().st_size
    if header.dtype.kind == "f" and there != wanted and min(header.shape, default=0) > 0:
        why = "it was cut, or is still being written" if there < wanted else "something was written behind the matrix"
        raise _unreadable(path, f"it has {there:,} bytes instead of {wanted:,}; {why}")
    return MatrixFile(path, header)


def _open_npz(path: Path) -> MatrixFile:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        member = _only(names, path) + ".npy"
        with archive.open(member) as stream:
            return MatrixFile(path, _npy_header(stream, path), member)


def _open_safetensors(path: Path) -> MatrixFile:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise ValueError("its header is damaged")
        entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    entry = entries[_only(list(entries), path)]
    shape, (start, stop) = tuple(int(number) for number in entry["shape"]), entry["data_offsets"]
    if entry["dtype"] not in SAFETENSORS:
        raise _not_floats(path, entry["dtype"])
    dtype = np.dtype(SAFETENSORS[entry["dtype"]])
    start, stop = 8 + length + int(start), 8 + length + int(stop)
    if not (stop - start == int(np.prod(shape)) * dtype.itemsize and 8 + length <= start <= stop <= size):
        raise ValueError("its header and its size do not fit together")
    return MatrixFile(path, Header(shape, dtype, start=start))


OPENERS: dict[str, Callable[[Path], MatrixFile]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
}


def _only(names: list[str], path: Path) -> str:
    if len(names) == 1:
        return names[0]
    if NAME in names:
        return NAME
    raise UserError(
        f"Which array of {path} are the scores is not clear.",
        f"It holds {', '.join(names[:8]) or 'none'}{' and more' if len(names) > 8 else ''}.",
        f"Save the matrix alone, or under the name '{NAME}'.",
    )


def _npy_header(file: IO[bytes], path: Path) -> Header:
    """Read the header of a .npy stream, which then stands at its first number."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if dtype.hasobject:
        raise UserError(
            f"The scores {path} are Python objects.",
            "They can be read with pickle alone, which would run what the file says.",
            f"{SAVE}.",
        )
    return Header(tuple(shape), np.dtype(dtype), bool(by_columns) and len(shape) == 2)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file or a file system raises into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (
        ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip  # RecursionError and NotImplementedError are RuntimeErrors
        raise _unreadable(path, f"it is damaged ({error})") from error


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"The scores {path} cannot be read.", f"The reason: {reason}.", "Save the matrix again.")
