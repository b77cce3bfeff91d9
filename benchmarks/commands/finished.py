"""The commands that look at finished runs, `compare` and `predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import err, load_plugins, out
from benchmarks.commands.options import AsJson, Device, Plugins, Profile, Results, World, spread
from benchmarks.evaluation.empty_groups import GAP, shown
from datasets.places import hidden_path
from errors import limited

if TYPE_CHECKING:
    from benchmarks.report.comparison import Faceoff
    from benchmarks.report.prediction import Prediction

SHOWN_FLIPS = 10
NAMES = {
    "auc": "AUC",
    "best_hm": "HM",
    "best_seen": "S",
    "best_unseen": "U",
    "gate": "G",
    "at_bias.hm": "HM@val",
    "at_zero.state": "state",
    "at_zero.object": "object",
}


@dataclass(frozen=True)
class Only:
    """Which runs are compared; None for any."""

    dataset: Annotated[str | None, typer.Option(help="Only runs on this data set.")] = None
    world: Annotated[World | None, typer.Option(help="Only runs in this world.")] = None
    profile: Annotated[Profile | None, typer.Option(help="Only runs of this profile.")] = None
    backbone: Annotated[str | None, typer.Option(help="Only runs on this backbone.")] = None


@spread
def compare(
    a: Annotated[str, typer.Argument(help="A run's id or folder, a method, or a results folder.")],
    b: Annotated[str, typer.Argument(help="What to compare it with.")],
    *,
    only: Only,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 10_000,
    flips: Annotated[Path | None, typer.Option(help="CSV file for every image that flips.")] = None,
    as_json: AsJson = False,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Compare two runs, methods or result folders on the same images: paired tests, and which images flip."""
    load_plugins(plugin)
    from benchmarks.report import comparison, named_runs
    from benchmarks.significance import Resampling

    ours, theirs = (named_runs.side(results, name, asdict(only)) for name in (a, b))
    found = comparison.face_offs(ours, theirs, Resampling(resamples))
    if as_json:
        print(json.dumps([comparison.as_json(one) for one in found], indent=1))
    else:
        for one in found:
            show_comparison(one)
    if flips is not None:
        comparison.write_flips(found, flips)
        if not as_json:
            out.print(f"Images that flip: {flips}", soft_wrap=True)


def show_comparison(found: Faceoff) -> None:
    """Print a comparison: statistics, McNemar's test and the first images that flip."""
    methods, level = found.comparison.methods, round(100 * found.comparison.level)
    out.print()
    out.print(f"A {found.a}, B {found.b}; seeds {', '.join(map(str, found.seeds))}", style="bold", soft_wrap=True)
    table = RichTable(title="Percent; A - B with its interval", title_justify="left")
    for head in ("", "A", "B", "A - B", f"{level} %", "p", "p Holm", "d_z"):
        table.add_column(head, justify="left" if not head else "right", no_wrap=True)
    decided = ""
    for name, summary in methods[found.a].statistics.items():
        difference = summary.difference
        assert difference is not None  # A is compared with B
        decided = difference.decided_by
        interval, effect = difference.interval, None if difference.seeds is None else difference.seeds.effect_size
        table.add_row(
            NAMES.get(name, name),
            shown(100 * summary.value, "{:.1f}"),
            shown(100 * methods[found.b].statistics[name].value, "{:.1f}"),
            shown(100 * difference.value, "{:+.1f}"),
            GAP if isnan(interval.low) else f"{100 * interval.low:+.1f} {100 * interval.high:+.1f}",
            shown_p(difference.p_value),
            shown_p(difference.adjusted_p),
            "" if effect is None or effect != effect else f"{effect:.2f}",
        )
    out.print(table)
    out.print(
        f"Bootstrap of {found.comparison.resamples:,} resamples over {decided}; p Holm: adjusted for the "
        f"{found.comparison.family} comparisons of this table; d_z: mean difference over seeds in units of its "
        "standard deviation.",
        soft_wrap=True,
    )
    for seed, tests in methods[found.a].mcnemar.items():
        said = ", ".join(
            f"{group} {test.first_only} / {test.second_only} (p {shown_p(test.p_value)})"
            if test.images
            else f"{group} {GAP}"
            for group, test in tests.items()
        )
        out.print(
            f"McNemar at each one's validation bias, seed {seed}; right by A only / B only: {said}.", soft_wrap=True
        )
    if found.flips:
        rows = RichTable(title=f"Images that flip most: {limited(SHOWN_FLIPS, len(found.flips))}", title_justify="left")
        for head in ("image", "truth", "A", "B"):
            rows.add_column(head, overflow="fold")
        rows.add_column("only A/B", justify="right", no_wrap=True)
        for flip in found.flips[:SHOWN_FLIPS]:
            rows.add_row(flip.image, flip.truth, flip.a, flip.b, f"{flip.by_a}/{flip.by_b} of {flip.runs}")
        out.print(rows)
    for note in found.notes:
        out.print(note, style="yellow", soft_wrap=True)


def shown_p(value: float) -> str:
    """Return a p-value as the tables of reports show it: "<0.001", never 0; a gap where nothing was tested.

    >>> shown_p(0.0002), shown_p(0.0404), shown_p(float("nan"))
    ('<0.001', '0.040', '–')
    """
    from benchmarks.report.render import p_text

    return GAP if isnan(value) else p_text(value)


@dataclass(frozen=True)
class Naming:
    """Which pairs are named, and where they are computed."""

    top: Annotated[int, typer.Option(min=1, help="Pairs per image.")] = 5
    bias: Annotated[str, typer.Option(help="Added to unseen pairs: validation, none or a number.")] = "validation"
    device: Device = "auto"


@spread
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    run: Annotated[str, typer.Option(help="A finished run: its id, the beginning of it, or its folder.")],
    *,
    naming: Naming,
    as_json: AsJson = False,
    picture: Annotated[Path | None, typer.Option(help="Draw images and pairs into this file.")] = None,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Name the pairs that a finished run sees in images."""
    load_plugins(plugin)
    from benchmarks.report import named_runs, prediction, prediction_figure
    from benchmarks.running.choices import choose_device

    record = named_runs.find_run(results, run)
    if note := hidden_path(run, "run", record.path):
        err.print(note, style="yellow", soft_wrap=True)
    files = prediction.image_files(images, lambda text: err.print(text, style="yellow", soft_wrap=True))
    found = prediction.predict(record, files, bias=naming.bias, top=naming.top, device=choose_device(naming.device))
    if note := prediction.bias_note(record, naming.bias):
        err.print(note, style="yellow", soft_wrap=True)
    if as_json:
        print(
            json.dumps([{"image": str(one.image), "pairs": [vars(g) for g in one.guesses]} for one in found], indent=1)
        )
    else:
        out.print(predictions_table(found))
        shift = prediction.bias_of(record, naming.bias)
        out.print(
            f"By {record.run_id}, {record.spec.world} world. Scores are the method's own, with {shift:+.3f} added to "
            "unseen pairs; probability: their softmax over all candidates.",
            soft_wrap=True,
        )
    if picture is not None:
        lacking = prediction_figure.draw(found, picture)
        if not as_json:
            out.print(f"Picture: {picture}", soft_wrap=True)
            if lacking:
                out.print(lacking, style="yellow", soft_wrap=True)


def predictions_table(found: Sequence[Prediction]) -> RichTable:
    """Return a table with the pairs of each image."""
    table = RichTable()
    for head in ("image", "pair"):
        table.add_column(head, overflow="fold")
    table.add_column("", no_wrap=True)
    for head in ("score", "probability"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in found:
        for place, guess in enumerate(one.guesses):
            name = str(one.image) if place == 0 else ""
            pair, seen = f"{guess.state} {guess.object}", "seen" if guess.seen else "unseen"
            table.add_row(name, pair, seen, f"{guess.score:.2f}", f"{guess.probability:.3f}")
        table.add_section()
    return table
