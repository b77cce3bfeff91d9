"""The command `data feasibility`: how plausible the unseen pairs of the open world are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import load_plugins, out, print_hidden
from benchmarks.commands.options import DatasetName, Plugins

PLACES = (0, 7, 14, 21, 28, 35, 42, 49)
"""Places of the threshold grid that `feasibility` shows."""


def feasibility(
    name: DatasetName,
    source: Annotated[str, typer.Option(help="auto, shipped, clip, glove:<word vectors> or table:<scores>.")] = "auto",
    backbone: Annotated[str, typer.Option(help="CLIP whose text features 'clip' takes.")] = "tiny-icons",
    plugin: Plugins = None,
) -> None:
    """Show how plausible the unseen pairs of the open world are, and what thresholds would keep.

    Scores that are not shipped are made and kept in the cache folder.
    """
    from registry import BACKBONES, DATASETS

    load_plugins(plugin)
    DATASETS.check(name)
    BACKBONES.check(backbone)

    from benchmarks.evaluation.feasibility import check_source, summarise
    from benchmarks.running.choices import Choices, How
    from benchmarks.running.workbench import Workbench

    check_source(source)
    workbench = Workbench(Choices(how=How(device="cpu", allow_missing=None)))
    dataset = workbench.dataset(name)
    table = workbench.feasibility(name, source, backbone)
    print_hidden(name)
    summary = summarise(dataset, table.scores, PLACES)
    states, objects = table.scores.shape
    made = {"shipped": "comes with the suite", "glove": "from word vectors", "clip": f"text features of {backbone}"}
    made["table"] = "scores from a file"
    out.print(f"Feasibility of {name}: source {table.source}, {made[table.source]}", soft_wrap=True)
    out.print(f"{states} states x {objects} objects, {int((~dataset.seen).sum()):,} unseen pairs")
    out.print("smallest, quartiles, largest: " + "  ".join(f"{value:.4f}" for value in summary.quantiles))
    out.print(
        "AUROC against the pairs of no list (0.5 is chance): "
        + ", ".join(f"unseen {phase} pairs {value:.3f}" for phase, value in summary.auroc.items()),
        soft_wrap=True,
    )
    for word, pairs in (("most", summary.highest), ("least", summary.lowest)):
        named = [f"{state} {obj} {score:.3f}" for state, obj, score in pairs]
        out.print(f"{word} feasible: {', '.join(named)}", soft_wrap=True)
    shown = RichTable(title="What a threshold keeps", title_justify="left")
    for head in ("grid point", "threshold", "unseen pairs", "of val", "of test"):
        shown.add_column(head, justify="right")
    whole = summary.kept[0]
    for row in summary.kept:
        counts = ((row.unseen, whole.unseen), (row.val, whole.val), (row.test, whole.test))
        shown.add_row(str(row.place), f"{row.threshold:.6f}", *(f"{kept:,} of {total:,}" for kept, total in counts))
    out.print(shown)
    if summary.not_positive:
        out.print(f"{summary.not_positive} of the grid's thresholds are 0 or less.")
    out.print(f"Scores: {table.path} (SHA-256 {table.digest[:16]})", soft_wrap=True)
