"""The golden report: a few committed records give the same Markdown, LaTeX and CSV to the last byte, and it compiles.

After a wanted change: `pytest tests/report/test_golden_report.py --rewrite-golden`, then read what git shows.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from made_reports import record

from benchmarks.report.formats import latex
from benchmarks.report.groups import groups
from benchmarks.report.published import comparable, published_table
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.report.writing import Report, read_report, write_tables
from benchmarks.runs.result import Counts

GOLDEN = Path(__file__).parent.parent / "golden/report"
RECORDS, EXPECTED = GOLDEN / "records", GOLDEN / "expected"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a copy of the records, in a folder of another name."""
    root = tmp_path_factory.mktemp("somewhere else") / "my results"
    shutil.copytree(RECORDS, root)
    found = read_report(root)
    found.write()
    return found


def test_the_golden_report_byte_for_byte(report, request):
    made = {path.relative_to(report.root): path.read_bytes() for path in [report.path, *write_tables(report)]}
    if request.config.getoption("--rewrite-golden"):
        shutil.rmtree(EXPECTED, ignore_errors=True)
        for name, content in made.items():
            (EXPECTED / name).parent.mkdir(parents=True, exist_ok=True)
            (EXPECTED / name).write_bytes(content)
    assert {path.suffix for path in made} == {".md", ".tex", ".csv"}
    assert set(made) == {path.relative_to(EXPECTED) for path in EXPECTED.rglob("*") if path.is_file()}
    for name, content in made.items():
        assert content.decode() == (EXPECTED / name).read_text(encoding="utf-8"), name


def test_the_golden_report_says_what_is_missing(report):
    page = report.path.read_text()
    for part in (
        "From 13 run records, the latest of them started 2026-01-01",
        "failed: The loss became nan.",
        "is not finished (0 epochs so far).",
        "Troika was not run with seed 1.",
        "No interval of Troika: The record troika-",
        "over seeds and test images (test images alone for CoOp, with one run)",
        "No published numbers stand beside these: there are none of toy.",
        "no_dropout: Does dropout",
    ):
        assert part in page, part
    assert str(report.root) not in page


def test_the_csv_of_the_golden_report_is_read_back(report):
    folder = EXPECTED / "report/toy-closed-world-tiny-icons-fp32"
    with (folder / "results.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    main = next(table for table in report.tables if table.title == "Results")
    csp = next(row for row in main.rows if row[0].text == "CSP")
    assert float(rows["CSP"]["AUC"]) == csp[2].value
    assert float(rows["CSP"]["AUC low"]) == pytest.approx(csp[2].interval[0], rel=1e-7)
    assert rows["Troika"]["AUC low"] == "" and rows["DFSP"]["AUC"] == ""


PREAMBLE = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"


def compiled(folder: Path, body: str) -> str:
    """Compile with pdflatex and return its log; an error fails the test."""
    (folder / "tables.tex").write_text(f"{PREAMBLE}{body}\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    log = (folder / "tables.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, re.findall(r"^!.*(?:\n.*){5}", log, re.MULTILINE)
    return log


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here (texlive-latex-recommended has it)")
def test_every_table_of_the_golden_report_compiles_and_fits_the_page(tmp_path):
    files = sorted(EXPECTED.rglob("*.tex"))
    assert len(files) > 10
    log = compiled(tmp_path, "\n".join(path.read_text(encoding="utf-8") for path in files))
    assert "Overfull" not in log
    assert "multiply defined" not in log


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here (texlive-latex-recommended has it)")
def test_published_tables_and_strange_words_compile(tmp_path):
    run = record(dataset="mit_states", backbone="ViT-L-14-quickgelu/openai")
    (group,) = groups([replace(run, result=run.finished.model_copy(update={"counts": Counts(test_images=12_995)}))])
    strange = '50 % & #1 {x} ~ ^ \\ _ $ ± – — “a” ‘b’ "c" → ≥ é ß 猫 <|> … \U0001f600'
    odd = Table(strange, strange, [Column(strange), Column("AUC", signed=True)], [[Cell(text=strange), Cell(-0.5)]])
    table = latex(replace(odd, notes=[strange], sources=[strange]))
    assert "$-$50.0" in table
    compiled(tmp_path, latex(published_table(group, comparable(group))) + table)
