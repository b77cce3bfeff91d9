"""Fetching a data set: archives from the first mirror that gives them, unpacked aside, renamed into place when whole.

    plan = plan_fetch("mit_states")            # what is there, what would be downloaded, what a person has to get
    fetch(plan, progress)

`downloads/` in the data root keeps the archives and `checksums.json`, in which each one's size and SHA-256 are recorded
once it has been unpacked; the same archive must have them ever after. An archive put there by hand is used without any
network. The data set's `manifest.json` is written last: where it is, the folder is whole. Nothing here prints.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pooch
from filelock import Timeout

from datasets.fetching import checksums
from datasets.fetching.checksums import Origin
from datasets.fetching.plan import MANIFEST, FetchPlan, Item
from datasets.fetching.sources import METADATA, Archive, Source
from datasets.fetching.transfer import ResumingDownloader, TransferError
from datasets.fetching.unpack import check_archive, unpack
from datasets.files import acquire, write_whole
from datasets.metadata import entries, read_metadata
from errors import UserError

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, the bytes done and the bytes in all (None: not known)."""


def fetch(
    plan: FetchPlan,
    progress: Progress = lambda what, done, total: None,
    *,
    repin: bool = False,
    pause: float = 1.0,
) -> dict[str, Any]:
    """Carry out a plan and return the data set's manifest; where it was whole before, only read it.

    repin: take an archive whose checksum is not the recorded one for good, and record the new one
    pause: seconds before an interrupted download goes on

    Raises UserError; whatever came of a download by then is kept and used by the next call, and no half-unpacked folder
    is left.
    """
    if plan.state == "whole":
        return checksums.read(plan.folder / MANIFEST)
    if plan.state == "by hand":
        return {}
    work = plan.root / f".{plan.source.folder}.unpacking"
    with _disk(plan), _alone(plan):
        if (plan.folder / MANIFEST).is_file():  # another process was first
            return checksums.read(plan.folder / MANIFEST)
        origins = [origin for item in plan.items for origin in _obtain(item, plan, progress, repin, pause)]
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            files = _unpack_all(plan, origins, work, progress)
            manifest = _manifest(plan.source, origins, files, work)
            write_whole(work / MANIFEST, checksums.json_text(manifest))
            if plan.folder.is_dir():
                plan.folder.rmdir()  # an empty one: anything else was refused by the plan
            work.rename(plan.folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        checksums.write(plan.downloads, {origin.name: origin.record() for _, origin in origins})
    return manifest


def _obtain(item: Item, plan: FetchPlan, progress: Progress, repin: bool, pause: float) -> list[tuple[Archive, Origin]]:
    """Return the files of an archive with their origins, downloaded if need be and compared with what is known."""
    if not item.files:
        return [(item.archive, _download(item, plan, progress, repin, pause))]
    known = checksums.read(plan.downloads / checksums.CHECKSUMS)
    found = []
    for path in item.files:
        name = path.name if item.archive.parts else item.archive.file
        record = known.get(name, {})
        progress(f"check {path.name}", 0, None)
        size, sha256 = path.stat().st_size, pooch.file_hash(str(path))
        pinned = item.archive.sha256 or record.get("sha256")
        if pinned is not None and pinned != sha256 and not repin:
            since = "in the suite" if item.archive.sha256 else f"recorded on {record['date']}"
            raise UserError(
                f"The archive {path} is not the one that is known: its SHA-256 is {sha256}.",
                f"The one {since} is {pinned}.",
                "Delete it to have it downloaded again, or pass --repin if it is meant to be another one.",
            )
        ours = record if record.get("sha256", sha256) == sha256 else {}
        source, date = ours.get("source", "by hand"), ours.get("date", checksums.today())
        found.append((item.archive, Origin(name, path, source, size, sha256, date)))
    return found


def _download(item: Item, plan: FetchPlan, progress: Progress, repin: bool, pause: float) -> Origin:
    """Download an archive from the first address that gives a whole one with the right checksum."""
    archive, downloads = item.archive, plan.downloads
    sha256 = size = None
    if not repin:
        record = checksums.read(downloads / checksums.CHECKSUMS).get(archive.file, {})
        sha256, size = archive.sha256 or record.get("sha256"), archive.size or record.get("bytes")
    tried = []
    for url in item.urls:
        part = downloads / f".{archive.file}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
        downloader = ResumingDownloader(
            part, lambda done, total: progress(f"download {archive.file}", done, total), size, pause
        )
        try:
            with _quiet():
                path = Path(pooch.retrieve(url, sha256, archive.file, downloads, downloader=downloader))
            try:
                check_archive(path)
            except UserError:
                path.unlink()
                raise
        except TransferError as error:
            tried.append(f"{url}: {error}")
        except UserError as error:
            tried.append(f"{url}: {error.asked.rstrip('.')}")
        except ValueError as error:  # pooch's word on a wrong checksum
            tried.append(f"{url}: {str(error).partition('. ')[0].replace(f' ({archive.file})', '')}")
        else:
            for rest in downloads.glob(f".{archive.file}.*.part*"):
                rest.unlink()
            # Without the checksum yet: an archive that cannot be unpacked must not become the one to compare with.
            checksums.write(downloads, {archive.file: {"source": url, "date": checksums.today()}})
            return Origin(archive.file, path, url, path.stat().st_size, pooch.file_hash(str(path)), checksums.today())
    raise UserError(
        f"The archive {archive.file} of {plan.source.title} could not be downloaded.",
        f"Tried were: {'; '.join(tried)}.",
        f"Try again later, or get it by hand and put it at {downloads / archive.file}. {archive.by_hand}",
    )


def _unpack_all(
    plan: FetchPlan, origins: Sequence[tuple[Archive, Origin]], work: Path, progress: Progress
) -> dict[str, int]:
    """Unpack every archive into `work` and return the files with their sizes; what must be there must be there."""
    files: dict[str, int] = {}
    for archive, origin in origins:
        what = f"unpack {origin.path.name}"
        progress(what, 0, None)
        files |= unpack(origin.path, work, archive.place(work), partial(progress, what))
    lacking = [path for path in plan.source.expects if not (work / path).exists()]
    if lacking:
        names = ", ".join(str(origin.path) for _, origin in origins)
        raise UserError(
            f"What was fetched of {plan.source.title} is not complete: it lacks {', '.join(lacking)}.",
            f"It came from {names}.",
            "Look into these archives: one of them is another release, or something else under the same name.",
        )
    return files


def _manifest(
    source: Source, origins: Sequence[tuple[Archive, Origin]], files: dict[str, int], work: Path
) -> dict[str, Any]:
    missing: list[str] = []
    if METADATA in source.expects:
        used, _ = entries(read_metadata(work / METADATA), work / METADATA)
        missing = sorted({f"images/{entry.image}" for entry in used} - files.keys())
    return {
        "name": source.name,
        "title": source.title,
        "licence": source.licence,
        "date": checksums.today(),
        "archives": {origin.name: origin.record() for _, origin in origins},
        "bytes": sum(files.values()),
        "missing": missing,
        "files": dict(sorted(files.items())),
    }


@contextmanager
def _alone(plan: FetchPlan) -> Iterator[None]:
    """Keep a second process out of the downloads folder; the system drops the lock when a process ends in any way."""
    plan.downloads.mkdir(parents=True, exist_ok=True)
    try:
        lock = acquire(plan.downloads / ".lock", 0)
    except Timeout:
        raise UserError(
            f"{plan.source.title} cannot be fetched now.",
            f"Another process is fetching into {plan.downloads}.",
            "Run the command again when it has ended.",
        ) from None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def _disk(plan: FetchPlan) -> Iterator[None]:
    """Turn an error of the file system into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{plan.source.title} cannot be written below {plan.root} ({error.strerror or error}).",
            "What was downloaded so far is kept, and nothing is left half unpacked.",
            "Free some space or choose another folder with CZSL_DATA, and run the command again.",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pooch from announcing on standard error what is shown as progress."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
