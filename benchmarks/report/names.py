"""Names of files, labels and anchors from titles: unique, the same in every report, good on every file system."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from benchmarks.report.formats import slug
from benchmarks.report.groups import Group, conditions

LONGEST = 120
"""Letters of a name; a file system takes 255 bytes, endings and the names of temporary files included."""

RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")
"""What Windows takes for devices, whatever their ending."""


def file_name(text: str, identity: str | None = None) -> str:
    """Return a text as a file name, see `slug`; where that says too little, with the start of a digest of `identity`.

    Too little says one that has lost letters (of other scripts) or was cut. identity: by default the text.

    >>> file_name("Ablations of CSP")
    'ablations-of-csp'
    >>> file_name("照片")
    '7b50017a'
    """
    made = slug(text)
    if made and text.isascii() and len(made) <= LONGEST and not RESERVED.fullmatch(made):
        return made
    return _marked(made, text if identity is None else identity)


def unique(texts: Sequence[str], identities: Sequence[str] | None = None) -> list[str]:
    """Return a file name for each text; of those that would share one the first has it, others have a digest too.

    identities: what tells the texts apart if they are equal, by default the texts.
    """
    made: list[str] = []
    for text, identity in zip(texts, texts if identities is None else identities, strict=True):
        name = file_name(text, identity)
        if name in made:
            name = _marked(slug(text), identity)
        while name in made:
            name = _marked(slug(text), f"{identity} {name}")
        made.append(name)
    return made


def folders(groups: Sequence[Group]) -> list[str]:
    """Return a folder's name for each group, which further groups do not change.

    One's own data sets have the start of their digest in it, because anybody's folder may be called "images". Of other
    groups that would share a name the one that was begun first has it.
    """
    order = sorted(range(len(groups)), key=lambda place: (_begun(groups[place]), _identity(groups[place])))
    names = unique([_plain(groups[place]) for place in order], [_identity(groups[place]) for place in order])
    return [name for _, name in sorted(zip(order, names, strict=True))]


def _plain(group: Group) -> str:
    spec = group.runs[0].spec
    if ":" not in spec.dataset:
        return group.plain_title
    # What is no ASCII says nothing here, and the digest says all.
    readable = group.plain_title.encode("ascii", "ignore").decode()
    return f"{readable if len(readable) <= LONGEST else readable[: LONGEST // 2]}, data {spec.dataset_digest[:8]}"


def _identity(group: Group) -> str:
    return repr(sorted(conditions(group.runs[0]).items()))


def _begun(group: Group) -> str:
    return min((str(start.get("time", "")) for run in group.runs for start in run.starts), default="")


def _marked(made: str, identity: str) -> str:
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{made[:LONGEST].strip('-')}-{digest}".strip("-")
