"""The commands that look at finished runs: `compare`, `predict` and `status`. They parse, call `benchmarks`, print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.commands.data import Plugins, load_plugins
from benchmarks.evaluation.empty_groups import GAP, shown
from datasets.places import hidden_path
from errors import UserError, counted, limited

if TYPE_CHECKING:
    from benchmarks.launchers.states import RunState
    from benchmarks.report.comparison import Faceoff
    from benchmarks.report.prediction import Prediction

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

Results = Annotated[Path, typer.Option(help="Folder of run records.")]
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


def compare(
    a: Annotated[str, typer.Argument(help="A run's id or folder, a method, or a results folder.")],
    b: Annotated[str, typer.Argument(help="What to compare it with.")],
    dataset: Annotated[str | None, typer.Option(help="Only runs on this data set.")] = None,
    world: Annotated[str | None, typer.Option(help="Only runs in this world, closed or open.")] = None,
    profile: Annotated[str | None, typer.Option(help="Only runs of this profile, clean or official.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Only runs on this backbone.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 10_000,
    flips: Annotated[Path | None, typer.Option(help="CSV file for every image that flips.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Compare two runs, methods or result folders on the same images: paired tests, and which images flip."""
    load_plugins(plugin)
    from benchmarks.report import comparison

    only = {"dataset": dataset, "world": world, "profile": profile, "backbone": backbone}
    sides = [comparison.side(results, name, only) for name in (a, b)]
    found = comparison.face_offs(*sides, resamples=resamples)
    if flips is not None:
        comparison.write_flips(found, flips)
    if as_json:
        print(json.dumps([comparison.as_json(one) for one in found], indent=1))
        return
    for one in found:
        show_comparison(one)
    if flips is not None:
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
            shown(difference.p_value, "{:.3f}"),
            shown(difference.adjusted_p, "{:.3f}"),
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
            f"{group} {test.first_only} / {test.second_only} (p {test.p_value:.3f})"
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


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    run: Annotated[str, typer.Option(help="A finished run: its id, the beginning of it, or its folder.")],
    top: Annotated[int, typer.Option(min=1, help="Pairs per image.")] = 5,
    bias: Annotated[str, typer.Option(help="Added to unseen pairs: validation, none or a number.")] = "validation",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw images and pairs into this file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Name the pairs that a finished run sees in images."""
    load_plugins(plugin)
    from benchmarks.report import prediction
    from benchmarks.running.choices import choose_device

    record = prediction.find_run(results, run)
    if note := hidden_path(run, "run", record.path):
        err.print(note, style="yellow", soft_wrap=True)
    files = prediction.image_files(images, lambda text: err.print(text, style="yellow", soft_wrap=True))
    found = prediction.predict(record, files, bias=bias, top=top, device=choose_device(device))
    if note := prediction.bias_note(record, bias):
        err.print(note, style="yellow", soft_wrap=True)
    if picture is not None:
        lacking = prediction.draw(found, picture)
    if as_json:
        print(
            json.dumps([{"image": str(one.image), "pairs": [vars(g) for g in one.guesses]} for one in found], indent=1)
        )
        return
    out.print(predictions_table(found))
    shift = prediction.bias_of(record, bias)
    out.print(
        f"By {record.run_id}, {record.spec.world} world. Scores are the method's own, with {shift:+.3f} added to "
        "unseen pairs; probability: their softmax over all candidates.",
        soft_wrap=True,
    )
    if picture is not None:
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


def status(
    suite: Annotated[str | None, typer.Option(help="A named set of runs; without it: every record there is.")] = None,
    methods: Annotated[list[str] | None, typer.Option(help="Its methods, as for run.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Its data set.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Its seeds.")] = None,
    world: Annotated[str | None, typer.Option(help="Its world, closed or open.")] = None,
    profile: Annotated[str | None, typer.Option(help="Its profile, clean or official.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Settings of its runs.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Training epochs of its runs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Show which runs of a suite are planned, running, done or failed; without a suite, of all records."""
    load_plugins(plugin)
    from benchmarks.launchers.states import states

    if suite is None and any(value is not None for value in (methods, dataset, seeds, world, profile, set_, epochs)):
        suite = "quick"
    found = states(
        results,
        None
        if suite is None
        else planned_runs(suite, methods, dataset, seeds, world, profile, tuple(set_ or ()), epochs, results),
    )
    if not found:
        raise UserError(
            f"There are no runs in '{results}'.", "It holds no records.", "Pass --suite to see what it would run."
        )
    if as_json:
        rows = [vars(one) | {"changed": None if one.changed is None else one.changed.isoformat()} for one in found]
        print(json.dumps(rows, indent=1))
        return
    show_states(found)


def planned_runs(suite, methods, dataset, seeds, world, profile, overrides, epochs, results) -> list:
    """Return the runs of a suite as `run` would plan them."""
    from benchmarks.running.choices import Choices
    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench
    from benchmarks.runs.suites import expand, load_suite

    chosen = load_suite(suite).replace(
        methods=None if methods is None else "all" if methods == ["all"] else tuple(methods),
        datasets=None if dataset is None else (dataset,),
        seeds=None if seeds is None else tuple(seeds),
        worlds=None if world is None else (world,),
        profile=profile,
    )
    return plan_runs(expand(chosen), Workbench(Choices(results=results, overrides=overrides, epochs=epochs)))


def show_states(found: Sequence[RunState]) -> None:
    """Print runs and their states, and how many there are of each."""
    table = RichTable()
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("last written (UTC)", no_wrap=True)
    colours = {
        "done": "green",
        "failed": "red",
        "dead": "red",
        "unreadable": "red",
        "running": "cyan",
        "queued": "cyan",
    }
    for one in found:
        written = "" if one.changed is None else f"{one.changed:%Y-%m-%d %H:%M:%S}"
        table.add_row(one.run_id, one.state, "{}/{}".format(*one.epochs), written, style=colours.get(one.state))
    out.print(table)
    for one in found:
        if one.note:
            out.print(f"{one.run_id} is {one.state}: {one.note}", soft_wrap=True)
    counts = Counter(one.state for one in found)
    out.print(f"{counted(len(found), 'run')}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
