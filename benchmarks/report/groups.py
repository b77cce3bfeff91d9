"""Which runs may stand in one table, and in which rows.

Runs are compared only where data, backbone, world, profile, precision, threads and protocol agree. A `Group` of others
cannot be made, so no table can mix them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.runs.records import RunRecord
from benchmarks.runs.spec import NOT_KNOWN, RunSpec
from errors import UserError
from registry import METHODS

Reader = Callable[[RunRecord], float | None]
"""From a finished run to one of its numbers; None where the record has none."""


@dataclass(frozen=True)
class Row:
    """The runs of one method with one setting, one per seed."""

    label: str
    runs: Sequence[RunRecord]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.runs[0].spec.method

    @property
    def ablation(self) -> str | None:
        """The switch, None for the full model."""
        return self.runs[0].spec.ablation

    @property
    def trains(self) -> bool:
        """Whether there is anything that a seed could change."""
        return any(run.spec.has_weights for run in self.runs)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs that have a result, in order."""
        return sorted(run.spec.seed for run in self.done)

    @property
    def done(self) -> list[RunRecord]:
        """Return the runs that have a result."""
        return [run for run in self.runs if run.result is not None]

    def of_seeds(self, seeds: Iterable[int]) -> Row:
        """Return the row with the runs of some seeds."""
        return Row(self.label, [run for run in self.runs if run.spec.seed in set(seeds)])


@dataclass(frozen=True)
class Group:
    """Runs that may be compared; others are refused with a `UserError`.

    rows: the full models and the ablations, in order. copies: other records of the same runs, which are not shown.
    distinction: what tells it from another group of the same title.
    """

    runs: Sequence[RunRecord]
    rows: Sequence[Row]
    copies: Sequence[RunRecord] = ()
    distinction: str = ""

    def __post_init__(self) -> None:
        check_comparable(self.runs)

    @property
    def title(self) -> str:
        """What the runs have in common, in short, and what tells the group from another one."""
        return self.plain_title + self.distinction

    @property
    def plain_title(self) -> str:
        """What the runs have in common, in short; another group may have the same."""
        spec = self.runs[0].spec
        profile = "" if spec.profile == "clean" else f", {spec.profile} profile"
        precision = "precision not known" if spec.external is not None else spec.precision
        backbone = "backbone not known" if spec.backbone == NOT_KNOWN else spec.backbone
        return f"{spec.dataset}, {spec.world} world, {backbone}{profile}, {precision}"

    @property
    def full(self) -> list[Row]:
        """The rows of full models."""
        return [row for row in self.rows if row.ablation is None]

    def switches(self, full: Row) -> list[Row]:
        """Return the rows of a full model's ablations, which differ from it in the switched settings alone."""
        return [row for row in self.rows if row.ablation is not None and _switched(full, row)]


def conditions(run: RunRecord) -> Mapping[str, str]:
    """Return what must agree for two runs to stand in one table, by name.

    Of scores from a file weights and precision are not known, and agree with any: their backbone is what was stated.
    """
    spec, world = run.spec, run.spec.open_world
    return {
        "data set": spec.dataset,
        "data": spec.dataset_digest,
        "backbone": spec.backbone,
        "weights": stated(spec, "backbone_digest"),
        "world": spec.world,
        "profile": spec.profile,
        "precision": stated(spec, "precision"),
        "threads": stated(spec, "threads"),
        "protocol version": str(spec.protocol_version),
        "feasibility": "none" if world is None else world.feasibility,
        "feasibility table": "none" if world is None else world.feasibility_digest or "none",
        "masking": "none" if world is None else world.masking,
    }


def stated(spec: RunSpec, name: str) -> str:
    """Return a part of a specification as text, `NOT_KNOWN` where scores came from a file and it is not."""
    unknown = spec.external is not None and name in ("backbone_digest", "precision", "threads")
    return NOT_KNOWN if unknown else str(getattr(spec, name))


def agree(one: str, other: str) -> bool:
    """Return whether two conditions may stand together: equal ones, and one that is not known with any."""
    return one == other or NOT_KNOWN in (one, other)


def check_comparable(runs: Sequence[RunRecord]) -> None:
    """Refuse runs whose `conditions` differ, as a `UserError` that names two of them and the condition."""
    for run in runs[1:]:
        ours, theirs = conditions(runs[0]), conditions(run)
        for name, value in ours.items():
            if not agree(value, theirs[name]):
                raise UserError(
                    f"{runs[0].run_id} and {run.run_id} cannot stand in one table.",
                    f"Their {name} differs: {value[:20]} and {theirs[name][:20]}.",
                    "Make a table of each: bench.py report keeps them apart.",
                )


def group_of(runs: Iterable[RunRecord]) -> Group:
    """Return one group of these runs; a `UserError` with the reason if they may not be compared."""
    kept: dict[str, RunRecord] = {}
    copies = []
    for run in sorted(runs, key=lambda run: run.result is None):  # of several records of a run a finished one counts
        if run.run_id in kept:
            copies.append(run)
        else:
            kept[run.run_id] = run
    # The first run speaks for the group; of scores from a file less is known.
    own = sorted(kept.values(), key=lambda run: (run.spec.external is not None, run.run_id))
    return Group(own, _rows(own), copies)


def groups(runs: Iterable[RunRecord]) -> list[Group]:
    """Return the runs grouped by what must agree, see `conditions`; each group has a title of its own."""
    found: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: run.spec.external is not None):
        own = tuple(conditions(run).values())
        fitting = [key for key in found if all(map(agree, key, own))] if run.spec.external is not None else []
        found.setdefault(fitting[0] if len(fitting) == 1 else own, []).append(run)
    made = [group_of(members) for _, members in sorted(found.items(), key=lambda item: item[0])]
    titles = [group.title for group in made]
    return [
        group if titles.count(group.title) == 1 else replace(group, distinction=_distinction(group, made))
        for group in made
    ]


def _distinction(group: Group, every: Sequence[Group]) -> str:
    """Name the conditions in which groups of one title differ."""
    own = conditions(group.runs[0])
    others = [conditions(other.runs[0]) for other in every if other.title == group.title]
    names = [name for name, value in own.items() if any(other[name] != value for other in others)]
    return "".join(f", {name} {own[name][:8]}" for name in names)


def _switched(full: Row, row: Row) -> bool:
    """Return whether `row` is `full` but for what its ablation changes."""
    if row.method != full.method:
        return False
    declared = {ablation.name: ablation.changes for ablation in METHODS.get(row.method).info.ablations}
    ours, base = row.runs[0].spec.settings, full.runs[0].spec.settings
    return all(value == base.get(key) for key, value in ours.items() if key not in declared.get(row.ablation or "", ()))


def _rows(runs: Sequence[RunRecord]) -> list[Row]:
    """Group runs into rows; where a method was run with several settings, the label says which differ."""
    order = {name: place for place, name in enumerate(METHODS.names())}
    titles = METHODS.titles()
    by_method: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_method.setdefault(run.spec.method, []).append(run)
    rows: list[Row] = []
    for method in sorted(by_method, key=lambda name: (order.get(name, len(order)), name)):
        variants: dict[str, list[RunRecord]] = {}
        for run in by_method[method]:
            key = repr((run.spec.ablation, sorted(run.spec.settings.items()), _origin(run, by_method[method])))
            variants.setdefault(key, []).append(run)
        # How imported weights were trained is not known, so their settings tell nobody apart.
        full = [own[0].spec for own in variants.values() if own[0].spec.ablation is None]
        settings = [spec.settings for spec in full if spec.imported is None]
        names = dict.fromkeys(key for setting in settings for key in setting)
        differing = [key for key in names if len({repr(setting.get(key)) for setting in settings}) > 1]
        for group in variants.values():
            setting = group[0].spec.settings
            ablation = group[0].spec.ablation
            marks = [ablation] if ablation is not None else [f"{key}={setting.get(key)}" for key in differing]
            if group[0].spec.imported is not None:
                marks = [_origin(group[0], by_method[method])]
            label = titles.get(method, method) + (f" ({', '.join(marks)})" if marks else "")
            if taken := [row for row in rows if row.label.partition(" #")[0] == label]:
                label += f" #{len(taken) + 1}"  # a label stands for one row
            rows.append(Row(label, sorted(group, key=lambda run: run.spec.seed)))
    return rows


def _origin(run: RunRecord, of_method: Sequence[RunRecord]) -> str:
    """Return "" for a run that trained, else "imported"; with the file's digest where files share a seed."""
    if run.spec.imported is None:
        return ""
    files = {other.spec.imported for other in of_method if other.spec.seed == run.spec.seed} - {None}
    return "imported" if len(files) == 1 else f"imported {run.spec.imported[:8]}"


def test_metric(name: str) -> Reader:
    """Return a reader of a metric of the test split, "auc" or dotted as in "at_zero.state"; see `Metrics.get`."""
    return lambda run: run.finished.metrics.test.get(name)


def paired_differences(full: Row, row: Row, read: Reader) -> list[float]:
    """Return what `read` gives for a row less what it gives for the full model, for each seed that both have."""
    reference = {run.spec.seed: read(run) for run in full.done}
    found = []
    for run in row.done:
        ours, theirs = read(run), reference.get(run.spec.seed)
        if ours is not None and theirs is not None:
            found.append(ours - theirs)
    return found
