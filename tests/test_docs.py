"""Documents: links resolve, and the examples run."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from in_process import here
from toy_runs import make_backbone
from toy_world import make_toy

from benchmarks.launchers.local import THREADS
from benchmarks.runs.resolution import resolve
from benchmarks.training.steps import mixes_images
from datasets.checking.check import about
from methods.released.names import FORMS
from registry import METHODS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "findings/README.md",
    *sorted((ROOT / "results").rglob("README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_resolve(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked to, as GitHub makes it."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return words.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_headings_resolve(page):
    for target, fragment in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        other = page if not target else page.parent / target
        headings = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
        assert fragment in map(anchor, headings), f"{target}#{fragment}"


SOURCE = ("benchmarks", "datasets", "methods", "tests")
TOPS = (*SOURCE, ".ci", "docs", "findings", "results")
ROOMS = [ROOT, *(folder for top in SOURCE for folder in (ROOT / top, *(ROOT / top).rglob("*/")))]
ELSEWHERE = {
    "docs/add_a_dataset.md": {"flat.py"},  # examples of these pages
    "docs/add_a_method.md": {"word_sum.py"},
    "docs/your_scores.md": {"evaluate.py", "test.py", "code/test.py", "MSCI/code/test_base.py"},  # of released codes
}
"""Source files that pages name and that are not of this repository."""


def paths_named(page: Path) -> list[str]:
    """What a page has between backticks that is a path in the repository: below one of its folders, or source code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    words = [word for word in re.findall(r"`([^`\n]+)`", text) if not re.search(r"\s|://|^path/", word)]
    elsewhere = ELSEWHERE.get(str(page.relative_to(ROOT)), set())
    return [
        word
        for word in words
        if word not in elsewhere
        # A folder of another name, such as `report/`, may be one of a user's.
        and (word.endswith((".py", ".toml", ".sh")) or ("/" in word and word.split("/")[0] in TOPS))
    ]


def is_there(path: str, page: Path) -> bool:
    """Whether a path is that of something in the repository: from its root, the page or a room; bare names anywhere.

    What stands for something else, such as `<method>`, is anything.
    """
    pattern = re.sub(r"<[^>]*>", "*", path.rstrip("/"))
    return any(next(room.glob(pattern), None) is not None for room in (page.parent, *ROOMS))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_documents_are_there(page):
    assert [path for path in paths_named(page) if not is_there(path, page)] == []


def test_paths_that_are_not_there_are_found():
    """The kinds of names that pages have, and what became of some that moved."""
    page = ROOT / "docs/faq.md"
    for path in ("bench.py", "running/plan.py", "scoring.py", "tests/golden", "presets/*.toml", "presets/<name>.toml"):
        assert is_there(path, page), path
    for path in ("evaluation.py", "tests/benchmarks", "running/evaluation.py", "presets/*.json", "methods/<x>.toml"):
        assert not is_there(path, page), path
    assert sum(len(paths_named(page)) for page in PAGES) > 100


def methods_in(text: str) -> set[str]:
    """The suite's methods that a text names, in whatever way they are written."""
    plain = re.sub(r"[ _\n]", "-", text.lower())
    own = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("methods.")]
    return {name for name in own if re.search(rf"(?<!\w){name.replace('_', '-')}(?!\w)", plain)}


def between(page: str, start: str, end: str) -> str:
    """The text of a page after some words and before others."""
    _, found, rest = (ROOT / page).read_text().partition(start)
    assert found and end in rest, (page, start, end)
    return rest.partition(end)[0]


def test_pages_name_the_methods_whose_checkpoints_are_read():
    assert methods_in(between("docs/faq.md", "of a released code?**", ":")) == set(FORMS)
    assert methods_in(between("docs/your_checkpoints.md", "the released code of", "saved")) == set(FORMS)
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/your_checkpoints.md").read_text(), re.MULTILINE)
    assert set(rows) == set(FORMS)


def test_pages_name_the_methods_whose_images_influence_each_other(toy):
    every = methods_in(" ".join(METHODS.names()))
    mixing, trained = set(), {name for name in every if METHODS.get(name).info.trains}
    for name in every:
        method_class = METHODS.get(name)
        config = method_class.Config.model_validate(resolve(name, method_class.Config, "icon_states").method)
        if mixes_images(method_class(make_backbone(), toy.vocabulary, config)):
            mixing.add(name)
    assert methods_in(between("docs/faults.md", "(BatchNorm in", ")")) == mixing
    assert methods_in(between("docs/faq.md", "It does for", ", whose\nBatchNorm")) == mixing
    assert methods_in(between("docs/faq.md", "change results?** Not for", ", up to rounding")) == trained - mixing


def test_the_page_of_the_feature_cache_names_every_method():
    table = between("docs/feature_cache.md", "| | what is kept of an image |", "\n\n")
    first = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
    assert methods_in(first) == methods_in(" ".join(METHODS.names()))


def commands(page: Path) -> list[list[str]]:
    """The command lines of a page that call this project, from indented blocks and code in text, as words."""
    text = re.sub(r"```python\n.*?```", "", page.read_text(), flags=re.DOTALL)
    blocks = re.findall(r"^(?: {4}|\$ )(.*\S.*)$", text, re.MULTILINE)
    lines = [line for block in blocks for line in re.split(r" && | \|\| ", block)]
    lines += [" ".join(code.split()) for code in re.findall(r"`(python [^`]+)`", text)]
    words = [shlex.split(line, comments=True) for line in lines if re.match(r"(srun )?(torchrun|python) ", line)]
    return [line[1:] if line[0] == "srun" else line for line in words]


EXAMPLES = sorted(
    path for path in (*ROOT.glob("*.py"), *(path for top in SOURCE[:-1] for path in (ROOT / top).rglob("*.py")))
    if ">>> " in path.read_text()
)  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_docstrings_are_true(path, monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed


def test_commands_in_documents_are_understood():
    """Each is parsed as the command line parses it, options and kinds of values; nothing is run."""
    import typer

    from benchmarks.commands.app import app
    from benchmarks.commands.argv import plain_flags, spread_lists

    group = typer.main.get_command(app)
    seen = 0
    for page in PAGES:
        for line in commands(page):
            if "bench.py" in line:
                arguments = spread_lists(plain_flags(line[line.index("bench.py") + 1 :]))
                command = group
                while arguments and hasattr(command, "commands"):
                    name, *arguments = arguments
                    assert name in command.commands, f"{page.name}: {line}"
                    command = command.commands[name]
                try:
                    command.make_context(command.name, list(arguments))
                except Exception as error:
                    if arguments or type(error).__name__ != "MissingParameter":  # else it is only spoken of
                        raise AssertionError(f"{page.name}: {shlex.join(line)}: {error}") from error
                seen += 1
            elif line[:2] == ["python", "-m"] and line[2].split(".")[0] in ("benchmarks", "datasets", "methods"):
                assert importlib.util.find_spec(line[2]) is not None, f"{page.name}: {line}"
                seen += 1
            elif line[0] == "python" and line[1].endswith(".py"):
                assert (ROOT / line[1]).is_file(), f"{page.name}: {line}"
                seen += 1
    assert seen > 80


def example(page: str, heading: str = "") -> str:
    """The first Python block of a page, after a heading if one is given."""
    text = (ROOT / page).read_text()
    code = re.search(r"```python\n(.*?)```", text[text.index(heading) :], re.DOTALL).group(1)
    assert code.count("\n") < 60
    return code


def test_the_example_method_runs_as_a_plugin(tmp_path):
    (tmp_path / "word_sum.py").write_text(example("docs/add_a_method.md"))
    (tmp_path / "toy.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from pathlib import Path\nfrom toy_world import make_toy\nfrom registry import DATASETS\n"
        f"DATASETS.register('toy')(lambda: make_toy(Path({str(tmp_path / 'data')!r})))\n"
    )
    command = ["run", "--plugin", "word_sum.py", "toy.py", "--dataset", "toy"]
    command += ["--methods", "word_sum", "--set", "word_sum.lr=1e-3", "word_sum.balance=0.4", "--epochs", "2"]
    done = here(*command, cwd=tmp_path)
    assert "Word sum" in done.stdout
    result = json.loads(next(tmp_path.glob("results/word_sum-*/result.json")).read_text())
    assert result["cost"]["trained_parameters"] == 8 * 128 + 1


def test_the_table_of_sizes_is_what_the_pair_lists_and_the_readers_say():
    names = ("mit_states", "ut_zappos", "cgqa", "vaw_czsl")
    sizes = {name: {size.name: size for size in about(name).sizes} for name in names}
    page = (ROOT / "docs/datasets.md").read_text()
    rows = re.findall(r"^\|(.*?)\| (published|from the lists) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 21
    head = ""
    for first, kind, cells in rows:
        head = first.strip() or head
        for name, cell in zip(names, cells.split(" | "), strict=True):
            size = sizes[name].get(head)
            value = None if size is None else size.published if kind == "published" else size.shipped
            assert cell == ("-" if value is None else f"{value:,}"), (head, kind, name)


def test_the_example_reader_runs_as_a_plugin(tmp_path):
    (tmp_path / "flat.py").write_text(example("docs/add_a_dataset.md", "## A reader of your own"))
    command = ["run", "--plugin", "flat.py", "--dataset", "flat", "--methods", "csp", "--epochs", "1"]
    empty = here(*command, cwd=tmp_path, check=False)
    assert (empty.returncode, empty.stderr.count("The data set 'flat' has no images.")) == (2, 1)
    toy = make_toy(tmp_path / "toy")
    (tmp_path / "flat_images").mkdir()
    for phase, split in toy.splits.items():
        for number, name in enumerate(split.images):
            state, obj = name.partition("/")[0].split("_")
            shutil.copy(toy.image_path(phase, number), tmp_path / f"flat_images/{phase}-{state}-{obj}-{number}.png")
    here(*command, cwd=tmp_path)
    result = json.loads(next(tmp_path.glob("results/csp-flat-*/result.json")).read_text())
    assert result["counts"]["test_candidates"] == 14
