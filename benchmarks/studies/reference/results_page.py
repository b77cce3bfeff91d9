"""docs/results.md: every section from the records, those that are not there left out and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.report.budgets import epochs_text
from benchmarks.report.convergence import convergence_table
from benchmarks.report.groups import Row
from benchmarks.report.table_model import Table
from benchmarks.studies.reference import conclusions, findings, second_best, seed_worth, spending
from benchmarks.studies.reference.collection import missing
from benchmarks.studies.reference.drawings import draw
from benchmarks.studies.reference.material import Material, Results, cost
from benchmarks.studies.reference.newcomers import newcomers
from benchmarks.studies.reference.page_parts import digest, filled, one_budget, section
from benchmarks.studies.reference.slice_tests import SliceTest, slice_table, slice_tests
from registry import METHODS

SLICES = (("kind", ("local", "global")), ("clutter", ("present", "none")))


def results_page(
    material: Material, drawn: Path | None = None, before: Material | None = None
) -> tuple[str, list[Path]]:
    """Return docs/results.md and the figures that were drawn for it into a folder; None draws nothing.

    before: the two-epoch records, whose conclusions are held against these.
    """
    closed = material.results("closed", "clean")
    open_, official = (material.results_if_there(*key) for key in (("open", "clean"), ("closed", "official")))
    tested = {
        tag: slice_tests(closed.group.full, closed.baseline, tag, values, material.question) for tag, values in SLICES
    }
    ablated = material.ablations
    labels = {row.method: row.label for row in closed.group.full}
    shared = findings.shared_switches({labels[method]: table for method, table in ablated.items()})
    closed_main = closed.main()
    flops = spending.counted(material.folder, closed.group.full)
    spent = spending.spent_of(closed.group.full, flops)
    content = {
        "runs": len(material.every),
        "digest": digest(material.every),
        "budget": _budget(material, closed),
        "missing": _missing(material),
        "baseline": closed.baseline.label,
        "findings": _findings(material, closed, open_, tested["kind"], before),
        **_changed(material, before),
        **_convergence(closed, open_, spent),
        **_seeds(closed, material),
        "closed_main": section(closed_main),
        "closed_differences": section(closed.differences()),
        "open_standing": "" if open_ is None else findings.standing(open_),
        "open_main": "" if open_ is None else section(open_.main()),
        "open_differences": "" if open_ is None else section(open_.differences()),
        "profile_change": "" if official is None else _profile_change(closed, official, material),
        "official_main": "" if official is None else section(official.main()),
        "slices": [section(table) for table in closed.slices()],
        "slice_tests": [
            section(slice_table(tested[tag], closed.baseline, tag, values, material.question)) for tag, values in SLICES
        ],
        "kind_text": _slice_text(tested["kind"], closed, "local states", "global states"),
        "slice_best": conclusions.best_on_slices([(tested[tag], values) for tag, values in SLICES], closed),
        "clutter_text": _slice_text(tested["clutter"], closed, "images with clutter", "images without"),
        "ablation_caution": caution(material),
        "ablations_there": _ablations_there(material),
        "shared_switches": "" if shared is None else section(shared),
        "ablations": [
            {
                "table": section(table),
                "text": findings.switches(table),
                "figure": f"figures/ablations-{method}.svg",
            }
            for method, table in ablated.items()
        ],
        "cost": section(cost(quiet)) if (quiet := material.quiet(closed.group)) else "",
    }
    paths = [] if drawn is None else draw(drawn, closed, open_, closed_main, ablated, spent)
    return filled("results.md.j2", content), paths


def _budget(material: Material, closed: Results) -> str:
    """Say for how long methods were trained, and whether that makes a ranking."""
    runs = [run for row in closed.group.full for run in row.done]
    epochs = epochs_text(runs).removesuffix("; ")
    if material.is_short:
        return (
            f"**These are short trainings** ({epochs}): their ranking measures patience, and is not what the [budget "
            "rule](protocol.md#budget) asks for."
        )
    if not one_budget(runs):
        return f"**Methods had different ceilings or schedules** ({epochs}), so their ranking measures patience, too."
    late = conclusions.unfinished(closed)
    said = f"; {findings.names(late)} {'is' if len(late) == 1 else 'are'} **unfinished** by then" if late else ""
    return (
        f"Every trained method has the same ceiling ({epochs}) and the same schedule, and the epoch is chosen by "
        f"validation AUC ([budget rule](protocol.md#budget)){said}."
    )


def _missing(material: Material) -> str:
    """Say what of the suite is not there."""
    absent = missing(material.runs)
    titles = METHODS.titles()
    parts: dict[str, dict[str, list[int]]] = {}
    for run in absent:
        where = f"the {run.world} world" if run.profile == "clean" else f"the {run.profile} profile"
        if run.ablation is None:
            parts.setdefault(where, {}).setdefault(titles[run.method], []).append(run.seed)
    said = [
        f"in {where} {', '.join(f'{label} (seeds {names})' for label, names in _by_seeds(own).items())}"
        for where, own in parts.items()
    ]
    if ablations := sum(run.ablation is not None for run in absent):
        said.append(f"of the ablations {ablations} runs")
    return (
        f"**Missing here, of what is planned:** {'; '.join(said)}." if said else "Nothing that is planned is missing."
    )


def _by_seeds(own: Mapping[str, Sequence[int]]) -> dict[str, str]:
    return {label: ", ".join(map(str, seeds)) for label, seeds in own.items()}


def _findings(
    material: Material, closed: Results, open_: Results | None, kinds: Sequence[SliceTest], before: Material | None
) -> list[conclusions.Finding]:
    found = [conclusions.who_leads(closed, open_)]
    if before is not None and (joined := newcomers(closed, open_, before)) is not None:
        found.append(joined)
    for row in parts_asked_about(closed):
        if (table := material.ablations.get(row.method)) is not None:
            switches = closed.group.switches(row)
            said = conclusions.what_parts_bring(row, table, switches, material.question, caution(material))
            found.append(said)
    if kinds:
        text = _slice_text(kinds, closed, "local states", "global states")
        found.append(conclusions.where_it_wins(text, kinds, closed))
    return found


def parts_asked_about(closed: Results) -> list[Row]:
    """Return the full models whose parts a reader asks about: the one that leads, and the baseline."""
    leader = findings.ranking(closed.group)[0]
    return [leader] if leader.label == closed.baseline.label else [leader, closed.baseline]


def _changed(material: Material, before: Material | None) -> dict[str, str]:
    """Return the conclusions that changed, where there are two-epoch records beside these."""
    if before is None:
        return {"changed": "", "changed_count": ""}
    then, now = (conclusions.conclusions(*both) for both in ((before, material), (material, before)))
    return {
        "changed": section(conclusions.changed_table(then, now)),
        "changed_count": (
            f"{conclusions.changed_count(then, now)} Seeds then: {conclusions.trained_seeds(before)}; now: "
            f"{conclusions.trained_seeds(material)}."
        ),
    }


def _convergence(closed: Results, open_: Results | None, spent: Sequence[spending.Spent]) -> dict[str, str]:
    made = convergence_table(closed.group.full)
    other = None if open_ is None else convergence_table(open_.group.full)
    runs = [run for row in closed.group.full for run in row.done if run.spec.training.epochs > 0]
    table = spending.spending_table(spent, spending.conditions(runs)) if spent else None
    return {
        "convergence": "No method was trained." if made is None else section(_of_world(made, "closed")),
        "convergence_open": "" if other is None else section(_of_world(other, "open")),
        "spending": "" if table is None else section(table),
    }


def _of_world(table: Table, world: str) -> Table:
    return replace(table, title=f"{table.title}, {world} world")


def _seeds(closed: Results, material: Material) -> dict[str, str]:
    seeds = seed_worth.Seeds(closed.group.full, material.question)
    there = bool(seeds.rows)
    second = second_best.pairs(material, closed.group.full)
    return {
        "components": section(seed_worth.components_table(seeds)) if there else "",
        "claims": section(seed_worth.claims_table(seeds)) if len(seeds.rows) > 1 else "",
        "winners": seed_worth.winners_text(seeds),
        "second_best": section(second_best.table(second)) if second else "",
        "second_best_winner": second_best.winner(second, closed.group.full),
        "rounding": seed_worth.rounding_text(
            material.question.rounding,
            [row.method for row in closed.group.full if any(run.spec.training.epochs for run in row.done)],
        ),
    }


def _profile_change(closed: Results, official: Results, material: Material) -> str:
    return findings.profile_change(findings.profiles(closed.group, official.group, material.question))


def _slice_text(tests: Sequence[SliceTest], results: Results, first: str, second: str) -> str:
    label = results.baseline.label
    parts = [findings.on_slice(tests, part, label, f"On {where}") for part, where in enumerate((first, second))]
    return " ".join([*parts, findings.interaction(tests, label, first, second)])


def caution(material: Material) -> str:
    """Say on how many seeds ablations rest."""
    seeds = sorted({run.spec.seed for run in material.runs if run.spec.ablation is not None})
    if not seeds:
        return ""
    if len(seeds) > 1:
        return f"(Ablations ran with seeds {', '.join(map(str, seeds))}.)"
    return (
        f"Ablations rest on one seed ({', '.join(map(str, seeds))}), so their intervals are over test images alone, "
        "which answers another question: whether these two trained models differ, not whether another seed would agree."
    )


def _ablations_there(material: Material) -> str:
    absent = Counter(run.method for run in missing(material.runs) if run.ablation is not None)
    if not absent:
        return "All planned runs are there."
    titles = METHODS.titles()
    parts = [f"{count} of {titles[method]}" for method, count in absent.items()]
    return f"Of the planned runs {findings.names(parts)} are not there yet."
