"""What fetching a data set comes down to: what is there, what can be downloaded, what a person has to get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.cache import data_root
from datasets.fetching.sources import SOURCES, Archive, Source
from errors import UserError, did_you_mean

MANIFEST = "manifest.json"

State = Literal["new", "whole", "by hand"]


@dataclass(frozen=True)
class Item:
    """An archive and where it comes from: files that are there, else addresses to try, else neither."""

    archive: Archive
    files: tuple[Path, ...]
    urls: tuple[str, ...]


@dataclass(frozen=True)
class FetchPlan:
    """Where a data set goes and what it is made of.

    state: "whole" where the manifest is there, "by hand" where all that is expected is there without one.
    """

    source: Source
    root: Path
    state: State
    items: tuple[Item, ...]

    @property
    def folder(self) -> Path:
        """The data set's own folder."""
        return self.root / self.source.folder

    @property
    def downloads(self) -> Path:
        """Where archives are kept."""
        return self.root / "downloads"


def plan_fetch(
    name: str, root: Path | None = None, given: Sequence[str] = (), sources: Mapping[str, Source] = SOURCES
) -> FetchPlan:
    """Return what there is to do for a data set; an unknown name, or an archive only a person can get, is a UserError.

    given: addresses or files that take the place of the mirrors: a folder (or an address ending in "/") that holds the
    archives under their names, or one archive.
    """
    if name not in sources:
        raise UserError(
            f"There is nothing to fetch that is called '{name}'.",
            f"There are {', '.join(sources)}.",
            did_you_mean(name, sources) or "Data sets of other names are rendered, or your own.",
        )
    source, root = sources[name], data_root() if root is None else root
    folder = root / source.folder
    state: State = "new"
    if (folder / MANIFEST).is_file():
        state = "whole"
    elif folder.is_dir() and any(folder.iterdir()):
        lacking = [path for path in source.expects if not (folder / path).exists()]
        if lacking:
            raise UserError(
                f"{source.title} cannot be fetched into {folder}.",
                f"The folder holds something else already: it has no {MANIFEST} and lacks {', '.join(lacking)}.",
                "Move it away, or complete it by hand.",
            )
        state = "by hand"
    chosen = _chosen(source, given)
    items = tuple(_item(archive, root / "downloads", chosen.get(archive.file)) for archive in source.archives)
    plan = FetchPlan(source, root, state, items)
    for item in items:
        if state == "new" and not item.files and not item.urls:
            raise UserError(
                f"The archive {item.archive.file} of {source.title} cannot be downloaded by a program.",
                item.archive.by_hand,
                f"Put it into {plan.downloads} and run the command again.",
            )
    return plan


def _chosen(source: Source, given: Sequence[str]) -> dict[str, str]:
    """Return the address or file given for each archive, by the archive's name."""
    names = [archive.file for archive in source.archives]
    chosen: dict[str, str] = {}
    for text in given:
        path, is_url = Path(text).expanduser(), "://" in text
        own = text.partition("?")[0].rpartition("/")[2] if is_url else path.name
        if is_url and not own:
            chosen |= {name: text + name for name in names}
        elif not is_url and path.is_dir():
            chosen |= {name: str(path / name) for name in names if (path / name).is_file()}
        elif not is_url and not path.is_file():
            raise UserError(
                f"'{text}' cannot be the source of {source.title}.",
                "It is no address, and there is no such file or folder.",
                "Pass --from with an http address, a file, or a folder that holds the archives.",
            )
        elif own in names or len(names) == 1:
            chosen[own if own in names else names[0]] = text
        else:
            raise UserError(
                f"It is not clear which archive of {source.title} '{text}' is.",
                f"The archives are {', '.join(names)}.",
                "Give the file one of these names.",
            )
    return chosen


def _item(archive: Archive, downloads: Path, chosen: str | None) -> Item:
    if chosen is not None and "://" not in chosen:
        return Item(archive, (Path(chosen).expanduser(),), ())
    pattern = archive.parts or archive.file
    there = tuple(path for path in sorted(downloads.glob(pattern)) if path.is_file()) if downloads.is_dir() else ()
    return Item(archive, there, archive.urls if chosen is None else (chosen,))
