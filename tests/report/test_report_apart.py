"""A report whose parts stand by themselves: extreme results, names that collide, words and letters of any kind."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from made_reports import record
from made_results import at_bias
from typer.testing import CliRunner

from benchmarks.commands.app import app
from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.report import figures, fonts, matrices, pictures, ranking, style, uncertainty
from benchmarks.report import tables as table_makers
from benchmarks.report.evidence import Question
from benchmarks.report.failures import LOG, Failures
from benchmarks.report.formats import escaped, is_known, latex
from benchmarks.report.groups import groups
from benchmarks.report.images import Library
from benchmarks.report.names import LONGEST, file_name, folders, unique
from benchmarks.report.render import markdown, prose
from benchmarks.report.scored_runs import read_scored
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.report.tables import group_tables
from benchmarks.report.writing import read_report
from benchmarks.runs.records import RunFolder, find_runs
from benchmarks.runs.result import PhaseMetrics
from benchmarks.significance import nemenyi
from errors import UserError

QUICK = Question(resamples=50)
PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
SEEN = np.array([True, True, True, False])


def kept(root, matrix, columns, states=("dry", "wet"), objects=("cat", "dog"), **changes):
    """Write a finished run of a score matrix [N, 4] on images of the pairs `columns` and return its record."""
    scores = ImageScores.from_matrix(np.asarray(matrix, dtype=np.float64), SEEN, np.asarray(columns))
    run = record(**changes)
    folder = RunFolder(root / run.spec.run_id)
    folder.start(run.spec, provenance={}, command_line=[], environment={"device": "cpu"})
    arrays = scores.to_arrays() | {"states": PAIRS[columns, 0], "objects": PAIRS[columns, 1]}
    arrays |= {"candidate_pairs": PAIRS, "candidate_seen": SEEN}
    names = {"names.states": np.array(states), "names.objects": np.array(objects)}
    folder.write_arrays(names | {f"test.{name}": value for name, value in arrays.items()})
    chosen = at_bias(hm=0.5, seen_pair=0.5, unseen_pair=0.5)
    test = replace(run.finished.metrics.test, at_bias=chosen)
    folder.finish(run.finished.model_copy(update={"metrics": PhaseMetrics(test=test)}))
    return folder.read()


COLUMNS = np.arange(8) % 4
RIGHT = 2.0 * np.eye(4)[COLUMNS] + np.arange(8)[:, None] * 1e-3
CASES = {
    "no seen image right": (np.where(SEEN, -RIGHT, RIGHT), COLUMNS),
    "no unseen image right": (np.where(SEEN, RIGHT, RIGHT)[:, [0, 1, 2, 3]] * [1, 1, 1, 0] + [0, 0, 5, 0], COLUMNS),
    "nothing right": (-RIGHT, COLUMNS),
    "everything right": (RIGHT, COLUMNS),
    "all scores equal": (np.zeros((8, 4)), COLUMNS),
    "one image of each group": (RIGHT[[0, 3]], COLUMNS[[0, 3]]),
    "one image": (RIGHT[:1], COLUMNS[:1]),
    "seen images alone": (RIGHT[:3], COLUMNS[:3]),
    "unseen images alone": (RIGHT[[3, 7]], COLUMNS[[3, 7]]),
}


def render(figure):
    """Draw a figure as far as it can be done without writing it."""
    fonts.supply(fonts.texts_of(figure))
    figure.draw_without_rendering()
    style.pyplot().close(figure)


def every_figure(found):
    """Make the figures of a group; those that need a curve or a bias from the runs that have one."""
    scored = [(row.label, [read_scored(run) for run in row.done]) for row in found.full]
    looks = style.styles(found.full)
    intervals, _ = uncertainty.auc_intervals(found.full)
    if not any(np.isnan(run.curve.auc) for _, runs in scored for run in runs):
        yield figures.seen_unseen(uncertainty.curve_lines(scored, looks))
    yield figures.auc_of_runs(found.full, looks, intervals)
    yield figures.cost(found.full, looks, intervals)
    yield matrices.primitive_accuracy(scored, "state")
    yield matrices.state_confusion(scored[0][1])


@pytest.mark.parametrize("case", CASES)
def test_extreme_results_have_their_figures(case, tmp_path):
    kept(tmp_path, *CASES[case], auc=0.0)
    kept(tmp_path, *CASES["everything right"] if len(CASES[case][1]) == 8 else CASES[case], method="coop")
    (group,) = groups(find_runs(tmp_path)[0])
    for figure in every_figure(group):
        render(figure)
    failures = Failures()
    assert len(group_tables(group, QUICK, failures.within("here"))) >= 3 and failures.found == []


def test_many_methods_have_their_figures(tmp_path):
    for number in range(30):
        kept(tmp_path, RIGHT + number * 1e-4, COLUMNS, method=f"method_{number}")
    (group,) = groups(find_runs(tmp_path)[0])
    for figure in every_figure(group):
        render(figure)


WORDS = [
    "$$",
    "$10-$50",
    "$",
    r"\frac{a}{b}",
    "_first",
    "__",
    "a_b^c",
    "50 % & #1",
    "{0}",
    "<b>",
    "a\nb",
    "x" * 300,
    "",
]


def texts(figure) -> list[str]:
    return [text.get_text() for text in fonts.texts_of(figure)]


@pytest.mark.parametrize("word", WORDS)
def test_words_are_drawn_as_they_are(word, tmp_path):
    names = (word, f"{word}2")
    kept(tmp_path, RIGHT, COLUMNS, names, names, method=word)
    kept(tmp_path, -RIGHT, COLUMNS, names, names, method="coop")
    (group,) = groups(find_runs(tmp_path)[0])
    shown = style.words(word, matrices.LONGEST)
    assert len(shown) <= matrices.LONGEST and "\n" not in shown and (len(word) > 50 or "\n" in word or shown == word)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, figure in enumerate(every_figure(group)):
            found = texts(figure)
            if number < 3:
                assert style.words(word) in found, "a method's label"
            if number == 3:
                assert f"{shown} (4)" in found
            if number == 4:
                assert shown in found
            assert not any(text.get_parse_math() or text.get_usetex() for text in fonts.texts_of(figure))
            if number < 4:
                render(figure)
            else:
                style.save(figure, tmp_path / "figures" / str(number), (".svg", ".pdf"))


def test_words_in_tables_are_no_markup():
    table = Table("A $1$ *b* <i>", "of `x` [a](b) _c_ d_e |", [Column("method"), Column("a|b")],
                  [[Cell(text="$x$ | *y* _z_ <b> &amp; a_b"), Cell(0.5)]], ["#1 \n two"])  # fmt: skip
    text = markdown(table)
    assert r"## A \$1\$ \*b\* \<i>" in text and r"of \`x\` [a]\(b) \_c\_ d_e |" in text
    assert r"| \$x\$ \| \*y\* \_z\_ \<b> \&amp; a_b | 50.0 |" in text and r"| method | a\|b |" in text
    assert "- #1   two\n" in text
    made = latex(replace(table, caption="a\n\nb 照片 &"))
    assert "a  b ?? \\&" in made and r"\$x\$ \textbar{} *y* \_z\_ $<$b$>$ \&amp; a\_b" in made
    assert escaped("a\n\nb") == "a  b" and is_known("é $ ?") and not is_known("照片")
    assert prose("*: the mark, 3 * 4") == r"*: the mark, 3 \* 4"


def test_names_of_files_are_unique_and_stable():
    assert [file_name(text) for text in ("Results", "CSP (lr=0.5)")] == ["results", "csp-lr-0-5"], "ordinary ones stay"
    odd = ["照片", "鞋子", "", "con", "NUL", "com1", "x" * 300, "x" * 301, "é", "e", "a b", "a_b", "A b", "a-b", "照片"]
    made = unique(odd, [f"{number}" for number in range(len(odd))])
    assert len({name.casefold() for name in made}) == len(odd)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) and len(name) <= LONGEST + 9 for name in made)
    assert not {"con", "nul", "com1"} & set(made)
    assert unique(odd[:9]) == unique(odd[:11])[:9]


def of_data(name: str, digest: str, method: str = "csp", auc: float = 0.3, **changes):
    return record(method, auc=auc, dataset=name, dataset_digest=digest * 64, **changes)


DATA = [
    ("folder:my photos", "1"), ("folder:my_photos", "2"), ("folder:My Photos", "3"), ("folder:照片", "4"),
    ("folder:鞋子", "5"), ("folder:images", "6"), ("folder:images", "7"), ("folder:", "8"), ("folder:con", "9"),
    ("folder:" + "a" * 400, "a"), ("folder:" + "a" * 401, "b"), ("icon_states", "c"), ("icon-states", "d"),
    ("icon_states", "e"), ("splits:images", "6"),
]  # fmt: skip


def test_groups_never_share_a_folder_and_further_ones_rename_none():
    runs = [of_data(*one) for one in DATA]
    for number, run in enumerate(runs):
        run.starts[0]["time"] = f"2026-01-{number + 1:02}"
    full = {run.spec.run_id: name for name, run in named(runs)}
    assert len({name.casefold() for name in full.values()}) == len(DATA)
    assert all(len(name.encode()) < 200 and name.isascii() for name in full.values())
    assert full[runs[11].run_id] == "icon-states-closed-world-tiny-icons-fp32", "a data set of a fixed name"
    assert full[runs[5].run_id] == "folder-images-closed-world-tiny-icons-fp32-data-66666666"
    for size in range(1, len(DATA)):
        assert {run.spec.run_id: name for name, run in named(runs[:size])}.items() <= full.items()
    titles = [group.title for group in groups(runs)]
    assert len(set(titles)) == len(titles)


def named(runs):
    found = groups(runs)
    return [(name, group.runs[0]) for name, group in zip(folders(found), found, strict=True)]


def test_weights_of_one_name_are_told_apart():
    found = groups([of_data("icon_states", "c"), of_data("icon_states", "c", backbone_digest="f" * 64)])
    assert len(set(folders(found))) == 2 and all("weights" in group.title for group in found)
    captions = {group_tables(group, QUICK)[0].caption for group in found}
    assert len(captions) == 2 and all("The group with weights" in caption for caption in captions)


def test_tables_tell_data_sets_apart_that_latex_cannot_print():
    made = [latex(group_tables(group, QUICK)[0]) for group in groups([of_data(*one) for one in DATA[3:7]])]
    assert len({re.search(r"\\caption.*", text).group() for text in made}) == 4


def test_own_data_sets_of_one_name_are_two_in_a_ranking(tmp_path):
    runs = [
        of_data("folder:images", digest, method, auc)
        for digest in "12"
        for method, auc in (("csp", 0.3), ("coop", 0.2), ("msci", 0.1))
    ]
    (field,) = ranking.fields(groups(runs))
    assert field.datasets == ["folder:images (data 11111111)", "folder:images (data 22222222)"]
    assert field.values.shape == (2, 3) and field.problem == ""
    ranked = pictures.draw_ranks(groups(runs), tmp_path)
    assert (
        len(ranked.pictures) == 1 and "folder:images (data 11111111), folder:images (data" in ranked.pictures[0].caption
    )
    releases = [replace(run, spec=run.spec.model_copy(update={"dataset": "icon_states"})) for run in runs]
    (field,) = ranking.fields(groups(releases))
    assert field.datasets == ["icon_states"], "two releases of one data set"
    (passed,) = field.passed_over
    assert passed == groups(releases)[1].title and passed.endswith("data 22222222")
    style.save(ranking.critical_difference(ranking.fields(groups(runs))[0], nemenyi(np.eye(3))), tmp_path / "one")


BREAKABLE = {
    "a figure": (figures, "auc_of_runs", "AUC with intervals"),
    "its interval": (uncertainty, "auc_intervals", "Cost against AUC"),
    "a caption": (matrices, "states_left_out", "Confusion of states"),
    "a table": (table_makers, "cost_table", "Cost"),
    "tests": (table_makers, "evidence", "Intervals and tests"),
    "ranks": (ranking, "fields", "Ranks over data sets"),
}


def not_written(figure, path, **_):
    """Stand in for `style.save`, which takes its time."""
    style.pyplot().close(figure)
    return [path.with_name(path.name + ".svg")]


@pytest.mark.parametrize("broken", BREAKABLE)
@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), UserError("No.", "Nothing.", "Go on.")])
def test_what_cannot_be_made_is_left_out_and_the_rest_stands(broken, error, tmp_path, monkeypatch):
    kept(tmp_path, RIGHT, COLUMNS)
    module, name, what = BREAKABLE[broken]
    whole = read_report(tmp_path, Question(resamples=0))
    expected = {table.title for made in whole.by_group for table in made}
    (group,) = whole.groups

    def fails(*_arguments, **_named):
        raise error

    monkeypatch.setattr(module, name, fails)
    found = read_report(tmp_path, Question(resamples=0))
    made = {table.title for tables in found.by_group for table in tables}
    assert made >= expected - {what}
    own = found.failures.within(group.title)
    monkeypatch.setattr(style, "save", not_written)
    drawn = pictures.draw(group, tmp_path / "f", Library(), own)
    ranks = pictures.draw_ranks([group], tmp_path / "f", own)
    sentences = [*own.sentences, *drawn.absent, *ranks.absent]
    (said,) = [text for text in sentences if text.startswith(f"{what}: left out.")]
    assert ("It cannot be made (ZeroDivisionError: division by zero)" in said) is isinstance(error, ZeroDivisionError)
    assert {"seen-unseen.svg", "states.svg", "objects.svg"} <= {path.name for path in drawn.files}
    found.failures.write(tmp_path)
    traced = isinstance(error, ZeroDivisionError)
    assert (tmp_path / LOG).exists() is traced and (not traced or "Traceback" in (tmp_path / LOG).read_text())


def test_the_command_says_it_and_its_exit_code_is_1(tmp_path, monkeypatch, svg_alone):
    kept(tmp_path, RIGHT, COLUMNS)
    with monkeypatch.context() as broken:
        broken.setattr(figures, "cost", lambda *_: 1 / 0)
        broken.setattr(table_makers, "cost_table", lambda *_: [][0])
        failed = CliRunner().invoke(app, ["report", "--results", str(tmp_path), "--resamples", "0"])
    assert failed.exit_code == 1 and isinstance(failed.exception, SystemExit)
    assert failed.stderr.count("left out. It cannot be made") == 2 and LOG in failed.stderr
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "2 parts of this report could not be made" in page and page.count("<figure") == 5
    assert "Cost: left out. It cannot be made (IndexError" in page and "## What could not be made" in text
    assert "ZeroDivisionError" in (tmp_path / LOG).read_text()
    assert "<h3>Results" in page or "Leaderboard" in page
    again = CliRunner().invoke(app, ["report", "--results", str(tmp_path), "--resamples", "0"])
    assert again.exit_code == 0 and not (tmp_path / LOG).exists()


def font(path, family: str, letters: str):
    """Write a font with a square for each of some letters."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for number, point in enumerate(((50, 0), (50, 700), (450, 700), (450, 0))):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    names = [".notdef", *(f"u{ord(letter):X}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):X}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (500, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def fonts_here(monkeypatch):
    """Set which font files this machine has."""
    from matplotlib import font_manager

    def use(*paths):
        fonts.installed.cache_clear()
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: list(paths))

    before = list(font_manager.fontManager.ttflist)
    yield use
    fonts.installed.cache_clear()
    font_manager.fontManager.ttflist[:] = before


SCRIPTS = {
    "Chinese": ("照片", "fonts-noto-cjk"), "Korean": ("한국", "fonts-noto-cjk"), "Japanese": ("かわ", "fonts-noto-cjk"),
    "Devanagari": ("जूते", "fonts-noto-core"), "Thai": ("รองเท้า", "fonts-noto-core"),
    "emoji": ("🦄🧵", "fonts-symbola"), "Ethiopic": ("ጫማ", "fonts-noto-core"),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_letters_of_other_scripts(script, tmp_path, fonts_here):
    letters, package = SCRIPTS[script]
    kept(tmp_path, RIGHT, COLUMNS, (letters, "wet"), ("cat", letters[::-1]), method="csp", dataset=f"folder:{letters}")
    (group,) = groups(find_runs(tmp_path)[0])
    (tmp_path / "no font.ttf").write_bytes(b"nothing of the kind")
    for there in (False, True):
        paths = [font(tmp_path / "own.ttf", f"Test {script}", letters)] if there else []
        fonts_here(str(tmp_path / "no font.ttf"), *paths)
        lacking: set[str] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            style.pyplot()
            scored = [(row.label, [read_scored(run) for run in row.done]) for row in group.full]
            figure = matrices.primitive_accuracy(scored, "state")
            style.save(figure, tmp_path / "states", lacking=lacking)
            families = {tuple(text.get_fontfamily()) for text in fonts.texts_of(figure)}
            assert (fonts.FAMILY,) in families and len(families) == 1 + there
        assert lacking == (set() if there else set(letters) - {chr(sign) for sign in fonts._own_signs()})
    said = fonts.sentence(letters)
    assert package in said and all(letter in said for letter in letters)


def test_ordinary_words_need_no_font_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "installed", lambda: pytest.fail("nobody asks for fonts"))
    kept(tmp_path, RIGHT, COLUMNS, ("tränkt ✓", "κενό"), ("сухой", "é…"))
    (group,) = groups(find_runs(tmp_path)[0])
    for figure in every_figure(group):
        assert fonts.supply(fonts.texts_of(figure)) == set()
        style.pyplot().close(figure)
    assert fonts.sentence([]) == ""
