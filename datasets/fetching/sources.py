"""Where the real data sets come from: addresses, licences, which archive members are wanted and where they go.

Everything here is data and pure functions; `download.py` acts on it. The target layout is the published one
(docs/protocol.md): `images/`, `compositional-split-natural/` and `metadata_compositional-split-natural.t7` in a folder
per data set. No publisher states sizes or checksums, so `sha256` and `size` are None until somebody pins them here;
`download.py` records them at the first download and compares from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from datasets.base import PHASES
from datasets.fetching.unpack import Place
from datasets.metadata import NONE, SPLIT, STEM, read_metadata
from errors import UserError

METADATA = f"{STEM}.t7"
LAYOUT = ("images", SPLIT, METADATA)
PAIR_LISTS = tuple(f"{SPLIT}/{phase}_pairs.txt" for phase in PHASES)


@dataclass(frozen=True)
class Archive:
    """A file to download.

    file: its name in the downloads folder
    urls: mirrors, tried in this order
    place: builds, from the folder being filled, what decides where members go
    by_hand: a sentence for the person who has to get it
    parts: a shell pattern of further names, for what a site hands out in several pieces
    """

    file: str
    urls: tuple[str, ...]
    place: Callable[[Path], Place]
    by_hand: str
    parts: str = ""
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Source:
    """A data set (or another download).

    archives: in the order in which they are unpacked
    expects: what must be there in the end, below `folder`, which itself lies in the data root
    """

    name: str
    title: str
    folder: str
    licence: str
    archives: tuple[Archive, ...]
    expects: tuple[str, ...] = (*LAYOUT, *PAIR_LISTS)


def layout_members(folder: Path) -> Place:
    """Take the published layout out of an archive that has it at the top or up to two folders down."""

    def place(member: PurePosixPath) -> Collection[PurePosixPath]:
        if member.parts[:1] == ("__MACOSX",):
            return ()
        for depth, part in enumerate(member.parts[:3]):
            if part in LAYOUT:
                return (PurePosixPath(*member.parts[depth:]),)
        return ()

    return place


def split_members(top: str) -> Callable[[Path], Place]:
    """Take one data set's pair lists and metadata out of the archive that has those of MIT-States and UT-Zappos."""

    def build(folder: Path) -> Place:
        def place(member: PurePosixPath) -> Collection[PurePosixPath]:
            if top not in member.parts:
                return ()
            rest = member.parts[member.parts.index(top) + 1 :]
            return (PurePosixPath(*rest),) if rest and rest[0] in (SPLIT, METADATA) else ()

        return place

    return build


def mit_states_images(folder: Path) -> Place:
    """Take `release_dataset/images/*`; the metadata writes "_" for the space in a folder's name."""

    def place(member: PurePosixPath) -> Collection[PurePosixPath]:
        if len(member.parts) < 4 or member.parts[:2] != ("release_dataset", "images"):
            return ()
        pair, *rest = member.parts[2:]
        return (PurePosixPath("images", pair.replace(" ", "_"), *rest),)

    return place


def ut_zappos_images(folder: Path) -> Place:
    """Bring the images into folders by pair, as the metadata says: `_image` in the archive -> images/<attr>_<obj>/.

    The metadata must be in `folder` already. Images of unknown state (NA), which no split uses, are left out.
    """
    wanted: dict[str, dict[PurePosixPath, None]] = {}
    for number, entry in enumerate(read_metadata(folder / METADATA), start=1):
        if not {"_image", "attr", "obj"} <= entry.keys():
            raise UserError(
                f"Entry {number} of {METADATA} does not say where its image lies in the archive.",
                "The metadata of UT-Zappos has the fields _image, attr and obj.",
                "Get the archive of the splits once more.",
            )
        if entry["attr"] != NONE:
            target = PurePosixPath("images", f"{entry['attr']}_{entry['obj']}", PurePosixPath(entry["_image"]).name)
            wanted.setdefault(entry["_image"], {})[target] = None

    def place(member: PurePosixPath) -> Collection[PurePosixPath]:
        known_top = member.parts[:1] in (("ut-zap50k-images",), ("_images",))
        name = "/".join(member.parts[1:] if known_top else member.parts)
        return list(wanted.get(name) or wanted.get(_as_utf8(name)) or ())

    return place


def one_file(name: str) -> Callable[[Path], Place]:
    """Take a single file, wherever it lies in the archive."""

    def build(folder: Path) -> Place:
        return lambda member: (PurePosixPath(name),) if member.name == name else ()

    return build


def _as_utf8(name: str) -> str:
    """Undo the reading of a zip's names as code page 437, which is what an archive without the UTF-8 mark gets."""
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return name


_SPLITS = Archive(
    file="compositional_split_natural.tar.gz",
    urls=(
        "https://senthilpurushwalkam.com/publications/compositional/compositional_split_natural.tar.gz",
        "https://www.senthilpurushwalkam.com/publication/compositional/compositional_split_natural.tar.gz",
        "https://www.cs.cmu.edu/~spurushw/publication/compositional/compositional_split_natural.tar.gz",
    ),
    place=split_members("mit-states"),
    by_hand="It is linked from the page of 'Task-driven modular networks for zero-shot compositional learning' "
    "(Purushwalkam et al., ICCV 2019) at https://senthilpurushwalkam.com.",
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="mit_states",
            title="MIT-States",
            folder="mit-states",
            licence="none declared by its authors; it is used for research (Isola et al., CVPR 2015)",
            archives=(
                _SPLITS,
                Archive(
                    file="release_dataset.zip",
                    urls=("http://wednesday.csail.mit.edu/joseph_result/state_and_transformation/release_dataset.zip",),
                    place=mit_states_images,
                    by_hand="It is linked from the page of 'Discovering states and transformations in image "
                    "collections' at http://web.mit.edu/phillipi/Public/states_and_transformations/index.html.",
                ),
            ),
        ),
        Source(
            name="ut_zappos",
            title="UT-Zappos50K",
            folder="ut-zappos",
            licence="academic, non-commercial use only (Yu and Grauman, CVPR 2014)",
            archives=(
                replace(_SPLITS, place=split_members("ut-zap50k")),
                Archive(
                    file="ut-zap50k-images.zip",
                    urls=(
                        "http://vision.cs.utexas.edu/projects/finegrained/utzap50k/ut-zap50k-images.zip",
                        "https://vision.cs.utexas.edu/projects/finegrained/utzap50k/ut-zap50k-images.zip",
                    ),
                    place=ut_zappos_images,
                    by_hand="It is linked from https://vision.cs.utexas.edu/projects/finegrained/utzap50k/; not the "
                    "'square' variant.",
                ),
            ),
        ),
        Source(
            name="cgqa",
            title="C-GQA (updated release)",
            folder="cgqa",
            licence="CC BY 4.0 (Naeem et al., CVPR 2021)",
            archives=(
                Archive(
                    file="cgqa.zip",
                    urls=(
                        "https://huggingface.co/datasets/nihalnayak/cgqa/resolve/main/cgqa.zip",
                        "https://s3.mlcloud.uni-tuebingen.de/czsl/cgqa-updated.zip",
                    ),
                    place=layout_members,
                    by_hand="It is at https://huggingface.co/datasets/nihalnayak/cgqa; the first release of C-GQA is "
                    "another data set.",
                ),
            ),
        ),
        Source(
            name="vaw_czsl",
            title="VAW-CZSL",
            folder="vaw-czsl",
            licence="that of VAW (https://github.com/adobe-research/vaw_dataset) for the labels, that of Visual Genome "
            "(CC BY 4.0) for the images (Saini et al., CVPR 2022)",
            archives=(
                Archive(
                    file="vaw-czsl.zip",
                    urls=(),
                    place=layout_members,
                    parts="vaw-czsl*.zip",
                    by_hand="Download the folder "
                    "https://drive.google.com/drive/folders/1CalwDXkkGALxz0e-aCFg9xBmf7Pu4eXL in a browser, which "
                    "packs it into one or several zip files, and name them vaw-czsl.zip, or vaw-czsl-1.zip, "
                    "vaw-czsl-2.zip and so on.",
                ),
            ),
        ),
        Source(
            name="glove",
            title="GloVe 6B, 300 dimensions (word vectors for feasibility scores)",
            folder="glove",
            licence="public domain (PDDL 1.0; Pennington et al., EMNLP 2014)",
            archives=(
                Archive(
                    file="glove.6B.zip",
                    urls=("https://nlp.stanford.edu/data/glove.6B.zip",),
                    place=one_file("glove.6B.300d.txt"),
                    by_hand="It is linked from https://nlp.stanford.edu/projects/glove/.",
                ),
            ),
            expects=("glove.6B.300d.txt",),
        ),
    )
}
"""By the name that `data fetch` takes."""
