"""Repeats that differ in rounding alone: one moved number, resumable folders, and what the summary makes of them."""

from __future__ import annotations

import os
import statistics

import pytest
import torch
from made_reports import record
from made_results import metrics
from toy_runs import make_backbone

from benchmarks.report.render import markdown
from benchmarks.runs import files
from benchmarks.runs.records import RunFolder, find_runs
from benchmarks.runs.result import PhaseMetrics
from benchmarks.studies.rounding import __main__ as program
from benchmarks.studies.rounding import summary, training, variants
from benchmarks.studies.rounding.training import move
from benchmarks.studies.rounding.variants import VARIANTS, Repeats, Variant, chosen, run_all
from errors import UserError
from methods.csp import CSP


def test_one_number_moves_by_one_unit_in_the_last_place(toy):
    torch.manual_seed(0)
    method = CSP(make_backbone(), toy.vocabulary, CSP.Config())
    before = {name: tensor.detach().clone() for name, tensor in method.trained().items()}
    said = [move(method, place) for place in (1, 2)]
    changed = {name: int((tensor != before[name]).sum()) for name, tensor in method.trained().items()}
    assert sum(changed.values()) == 2 and len(set(said)) == 2
    for name, tensor in method.trained().items():
        places = (tensor != before[name]).nonzero(as_tuple=True)
        old, new = before[name][places], tensor.detach()[places]
        assert torch.equal(torch.nextafter(old, old.sign() * torch.inf), new) and (new.abs() > old.abs()).all()


def test_variants_are_ordinary_records_that_go_on(toy, tmp_path):
    repeats = Repeats(
        ("csp",), epochs=4, dataset="toy", settings=("csp.lr=0.002",)
    )  # so little need not be seen in each
    for name in ("plain", "last-place-1"):
        training.train(repeats, name, VARIANTS[name], tmp_path, {"toy": toy})
    (plain,), (moved,) = (find_runs(tmp_path / name)[0] for name in ("plain", "last-place-1"))
    assert plain.spec.training.lr == 0.002 and plain.run_id == moved.run_id and plain.status == moved.status == "done"
    assert " to " in moved.environment["moved"] and "moved" not in plain.environment
    assert [epoch["losses"] for epoch in plain.epochs] != [epoch["losses"] for epoch in moved.epochs]
    assert plain.environment["instructions"].startswith(torch.backends.cpu.get_cpu_capability())
    written = (moved.path / "result.json").stat().st_mtime_ns
    training.train(repeats, "last-place-1", VARIANTS["last-place-1"], tmp_path, {"toy": toy})
    assert (moved.path / "result.json").stat().st_mtime_ns == written, "what is there is not done again"
    (found,) = summary.spreads(tmp_path)
    assert found.method == "csp" and found.repeats == {0: 2}
    values = [run.finished.metrics.test.auc for run in (plain, moved)]
    assert found.deviations["auc"] == pytest.approx(statistics.stdev(values))


def made(root, variant, seed, auc, last, epoch, **changes):
    """A finished record in a variant's folder."""
    run = record("csp", seed=seed, dataset="icon_states", **changes)
    folder = RunFolder(root / variant / run.spec.run_id)
    folder.start(run.spec, provenance={}, command_line=[], environment={"device": "cpu"})
    for place in range(3):
        folder.append_epoch({"epoch": place, "losses": {"total": auc}, "val": {"auc": last}})
    selection = run.finished.selection.model_copy(update={"epoch": epoch})
    test = metrics(auc=auc, best_hm=auc + 0.1)
    folder.finish(run.finished.model_copy(update={"selection": selection, "metrics": PhaseMetrics(test=test)}))


def test_the_summary_pools_inside_seeds_and_leaves_copies_out(tmp_path):
    with pytest.raises(UserError, match="nothing to summarise"):
        summary.spreads(tmp_path)
    for variant, auc in (("plain", 0.60), ("threads-2", 0.62), ("onednn-avx2", 0.60), ("last-place-1", 0.64)):
        made(tmp_path, variant, 0, auc, auc + 0.1, 1)
    for variant, auc in (("plain", 0.50), ("threads-2", 0.50)):
        made(tmp_path, variant, 1, auc, 0.5, 2)
    for variant in ("plain", "last-place-1"):
        made(tmp_path / "moved", variant, 0, 0.60, 0.7, 1)
    (still,) = summary.spreads(tmp_path / "moved")
    assert still.repeats == {0: 2} and still.deviations["auc"] == 0, "a number was moved and nothing came of it"
    (found,) = summary.spreads(tmp_path)
    assert found.repeats == {0: 3}, "a variant with equal epochs is no repeat, and a seed without repeats says nothing"
    assert found.deviations["auc"] == pytest.approx(statistics.stdev([0.60, 0.62, 0.64]))
    assert found.curve == pytest.approx((0.02, 0.02, 0.02)) and (found.least, found.most) == (0.60, 0.64)
    assert found.epochs == (2, 2, 2)
    assert "| CSP | 3 | 2.00 | 60.00 | 64.00 | 2.00 | 2.00 | 2, 2, 2 |" in markdown(summary.table([found]))
    assert "| CSP | 2.00 | 2.00 | 2.00 |" in markdown(summary.by_epoch([found]))
    made(tmp_path, "plain", 0, 0.60, 0.7, 1, training={"lr": 1.0})
    with pytest.raises(UserError, match="two runs of csp with seed 0"):
        summary.read(tmp_path)
    assert summary.content([found]) == {"csp": {**found.deviations, "runs": 3}}


def test_a_summary_is_added_to_what_was_measured_before(tmp_path, monkeypatch, capsys):
    for variant, auc in (("plain", 0.60), ("last-place-1", 0.64)):
        made(tmp_path / "runs", variant, 0, auc, 0.7, 1)
    target = tmp_path / "rounding.json"
    files.write_json(target, {"csp": {"auc": 1.0}, "dfsp": {"auc": 0.5, "best_hm": 0.25, "runs": 6}})
    command = ["rounding", "summary", "--results", tmp_path / "runs", "--to", target]
    monkeypatch.setattr("sys.argv", [*map(str, command)])
    with pytest.raises(SystemExit, match="0"):
        program.main()
    assert "| CSP | 2 |" in capsys.readouterr().out
    stored = files.read_json(target)
    assert stored["dfsp"] == {"auc": 0.5, "best_hm": 0.25, "runs": 6}, "a method without runs here stays as it was"
    assert stored["csp"]["runs"] == 2 and stored["csp"]["auc"] == pytest.approx(statistics.stdev([0.60, 0.64]))


def test_each_variant_is_started_in_an_environment_of_its_own(tmp_path, monkeypatch):
    started = []

    def noted(command, *, cwd, env, check):
        started.append((command[command.index("--variant") + 1], env.get("ATEN_CPU_CAPABILITY"), command[-1]))
        return type("Done", (), {"returncode": -15 if len(started) == 1 else 0})

    monkeypatch.setattr(variants.subprocess, "run", noted)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    repeats = Repeats(["csp"], short=True, settings=["csp.lr=1"])
    assert repeats.options[-3:] == ["--set", "csp.lr=1", "--short"]
    assert run_all(repeats, chosen(["plain", "aten-avx2"]), tmp_path) == 15
    assert started == [("plain", None, "--short"), ("aten-avx2", "avx2", "--short")]
    assert "ATEN_CPU_CAPABILITY" not in os.environ
    with pytest.raises(UserError, match="Did you mean 'plain'"):
        chosen(["plaim"])
    with pytest.raises(UserError, match="cannot be trained in this process"):
        training.train(Repeats(["csp"]), "odd", Variant({"ATEN_CPU_CAPABILITY": "odd"}), tmp_path)
