"""Tables as LaTeX and CSV, ablation tables, figures, and the HTML page, from records made by hand and from toy runs."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from made_reports import THREE, record, stored, switched

from benchmarks.report.formats import csv_text, escaped, latex, slug
from benchmarks.report.groups import groups
from benchmarks.report.render import markdown
from benchmarks.report.reproduce import commands, reproduce
from benchmarks.report.scored_runs import read_scored
from benchmarks.report.tables import tables
from benchmarks.report.writing import read_report, write_files
from benchmarks.runs.open_world_settings import OpenWorld


def test_csv_has_every_digit_and_the_spread():
    main = tables(THREE)[0]
    rows = list(csv.DictReader(io.StringIO(csv_text(main))))
    csp = next(row for row in rows if row["method"] == "CSP")
    assert float(csp["AUC"]) == 0.25
    assert float(csp["AUC sd"]) == pytest.approx(0.1 / 2**0.5, abs=1e-15)
    assert next(row for row in rows if row["method"] == "CoOp")["AUC sd"] == ""


def test_best_and_second_are_marked_everywhere():
    main = tables(THREE)[0]
    text = latex(main)
    assert r"\textbf{25.0}" in text and r"{\scriptsize $\pm$7.1}" in text and r"\underline{15.0}" in text
    assert "| **25.0 ± 7.1** |" in markdown(main) and "| _15.0_ |" in markdown(main)
    two = tables(THREE[1:3])[0]
    assert not any(cell.second for row in two.rows for cell in row), "of two, one is better and that is all"


def test_latex_is_escaped():
    assert escaped("a_b & 5 % #1 {x} ~ ^ \\ ±") == (
        r"a\_b \& 5 \% \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} $\pm$"
    )
    text = latex(tables(THREE)[0])
    assert r"icon\_states" in text and r"\label{tab:results}" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


def test_an_ablation_is_compared_with_its_full_model_on_shared_seeds():
    runs = [*THREE, switched("no_dropout", 0, 0.25, dropout=0.0), switched("no_dropout", 1, 0.32, dropout=0.0)]
    runs += [switched("no_dropout", 7, 0.9, dropout=0.0)]
    found = {table.title: table for table in tables(runs)}
    assert [row[0].text for row in found["Results"].rows] == ["CLIP zero-shot", "CoOp", "CSP"]
    full, switch = found["Ablations of CSP"].rows
    assert (full[0].text, switch[0].text, switch[1].text) == ("CSP", "no_dropout", "3")
    assert switch[3].value == pytest.approx((0.05 + 0.02) / 2)
    assert switch[3].spread == pytest.approx(0.03 / 2**0.5)
    assert "no_dropout: Does dropout" in " ".join(found["Ablations of CSP"].notes)
    assert "| +3.5 ± 2.1 |" in markdown(found["Ablations of CSP"])


def test_an_ablation_of_other_settings_is_not_compared():
    other = switched("no_dropout", dropout=0.0, init="random")
    titles = [table.title for table in tables([*THREE, other])]
    assert "Ablations of CSP" not in titles and "Results of ablations without their full model" in titles


def test_the_command_repeats_the_run():
    run = record(training={"lr": 1e-3}, ablation="no_dropout")
    run = run.__class__(
        **{**vars(run), "provenance": {"lr": {"origin": "command line"}, "epochs": {"origin": "preset"}}}
    )
    assert reproduce(run) == (
        "python bench.py run --methods csp --dataset icon_states --seeds 0 --world closed --profile clean "
        "--backbone tiny-icons --precision fp32 --ablations no_dropout --set csp.lr=0.001"
    )
    run = record(world="open", open_world=OpenWorld(feasibility="clip", threshold=0.4))
    run = run.__class__(**{**vars(run), "provenance": {"threshold": {"origin": "command line"}}})
    assert reproduce(run).endswith(
        "--world open --profile clean --backbone tiny-icons --precision fp32 --set csp.threshold=0.4"
    )


def test_predictions_agree_with_the_matrix(tmp_path):
    folder = stored(tmp_path, THREE[0])
    scored = read_scored(folder.read())
    assert (scored.states, scored.objects, len(scored.images)) == (("dry", "wet"), ("cat", "dog"), 40)
    stream = np.random.default_rng(0)
    matrix = (stream.normal(size=(40, 4)) + 2 * np.eye(4)[np.arange(40) % 4]).astype(np.float32)
    matrix[:, 3] += 0.25
    assert np.array_equal(scored.predictions(0.25), matrix.argmax(axis=1))
    assert np.array_equal(scored.predicted_states(0.25), matrix.argmax(axis=1) // 2)

    # A row is a command, as long as its runs differ in their seed alone.
    seeds = [record(seed=seed, training={"lr": 1e-3}) for seed in (0, 1)]
    other = record(seed=2).__class__(**{**vars(record(seed=2)), "provenance": {"lr": {"origin": "command line"}}})
    both = commands([*seeds, other])
    assert [line.partition("--seeds ")[2].partition(" --world")[0] for line in both] == ["0 1", "2"]


class _Page(HTMLParser):
    """Collects what a page links to and its tables' cells."""

    def __init__(self) -> None:
        super().__init__()
        self.outside, self.ids, self.anchors = [], set(), []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:")):
                self.outside.append((tag, value))
            if name == "href" and tag == "a":
                self.anchors.append(value.removeprefix("#"))
            if name == "id":
                self.ids.add(value)


def test_files_of_a_results_folder(tmp_path):
    for number, run in enumerate([*THREE, switched("no_dropout", dropout=0.0)]):
        stored(tmp_path, run, number)
    broken = stored(tmp_path, record("msci", auc=0.4), 9)
    (broken.path / "scores.npz").write_bytes(b"not an archive")
    written = write_files(read_report(tmp_path))
    assert all(path.is_file() and path.stat().st_size > 0 for path in written)
    names = {path.name for path in written}
    for stem in (
        "results.md",
        "results.tex",
        "results.csv",
        "ablations-of-csp.tex",
        "seen-unseen.pdf",
        "confusion.png",
    ):
        assert stem in names
    assert {"auc.svg", "cost.svg", "states.svg", "objects.svg", "ablations-csp.svg", "report.html"} <= names
    page = (tmp_path / "report.html").read_text()
    parser = _Page()
    parser.feed(page)
    assert parser.outside == [], "the page stands alone"
    assert set(parser.anchors) <= parser.ids
    assert page.count("data:image/svg+xml") == page.count("<figure") == 7
    assert "Its figures are left out" in page
    assert page.count("python bench.py run --methods") == 5, "a row is a command, whatever its seeds"
    assert "--seeds 0 1" in page
    assert "Successes and failures: left out" in page and "No ranking over data sets" in page
    before = {path: path.read_bytes() for path in written}
    again = write_files(read_report(tmp_path))
    assert {path: path.read_bytes() for path in again} == before, "same records, same files"


def test_titles_make_file_names():
    (group,) = groups(THREE)
    assert slug(group.title) == "icon-states-closed-world-tiny-icons-fp32"
    assert re.fullmatch(r"[a-z0-9-]+", slug("Ablations of MSCI (n_low=1)"))
