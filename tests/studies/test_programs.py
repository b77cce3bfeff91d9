"""Every study ends alike where its user made a mistake, and knows before it computes whether it can write."""

import ast
import importlib
from pathlib import Path

import pytest

from benchmarks.runs import files
from benchmarks.studies import counted_costs, gpu_hours, scaling
from benchmarks.studies.program import page_with, program
from errors import UserError

ROOT = Path(__file__).parents[2]
CHILDREN = {"benchmarks.studies.against.child"}
"""Started by another study, never by hand."""


def programs() -> dict[str, ast.FunctionDef]:
    """The `main` of every module of the studies that has one, by the module's name."""
    found = {}
    for path in sorted((ROOT / "benchmarks/studies").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == "main":
                found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = node
    return found


def test_every_study_tells_a_users_mistake_alike():
    found = programs()
    assert len(found) > 15 and found.keys() >= CHILDREN
    plain = {
        name
        for name, main in found.items()
        if not any(isinstance(one, ast.Name) and one.id == "program" for one in main.decorator_list)
    }
    assert plain == CHILDREN, "decorate main with benchmarks.studies.program.program"


def test_a_mistake_is_a_line_on_standard_error_and_exit_code_2(capsys):
    @program
    def main(asked: str, *, there: str) -> None:
        raise UserError(asked, there, "Do this.")

    with pytest.raises(SystemExit) as ended:
        main("No such thing.", there="There is another.")
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.err == "Error: No such thing. There is another. Do this.\n" and not said.out


def test_errors_of_our_own_keep_their_traceback():
    @program
    def main() -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        main()


@pytest.mark.parametrize("text", ["", "A\nB\n", "END then START", "START", "START START END", None])
def test_a_document_without_the_place_is_refused_and_stays_as_it_is(tmp_path, text):
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(UserError, match=r"page\.md' (has no place|cannot be read)"):
        page_with("START", "END")(str(page))
    with pytest.raises(UserError, match=r"page\.md"):
        files.put_between(page, "START", "END", "new")
    assert (page.read_text() if page.exists() else None) == text


def test_text_goes_between_the_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("END before\nSTART\nold\nEND\nafter END\n")
    assert page_with("START", "END")(str(page)) == page
    files.put_between(page, "START", "END", "new")
    assert page.read_text() == "END before\nSTART\nnew\nEND\nafter END\n"


@pytest.mark.parametrize("module", [counted_costs, gpu_hours, scaling])
def test_a_study_refuses_a_document_before_it_computes(tmp_path, monkeypatch, capsys, module):
    (tmp_path / "page.md").write_text("no marks")
    monkeypatch.setattr("sys.argv", ["study", "--update", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(module.__name__).main()
    assert "has no place for what is made" in capsys.readouterr().err


@pytest.mark.parametrize("module", [counted_costs, gpu_hours])
def test_a_study_refuses_an_unknown_method_before_it_computes(monkeypatch, capsys, module):
    monkeypatch.setattr("sys.argv", ["study", "--methods", "csp", "mcsi"])
    with pytest.raises(SystemExit, match="2"):
        module.main()
    said = capsys.readouterr()
    assert "'msci'" in said.err and not said.out
