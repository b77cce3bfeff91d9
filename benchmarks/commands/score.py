"""The command `score`: the scores of any network, from a file, become a record."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import err, load_plugins, out, print_hidden
from benchmarks.commands.finished import NAMES
from benchmarks.commands.options import AsJson, Plugins, Profile, Results, World, spread
from benchmarks.evaluation.empty_groups import shown
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.running.external_mask import Mask
    from benchmarks.running.matrix_order import Files
    from benchmarks.runs.numbers import Metrics
    from benchmarks.runs.records import RunRecord

SPLITS = ("test", "val")


@dataclass(frozen=True)
class Removal:
    """What removes pairs of an open world, where the scores have not done so."""

    feasibility: Annotated[str, typer.Option(help="shipped, glove:<word vectors>, table:<scores>, or none.")] = "none"
    threshold: Annotated[str, typer.Option(help="Smallest feasibility kept, or search, on validation.")] = "search"
    masking: Annotated[Profile, typer.Option(help="clean: -infinity; official: the released codes' product.")] = (
        Profile.clean
    )

    @property
    def mask(self) -> Mask | None:
        """What removes pairs; None where nothing is asked to."""
        from benchmarks.running.external_mask import Mask

        masking: Literal["clean", "official"] = "official" if self.masking == Profile.official else "clean"
        return None if self.feasibility == "none" else Mask(self.feasibility, self.threshold, masking)


@dataclass(frozen=True)
class Matrices:
    """The files of scores, and the lists that say their order."""

    test: Annotated[Path, typer.Option(help="Scores, a row for each image: .npy, .npz, .safetensors.")]
    val: Annotated[Path | None, typer.Option(help="Those of the validation images, which choose the bias.")] = None
    pairs: Annotated[Path | None, typer.Option(help="File that names the columns, a pair on each line.")] = None
    images: Annotated[Path | None, typer.Option(help="File that names the rows of --test.")] = None
    val_pairs: Annotated[Path | None, typer.Option(help="File that names the columns of --val; as --pairs.")] = None
    val_images: Annotated[Path | None, typer.Option(help="File that names the rows of --val.")] = None

    @property
    def test_files(self) -> Files:
        """What --test and its lists name."""
        from benchmarks.running.matrix_order import Files

        return Files(self.test, self.pairs, self.images)

    @property
    def val_files(self) -> Files | None:
        """What --val and its lists name; None without --val."""
        from benchmarks.running.matrix_order import Files

        return None if self.val is None else Files(self.val, self.val_pairs or self.pairs, self.val_images)


@dataclass(frozen=True)
class Stated:
    """What is said of the method; nothing of it is checked."""

    name: Annotated[str, typer.Option(help="Of the method; the record is called external:NAME.")]
    seed: Annotated[int, typer.Option(min=0, help="Of its training.")] = 0
    world: Annotated[World, typer.Option(help="Candidate pairs.")] = World.closed
    backbone_name: Annotated[str, typer.Option(help="What it is built on, e.g. ViT-L-14-quickgelu/openai.")] = ""
    paper: Annotated[str, typer.Option(help="What papers call it (their numbers stand beside), or a source.")] = ""


@spread
def score(
    *,
    matrices: Matrices,
    dataset: Annotated[str, typer.Option(help="Data set; its labels are needed, its images are not.")],
    metadata: Annotated[Path | None, typer.Option(help="File of its labels, if not in its folder.")] = None,
    stated: Stated,
    removal: Removal,
    split: Annotated[str, typer.Option(help="What --test has: test, or val, to print alone.")] = "test",
    as_json: AsJson = False,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Judge the scores of a network that was trained elsewhere, and keep them as a record beside those of runs."""
    load_plugins(plugin)
    refuse(split, matrices, stated, removal)
    from benchmarks.running import external
    from datasets.labels import labelled

    data = labelled(dataset, metadata)
    print_hidden(dataset)
    warn(*data.notes)
    world: Literal["closed", "open"] = "open" if stated.world == World.open else "closed"
    record: RunRecord | None = None
    if split == "val":
        found = external.judge(data, "val", matrices.test_files, world)
        warn(*found.notices)
        numbers = external.evaluate(found.scores, found.labels)
    else:
        backbone = stated.backbone_name or None
        about = external.About(stated.name, world, stated.seed, backbone, stated.paper, removal.mask)
        files = (matrices.test_files, matrices.val_files)
        record = external.record_scores(about, data, *files, results, sys.argv, warn)
        numbers = record.finished.metrics.test
    if as_json:
        print(external.as_json(numbers))
        return
    out.print(numbers_table(numbers, f"{data.title}, {world} world, {split} split, percent, exact evaluator"))
    show_rest(numbers, record)


def refuse(split: str, matrices: Matrices, stated: Stated, removal: Removal) -> None:
    """Raise a `UserError` for a split or name that cannot be, and for options that do not go together."""
    if split not in SPLITS:
        raise UserError(f"There is no split '{split}' to score.", f"There are {' and '.join(SPLITS)}.", "Choose one.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}", stated.name):
        raise UserError(
            f"'{stated.name[:80]}' cannot be a method's name.",
            "A name has up to 60 letters, digits and . _ + - and begins with a letter or digit.",
            "Give another --name; --paper takes any text.",
        )
    if removal.feasibility == "none" and removal != Removal():
        raise UserError(
            "A threshold or masking was given.", "There is no --feasibility.", "Pass it, or leave them out."
        )
    if removal.feasibility != "none" and split == "val":
        raise UserError(
            "Validation alone is judged without a threshold.", "--feasibility was given.", "Leave it or --split out."
        )
    if split == "val" and matrices.val is not None:
        raise UserError(
            "Two files of validation scores were given.", "With --split val --test has them.", "Leave --val out."
        )
    if matrices.val is None and (matrices.val_pairs or matrices.val_images):
        raise UserError("Lists of validation's order were given.", "There is no --val.", "Pass it, or leave them out.")


def warn(*texts: str) -> None:
    """Print what a user should know beside the numbers."""
    for text in texts:
        err.print(text, style="yellow", soft_wrap=True)


def show_rest(numbers: Metrics, record: RunRecord | None) -> None:
    """Print why numbers are undefined, the published sweep's numbers, and where the record lies."""
    if numbers.at_bias is not None:
        for reason in dict.fromkeys(numbers.undefined.values()):
            out.print(f"{shown(None)}: {reason}.", soft_wrap=True)
    if record is None:
        return
    if (legacy := record.finished.legacy) is not None:
        sweep = legacy.test
        values = (("AUC", sweep.auc), ("HM", sweep.best_hm), ("S", sweep.best_seen), ("U", sweep.best_unseen))
        text = ", ".join(f"{name} {shown(100 * value, '{:.1f}')}" for name, value in values)
        out.print(f"By the published sweep of about 20 biases: {text}.", soft_wrap=True)
    out.print(f"Record: {record.path}", soft_wrap=True)


def numbers_table(numbers: Metrics, title: str) -> RichTable:
    """Return a table of the headline numbers."""
    table = RichTable(title=title, title_justify="left")
    for head in NAMES.values():
        table.add_column(head, justify="right", no_wrap=True)
    values = [numbers.get(name) if numbers.at_bias or not name.startswith("at_bias") else None for name in NAMES]
    table.add_row(*(shown(None if value is None else 100 * value, "{:.1f}") for value in values))
    return table
