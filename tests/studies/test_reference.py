"""The committed records: what goes into an archive comes out of it, and the documents are what the records say.

Rebuilt here are the main and difference tables of the closed world with all resamples, the README's part, the tables
without resampling, and the page beside the records; not the other resampled tables, which would take a minute.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_reports import record, stored
from made_results import metrics

from benchmarks.evaluation.curve import exact_curve
from benchmarks.report import archive
from benchmarks.report.columns import (
    LEFT_OUT,
    PHASES,
    from_differences,
    from_planes,
    kept,
    restored,
    to_differences,
    to_planes,
)
from benchmarks.report.evidence import Question, evidence
from benchmarks.report.figures import ablation_bars
from benchmarks.report.groups import group_of
from benchmarks.report.scored_runs import scored_runs
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.runs import files
from benchmarks.runs.records import RunFolder, find_runs
from benchmarks.runs.result import PhaseMetrics
from benchmarks.significance import Interval, Resampling, compare
from benchmarks.studies.reference import (
    collection,
    conclusions,
    deviations,
    documents,
    drawings,
    findings,
    newcomers,
    page_parts,
    records_page,
    results_page,
    second_best,
    spending,
    switches,
)
from benchmarks.studies.reference.__main__ import main as reference_main
from benchmarks.studies.reference.material import Material, Results, cost
from benchmarks.studies.reference.slice_tests import slice_table, slice_tests
from errors import UserError

ROOT = Path(__file__).parents[2]
QUICK = Question(baseline="msci", resamples=0)


@pytest.fixture(scope="module")
def committed():
    """All committed runs, expanded."""
    with Material(question=QUICK) as material:
        yield material


def awkward(seed: int) -> dict[str, np.ndarray]:
    """Arrays of a run with everything that is not usual: ties, infinities, groups without candidates, odd types."""
    draw = np.random.default_rng(seed)
    n = 50
    arrays: dict[str, np.ndarray] = {"names.states": np.array(["dry", "wet, very"])}
    for phase in PHASES:
        best = draw.normal(size=(2, n)).astype(np.float32)
        best[:, :3] = -np.inf, np.inf, -0.0
        seen = draw.random(n) < 0.5
        arrays |= {
            f"{phase}.is_seen": seen,
            f"{phase}.best_seen": best[0],
            f"{phase}.best_unseen": best[1],
            f"{phase}.correct": draw.choice([0, 0.5, 1, np.nan], n),
            f"{phase}.ties": draw.integers(0, 3, n),
            f"{phase}.seen_winner": draw.integers(-1, 70_000, n),
            f"{phase}.unseen_winner": draw.integers(-1, 200, n),
            f"{phase}.true_column": draw.integers(-1, 200, n),
            f"{phase}.true_score": np.where(draw.random(n) < 0.5, np.where(seen, *best), best[1]),
            f"{phase}.images": np.array([f"{phase}/{number}.png" for number in range(n)]),
            f"{phase}.candidate_pairs": draw.integers(0, 9, (n, 2)),
        }
        arrays |= {f"{phase}.{name}": draw.normal(size=n) for name in LEFT_OUT}
    return arrays


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_arrays_come_back_to_the_last_bit(seed):
    arrays = awkward(seed)
    there = kept(arrays)
    assert set(arrays) - set(there) == {f"{phase}.{name}" for phase in PHASES for name in LEFT_OUT}
    described = {name: to_planes(values) for name, values in to_differences(there).items()}
    described = json.loads(json.dumps({name: about for name, (about, _) in described.items()})), described
    back = from_differences({name: from_planes(described[0][name], described[1][name][1]) for name in there})
    assert set(back) == set(there) and all(same(back[name], there[name]) for name in there)
    assert np.isnan(restored(back)["test.logsumexp_seen"]).all()
    assert not any(name.startswith("val.") for name in kept(arrays, ("test",)))


def test_an_empty_array_comes_back():
    for values in (np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, "<U3"), np.array(["", ""])):
        assert same(from_planes(*to_planes(values)), values)


def finished(root: Path, seed: int = 0, **changes):
    """A finished run of the suite, as `run` would have left it."""
    given = {"dataset": "icon_states", "backbone": "tiny-icons", **changes}
    run = record("csp", seed=seed, **given)
    folder = RunFolder(root / run.spec.run_id)
    command = ["bench.py", "run", "--results", "/home/somebody/results", "--config=/etc/mine.toml"]
    folder.start(run.spec, provenance={"lr": {"origin": "preset"}}, command_line=command, environment={"device": "cpu"})
    folder.append_epoch({"epoch": 0, "val": {"auc": 0.5}})
    folder.write_arrays(awkward(seed))
    folder.finish(run.finished.model_copy(update={"metrics": PhaseMetrics(test=metrics(auc=0.1 * seed))}))
    return folder


def test_runs_are_collected_and_expanded(tmp_path):
    results, archives, there = tmp_path / "results", tmp_path / "archives", tmp_path / "there"
    first, other = finished(results), finished(results, seed=77)
    (path,) = collection.collect([results], archives)
    assert path.name == "csp-closed-clean.tar.xz" and other.status == "done"
    (folder,) = collection.expand_to(there, archives)
    assert folder.name == first.path.name  # seed 77 is not of the suite
    for name in ("result.json", "epochs.jsonl"):
        assert (folder / name).read_bytes() == (first.path / name).read_bytes()
    ours, theirs = RunFolder(folder).read(), first.read()
    assert (ours.spec, ours.provenance) == (theirs.spec, theirs.provenance)
    assert ours.finished.metrics.test.auc == theirs.finished.metrics.test.auc
    assert ours.starts[0]["command_line"] == ["bench.py", "run", "--results", "results", "--config=mine.toml"]
    before, after = first.read_arrays(), RunFolder(folder).read_arrays()
    assert set(before) == set(after)
    assert all(same(before[name], after[name]) for name in before if not name.endswith(LEFT_OUT))
    # A second seed joins the first; nothing new changes nothing.
    content = path.read_bytes()
    assert collection.collect([results], archives) == [path] and path.read_bytes() == content
    second = finished(tmp_path / "more", seed=1)
    collection.collect([tmp_path / "more"], archives)
    assert {run.run_id for run in archive.read(path)} == {first.path.name, second.path.name}
    assert len(collection.missing(find_runs(there)[0])) == len(collection.planned()) - 1


def test_a_run_with_settings_of_its_own_counts_as_the_switch_that_has_them(tmp_path):
    run = record("csp", auc=0.2, training={"selection": "val_loss"})
    for given in ("lr", "selection"):
        stored(tmp_path / given, run, 3, given)
    stored(tmp_path / "base", record("csp", auc=0.2), 4, given="nothing")
    archives = tmp_path / "archives"
    assert collection.collect([tmp_path / "lr"], archives) == [], "a rate of its own is no switch"
    made = collection.collect([tmp_path / "base", tmp_path / "selection"], archives)
    assert [path.name for path in made] == ["csp-closed-clean.tar.xz", "switch-val_loss_csp.tar.xz"]
    with Material(archives, question=Question(resamples=200)) as material:
        assert [run.run_id for run in material.runs] == [record("csp").run_id] and len(material.every) == 2
        changes = findings.switch_changes(material)
        both = {"base": material.runs, "other": [material.switched["val_loss_csp"]]}
        base, other = (exact_curve(own[0].scores).auc for own in scored_runs(both).values())
        assert set(changes) == {"val_loss_csp"} and changes["val_loss_csp"].value == pytest.approx(
            other - base, abs=1e-12
        )
        (shown,) = deviations.effects(changes, material.question).values()
        assert shown.startswith(f"{100 * (other - base):+.1f}") and shown.endswith("]")
        assert switches.SWITCHES["val_loss_csp"] not in switches.absent(material.every)
    assert len(switches.absent([])) == len(switches.SWITCHES) + len(switches.SECOND_BEST)


def test_second_best_settings_are_held_against_the_chosen_ones(tmp_path):
    aucs = {"csp": (0.3, 0.1), "dfsp": (0.2, 0.25)}
    for method, both in aucs.items():
        setting = switches.SECOND_BEST[method].settings[0].removeprefix(f"{method}.lr=")
        stored(tmp_path / f"{method}-1", record(method, auc=both[0]), 3, given="nothing")
        stored(tmp_path / f"{method}-2", record(method, auc=both[1], training={"lr": float(setting)}), 4, given="lr")
    archives = tmp_path / "archives"
    made = collection.collect(sorted(tmp_path.iterdir()), archives)
    assert {path.name for path in made} >= {"switch-second_csp.tar.xz", "switch-second_dfsp.tar.xz"}
    with Material(archives, question=Question(resamples=200)) as material:
        assert len(material.runs) == 2 and not material.switched and len(material.second_best) == 2
        rows = material.groups["closed", "clean"].full
        found = second_best.pairs(material, rows)
        for pair in found:
            base, other = (run.finished.metrics.test.auc for run in (pair.chosen, pair.second))
            assert pair.aucs == (base, other) == aucs[pair.chosen.spec.method]
        said = second_best.winner(found, rows)
        assert "CSP leads these methods with the settings that were chosen (30.0)" in said
        assert "with the second-best settings CSP no longer leads, but DFSP (25.0)" in said
        assert "CSP would be behind DFSP" in said and "Not run" not in said
        table = second_best.table(found)
        assert [line[1].text for line in table.rows] == ["lr 0.001", "lr 0.001"]
        assert "Intervals: over test images alone" in table.caption, "one run each has no part of rounding"
        assert "Not run for DFSP." in second_best.winner(found[:1], rows)


def test_what_may_not_be_committed_is_refused(tmp_path):
    folder = finished(tmp_path / "one")
    content = files.read_json(folder.path / "result.json")
    files.write_json(folder.path / "result.json", {**content, "note": "see /home/somebody/log"})
    with pytest.raises(UserError, match="names a path of this machine in note"):
        collection.collect([tmp_path / "one"], tmp_path / "archives")
    finished(tmp_path / "two")
    finished(tmp_path / "three", method_config={"dropout": 0.7})
    with pytest.raises(UserError, match="cannot both be collected"):
        collection.collect([tmp_path / "two", tmp_path / "three"], tmp_path / "archives")
    with pytest.raises(UserError, match="nothing to expand"):
        collection.expand_to(tmp_path / "there", tmp_path / "nowhere")
    broken = tmp_path / "archives" / "csp-closed-clean.tar.xz"
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"not xz")
    with pytest.raises(UserError, match="csp-closed-clean"):
        archive.read(broken)


def test_differences_in_slices_are_those_of_comparisons_of_the_slices(tmp_path):
    tags = np.array(["a", "b", "b", "a", "a"] * 8)
    for place, name in enumerate(("csp", "coop")):
        for seed in (0, 1):
            folder = stored(tmp_path, record(name, seed=seed, auc=0.2), seed + 7 * place)
            folder.write_arrays({**folder.read_arrays(), "test.tag.kind": tags})
    group = group_of(find_runs(tmp_path)[0])
    base = next(row for row in group.full if row.method == "csp")
    question = Question(resamples=400)
    (found,) = slice_tests(group.full, base, "kind", ("a", "b"), question)
    scored = scored_runs({row.method: row.done for row in group.full})
    for part, value in zip(found.parts, ("a", "b"), strict=False):
        inside = {
            name: [
                type(run)(run.scores.subset(tags == value), run.labels.subset(tags == value), 0.0, run.seed)
                for run in own
            ]
            for name, own in scored.items()
        }
        plain = (
            compare(inside, "csp", ("auc",), resampling=Resampling(400)).methods["coop"].statistics["auc"].difference
        )
        assert part.value == pytest.approx(plain.value, abs=1e-12)
        wide, ours = plain.interval.high - plain.interval.low, part.percentile.high - part.percentile.low
        assert 0.6 < ours / wide < 1.6  # other resamples of the same images
    assert found.parts[2].value == pytest.approx(found.parts[0].value - found.parts[1].value, abs=1e-12)
    assert all(adjusted >= part.p_value for adjusted, part in zip(found.adjusted, found.parts, strict=True))
    table = slice_table([found], base, "kind", ("a", "b"), question)
    assert [len(row) for row in table.rows] == [7] and "3 comparisons" in table.caption
    lacking = slice_table([replace(found, adjusted=(0.5, np.nan, np.nan))], base, "kind", ("a", "b"), question)
    assert [cell.text for cell in lacking.rows[0]][-1] == "–" and "the 1 comparison of" in lacking.caption


def ablations(*changes: tuple[str, float, str, float]) -> Table:
    """An ablation table of a full model and of switches: name, change of the AUC, mark, p."""
    lines = [
        [Cell(text=name), Cell(), Cell(), Cell(value, interval=(value - 0.01, value + 0.01), mark=mark),
         Cell(p), Cell(p), Cell(), Cell()]
        for name, value, mark, p in (("full", 0.0, "", 1.0), *changes)
    ]  # fmt: skip
    return Table("", "", [Column("")] * 8, lines)


def test_sentences_follow_the_numbers():
    table = ablations(("up", 0.03, "*", 0.0001), ("down", -0.02, "*", 0.04), ("no", 0.01, "", 0.5))
    said = findings.switches(table)
    assert "Of 3 switches `up` (+3.0 [+2.0, +4.0], p < 0.001) raises" in said
    assert "`down` (-2.0 [-3.0, -1.0], p = 0.040) lowers" in said and "`no`" not in said


def results_of(baseline: str, *runs, tested=None) -> Results:
    """Results of some runs. tested: differences from the baseline by label; None tests nothing."""
    group = group_of(runs)
    found = SimpleNamespace(
        question=QUICK,
        difference=lambda label: (tested or {}).get(label),
        mark=lambda label: QUICK.mark(tested[label].adjusted_p),
    )
    return Results(group, next(row for row in group.full if row.method == baseline), found, "closed world")


def difference_of(value: float, adjusted: float) -> SimpleNamespace:
    interval = Interval(value - 0.01, value + 0.01, 0.95, "percentile")
    return SimpleNamespace(value=value, adjusted_p=adjusted, interval=interval)


def test_a_standing_says_who_shares_a_place_and_what_was_not_tested():
    runs = [record("csp", auc=0.3), record("coop", auc=0.3 + 1e-15), record("dfsp", auc=0.2), record("msci", auc=0.2)]
    assert findings.standing(results_of("dfsp", *runs)) == (
        "CoOp and CSP have the largest AUC (30.0), all the same. DFSP is number 3 of 4 (20.0): no method was tested "
        "against it."
    )
    tested = {"CSP": difference_of(0.1, 0.01), "CoOp": difference_of(0.1, np.nan)}
    assert findings.standing(results_of("msci", *runs, tested=tested)).endswith(
        "MSCI is number 3 of 4 (20.0): after Holm's adjustment CSP is above it, none is below it, and none is not told "
        "apart from it; CoOp and DFSP were not tested."
    )
    assert findings.standing(results_of("csp", runs[0])) == "CSP (30.0) is the only method with results."


def test_findings_name_only_the_tests_that_were_made():
    assert conclusions.bootstrap_test(QUICK, 0, True) == "none."
    assert conclusions.bootstrap_test(QUICK, 1, False).endswith(
        "over test images alone, two-sided at 0.05, Holm over 1 comparison."
    )
    made = [SimpleNamespace(p_value=p, decided_by="images") for p in (0.1, np.nan)]
    assert "test images alone" in (said := conclusions.test_of(QUICK, made)) and "1 comparison." in said
    made.append(SimpleNamespace(p_value=0.2, decided_by="seeds and images"))
    assert "seeds and test images" in (said := conclusions.test_of(QUICK, made)) and "2 comparisons." in said
    shared = results_of("dfsp", record("csp", auc=0.3), record("coop", auc=0.3), record("dfsp", auc=0.2))
    found = conclusions.who_leads(shared, None)
    assert "lead over the second" not in found.text and found.test == "none."
    test = SimpleNamespace(label="CSP", parts=[SimpleNamespace(value=-0.1), SimpleNamespace(value=0.1)])
    said = conclusions.best_on_slices([([test], ("local", "global"))], shared)
    assert said == "DFSP has the largest AUC on local of these 2 slices (not held against it: CoOp)."


def test_worlds_without_a_common_method_have_no_cost_of_the_open_one():
    closed, other = results_of("csp", record("csp", auc=0.4)), results_of("coop", record("coop", auc=0.2))
    assert findings.same_order(closed, other) == "Closed: CSP. Open: CoOp."
    same = results_of("csp", record("csp", auc=0.3))
    assert findings.same_order(closed, same) == "Closed: CSP. Open: CSP; the open world costs 25.0 % of a method's AUC."


def test_nothing_is_said_of_tests_that_were_not_made():
    cells = [Cell(text="up"), Cell(), Cell(), Cell(0.03), Cell(), Cell(), Cell(), Cell()]
    table = Table("", "", [Column("")] * 8, [[Cell()] * 8, cells])
    assert findings.switches(table) == "No change of a switch was tested (`up`)."
    sure = [*cells[:3], Cell(0.02, mark="*"), Cell(0.01), Cell(0.01), Cell(), Cell()]
    both = Table("", "", [Column("")] * 8, [[Cell()] * 8, cells, [Cell(text="other"), *sure[1:]]])
    assert findings.switches(both) == (
        "Of 1 switch `other` (+2.0, p = 0.010) raises the AUC and no one lowers it; not tested: `up`."
    )
    assert findings.switches(Table("", "", [Column("")] * 8, [[Cell()] * 8])) == ""
    assert findings.on_slice([], 0, "MSCI", "On local states") == "On local states: nothing was tested."
    assert findings.interaction([], "MSCI", "local", "global") == "" and findings.profile_change({}) == ""
    nothing = SimpleNamespace(value=0.1, adjusted_p=np.nan, interval=Interval(np.nan, np.nan, 0.95, "percentile"))
    assert findings.difference_text(nothing) == "+10.0, not tested"


def test_a_switch_whose_world_has_no_other_runs_has_no_effect(tmp_path):
    stored(tmp_path / "runs", record("csp", auc=0.2), 3, given="nothing")
    collection.collect([tmp_path / "runs"], tmp_path / "archives")
    with Material(tmp_path / "archives", question=Question(resamples=200)) as material:
        (run,) = material.runs
        other = replace(run, spec=run.spec.model_copy(update={"world": "open"}))
        material.switched = {"masking": other}
        assert findings.switch_changes(material) == {}


def test_the_readme_says_how_many_seeds_and_comparisons_there_are_and_who_had_which_budget():
    budget = {"epochs": 5, "scheduler": "step"}
    runs = [record("csp", seed=seed, training=budget) for seed in (0, 1)] + [record("coop", training=budget)]
    group = group_of([*runs, record("clip_zero_shot", training={"epochs": 0})])
    base = next(row for row in group.full if row.method == "csp")
    part = documents.readme_part(Results(group, base, evidence(group.full, base, QUICK), "closed world"))
    assert "mean ± standard deviation, 1 to 2 seeds,\nwithout intervals and tests:\n" in part
    assert "The same ceiling and schedule for every trained method (5 epochs)." in part
    other = group_of([*runs, record("dfsp", training={**budget, "epochs": 9})])
    part = documents.readme_part(Results(other, base, evidence(other.full, base, QUICK), "closed world"))
    assert "Not the same ceiling and schedule for every trained method (epochs: 5 (CoOp, CSP), 9 (DFSP))." in part


def test_the_readme_names_the_last_epoch_only_where_it_is_the_best():
    def late(*curves):
        epochs = [[{"epoch": place, "val": {"auc": auc}} for place, auc in enumerate(values)] for values in curves]
        runs = [record("csp", seed=seed, training={"epochs": 6}) for seed in range(len(curves))]
        group = group_of([replace(run, epochs=own) for run, own in zip(runs, epochs, strict=True)])
        return documents.readme_part(Results(group, group.full[0], evidence(group.full, None, QUICK), "closed world"))

    rising = [[0.1, 0.2, 0.3, 0.4, 0.50 + seed / 1000, 0.5] for seed in range(3)]
    assert " Unfinished: CSP." in late(*rising)
    assert " Unfinished, their best epoch being the last: CSP." in late(*([*own[:5], 0.6] for own in rising))


def test_records_made_on_a_gpu_or_outside_of_a_checkout_are_shown_as_such():
    plain = {"packages": {}, "platform": "Linux x", "cpu": {"name": "A CPU", "count": 2}}
    plain |= {"threads": 1, "python": "3.11"}
    runs = [
        replace(record("csp", seed=seed), starts=[{"environment": plain | more}])
        for seed, more in enumerate(({"git": None}, {"git": {"commit": "c" * 40, "dirty": True}, "gpu": "A GPU"}))
    ]
    said = dict(records_page._conditions(runs))
    assert said["commits (starts)"] == "cccccccccc (1), not known (1)" and said["with changes not committed"] == "1"
    assert said["machine"] == "A CPU, 2 cores, A GPU; Linux x, A CPU, 2 cores, no GPU; Linux x"
    assert "validation, on A GPU or A CPU with 1 thread, other work" in spending.conditions(runs)
    assert "validation, on A GPU, other work" in spending.conditions(runs[1:])


def test_shared_switches_are_those_of_several_methods():
    def table(*changes):
        rows = [[Cell(text=name), Cell(), Cell(), Cell(value, mark="*")] for name, value in (("full", None), *changes)]
        return Table("", "", [Column("")] * 4, rows)

    tables = {"A": table(("x", 0.1), ("y", 0.2), ("gone", None)), "B": table(("y", -0.3), ("gone", 0.1)), "C": table()}
    found = findings.shared_switches(tables)
    assert [column.name for column in found.columns] == ["switch", "A", "B"]
    assert [[cell.text or cell.value for cell in row] for row in found.rows] == [["y", 0.2, -0.3]]
    assert "y | +20.0\\* | -30.0\\*" in page_parts.section(found)
    assert findings.shared_switches({"A": tables["A"]}) is None


# The committed documents.


def test_the_archives_are_small_and_hold_no_path():
    paths = [*collection.archives(), *collection.archives(collection.FOLDER / collection.FORMER)]
    assert sum(path.stat().st_size for path in paths) < 10_000_000
    for path in paths:
        for run in archive.read(path):
            assert b"/work" not in b"".join(run.texts.values()), run.run_id


def test_the_committed_pages_are_of_the_committed_records(committed):
    digest = page_parts.digest(committed.every)
    page = (ROOT / "docs/results.md").read_text()
    assert f"({len(committed.every)} runs, digest {digest})" in page
    assert (collection.FOLDER / "README.md").read_text() == records_page.records_page(committed)
    for group in committed.groups.values():
        for row in group.full:
            for run in row.done:
                assert run.result.metrics.test.images == 2050
    for table in committed.results("closed", "clean").slices():
        assert page_parts.section(table) in page, table.title
    if quiet := committed.quiet(committed.groups["closed", "clean"]):
        assert page_parts.section(cost(quiet)) in page


def test_committed_results_are_written_again_alike(committed):
    for run in committed.every:
        content = {"schema_version": 1, **run.finished.content()}
        assert files.with_finite_numbers(content) == files.read_json(run.path / "result.json"), run.run_id


def test_the_main_tables_are_what_the_committed_records_say():
    page, readme = (ROOT / "docs/results.md").read_text(), (ROOT / "README.md").read_text()
    with Material(only="*-closed-clean") as material:
        results = material.results("closed", "clean")
        assert page_parts.section(results.main()) in page
        assert page_parts.section(results.differences()) in page
        assert findings.standing(results) in page
        assert f"{documents.BEGIN}\n{documents.readme_part(results)}\n{documents.END}" in readme


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A repository with the records of three methods in one world, and the former ones beside them."""
    root = tmp_path_factory.mktemp("repository")
    folder = root / "results/reference"
    (folder / collection.FORMER).mkdir(parents=True)
    there = next(
        path for path in (collection.FOLDER / collection.FORMER, collection.FOLDER) if collection.archives(path)
    )
    for name in ("clip_zero_shot", "csp", "msci"):
        shutil.copy(there / f"{name}-closed-clean.tar.xz", folder)
    for name in ("csp", "msci"):
        shutil.copy(there / f"{name}-closed-clean.tar.xz", folder / collection.FORMER)
    files.write_json(folder / "flops.json", {"csp": 2e11, "msci": 3e12})
    (root / "README.md").write_text(f"{documents.BEGIN}\n{documents.END}\n")
    return folder, root


def test_pages_are_built_from_what_is_there_and_say_what_is_missing(parts):
    folder, root = parts
    question = Question(baseline="msci", resamples=100)
    made = documents.build(folder, root, question)
    page = (root / "docs/results.md").read_text()
    with (root / "docs/deviations.md").open("a") as file:
        file.write("by hand")
    former = root / "docs/figures/ablations-dfsp.svg"
    former.write_text("of records that were replaced")
    differing = ["docs/deviations.md", "docs/figures/ablations-dfsp.svg"]
    assert documents.differing(folder, root, question) == differing, "all else is the same, byte for byte"
    documents.build(folder, root, question)
    assert not former.exists() and (root / "docs/figures/auc-closed.svg").is_file()
    assert "**Missing here, of what is planned:**" in page and "in the open world" in page and "DFSP" in page
    for absent in ("## Open world", "## The official profiles", "### Ablations"):
        assert absent not in page
    assert "Not run again yet under the budget rule." in page
    assert "These are short trainings" in page and "epochs: 2 (MSCI), 12 (CSP)" in page
    assert "### Convergence, closed world" in page and "| MSCI | 5 | 2 | 2, 2, 2, 2, 2 |" in page
    assert "unfinished" in page and "### At equal time and at equal FLOPs" in page
    assert "### Conclusions, then and now" in page and "Of 3 conclusions that both can draw, 0 changed." in page
    said = (folder / collection.FORMER / "README.md").read_text()
    assert said.startswith("# The two-epoch reference") and "10 runs" in said
    there = collection.expand_to(root / "expanded", folder / collection.FORMER, "msci-*")
    assert len(there) == 5, "archives that were moved are expanded as ever"
    assert "| order, closed world | CSP > MSCI | CSP > MSCI | no |" in page
    assert "| CLIP zero-shot against MSCI, closed world | not run | below | – |" in page
    assert all(part in page for part in ("*Test:*", "*Seeds:* 0, 1, 2, 3, 4", "*What would overturn it:*"))
    joined = "CLIP zero-shot comes in as number 3 of 3 in the closed world (38.7), below CSP, the best of the earlier"
    assert f"{joined} methods (-" in page
    assert "### What a run's AUC varies with" in page and "### Seeds that a claim of one point needs" in page
    assert "Short training" in (root / "README.md").read_text()
    assert {path.name for path in made} >= {"results.md", "convergence-closed.svg", "spending-closed.svg"}


def test_what_cannot_be_collected_or_held_against_the_pages_is_said(tmp_path, capsys, monkeypatch):
    def told(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["reference", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            reference_main()
        return f"{ended.value.code} {capsys.readouterr().err}"

    archives, results = tmp_path / "archives", tmp_path / "results"
    assert told("--archives", archives, "collect", "--results", results).startswith("2 Error: There are no records in")
    (results / "damaged").mkdir(parents=True)
    (results / "damaged/spec.json").write_text("{")
    assert told("--archives", archives, "collect", "--results", results).startswith("2 Error: There is nothing to coll")
    stored(results, record("csp", auc=0.2), 3, given="nothing")
    assert told("--archives", archives, "collect", "--results", results).startswith(f"0 Not read: {results}/damaged: ")
    assert told("--archives", archives, "check").startswith("2 Error: The pages of")


def test_methods_that_joined_are_held_against_the_one_that_led_before(parts):
    folder, _ = parts
    with Material(folder, question=Question(baseline="msci", resamples=200)) as material:
        closed = material.results("closed", "clean")
        found = newcomers.entries({"closed": closed}, ["msci"])
        assert [(one.label, one.place, one.count, one.led) for one in found] == [
            ("CSP", 1, 3, "MSCI"),
            ("CLIP zero-shot", 3, 3, "MSCI"),
        ]
        for one in found:
            plain = closed.found.difference(one.label)
            assert one.difference.value == pytest.approx(plain.value, abs=1e-12)
            assert one.difference.p_value == plain.p_value and one.difference.adjusted_p >= plain.p_value
        assert newcomers.entries({"closed": closed}, []) == [], "nobody led before"
        assert newcomers.newcomers(closed, None, material) is None, "the records have no other methods"


def test_newcomers_may_be_without_a_test():
    own = difference_of(0.1, np.nan)
    entry = newcomers.Entry("A", "closed", 2, 3, "30.0", "B", own)
    assert (
        "number 2 of 3 in the closed world (30.0), not tested against B, the best of the earlier methods"
        in newcomers._sentence([entry], 0.95)
    )


def test_newcomers_of_equal_auc_have_the_same_place(tmp_path):
    for place, (method, auc) in enumerate((("csp", 0.2), ("coop", 0.3), ("dfsp", 0.3))):
        stored(tmp_path, record(method, auc=auc), place, given="nothing")
    group = group_of(find_runs(tmp_path)[0])
    base = next(row for row in group.full if row.method == "csp")
    question = Question(resamples=100)
    results = Results(group, base, evidence(group.full, base, question), "closed world")
    found = newcomers.entries({"closed": results}, ["csp"])
    assert [(one.label, one.place) for one in found] == [("CoOp", 1), ("DFSP", 1)]


def test_the_parts_of_the_method_that_leads_and_of_the_baseline_are_asked_about(parts):
    folder, _ = parts
    with Material(folder, question=QUICK) as material:
        closed = material.results("closed", "clean")
        assert [row.label for row in results_page.parts_asked_about(closed)] == ["CSP", "MSCI"]
        own = replace(closed, baseline=next(row for row in closed.group.full if row.label == "CSP"))
        assert [row.label for row in results_page.parts_asked_about(own)] == ["CSP"], "it leads and is the baseline"
        table = ablations(("fixed_words", -0.05, "*", 0.01), ("no_dropout", 0.01, "", 0.6))
        said = conclusions.what_parts_bring(own.baseline, table, closed.group.full, QUICK, "")
    assert said.title == "What CSP's parts bring" and "Holm over 2 comparisons" in said.test
    lowers = "`fixed_words` (-5.0 [-6.0, -4.0], p = 0.010) lowers it;"
    assert said.text.startswith(f"Of 2 switches no one raises the AUC and {lowers}")


def test_effects_that_only_the_former_records_have_stand_marked():
    now = deviations.Effects({}, {"masking": "+0.1"}, {})
    then = deviations.Effects({}, {"masking": "+0.7", "bf16_csp": "-0.2"}, {"MSCI": "+0.6"})
    shown = deviations.Shown([now, then])
    assert [shown.switch(name) for name in ("masking", "bf16_csp", "last")] == ["+0.1", "-0.2 (short)", "not run"]
    assert shown.official("MSCI") == "+0.6 (short)" and shown.ablation("msci", "parallel") == "not run"
    assert deviations.Shown([then]).official("MSCI") == "+0.6", "records that stand alone are not marked"


def test_rounding_beside_the_archives_widens_what_rests_on_seeds(parts):
    folder, _ = parts
    question = Question(baseline="msci", resamples=100)
    with Material(folder, question=question) as material:
        before = material.results("closed", "clean").found.difference("CSP")
    files.write_json(folder / "rounding.json", {"msci": {"auc": 0.1, "best_hm": 0.1, "runs": 6}})
    with Material(folder, question=question) as material:
        after = material.results("closed", "clean").found.difference("CSP")
        page, _ = results_page.results_page(material)
    (folder / "rounding.json").unlink()
    assert after.interval.high - after.interval.low > 2 * (before.interval.high - before.interval.low)
    assert after.seeds.standard_deviation == 0.1 and "MSCI 10.00 (6 runs)" in page
    assert "Not measured for" in page and "CSP" in page.partition("Not measured for")[2].partition(":")[0]


def test_figures_are_there_and_can_be_drawn(committed):
    page = (ROOT / "docs/results.md").read_text()
    methods = {run.spec.method for run in committed.runs if run.spec.ablation is not None}
    for method in methods:
        assert f"figures/ablations-{method}.svg" in page and (ROOT / f"docs/figures/ablations-{method}.svg").is_file()
    drawn = list((ROOT / "docs/figures").glob("*.svg"))
    assert sum(path.stat().st_size for path in drawn) < 1_250_000
    if "msci" not in committed.ablations:
        return
    group = committed.groups["closed", "clean"]
    full = next(row for row in group.full if row.method == "msci")
    changes = drawings.changes_of(committed.ablations["msci"], full, group.switches(full))
    assert changes and ablation_bars("msci", changes).axes
