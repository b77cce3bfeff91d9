"""Options that a dataclass declares."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import pytest
import typer
from in_process import here
from typer.testing import CliRunner

from benchmarks.commands.app import app
from benchmarks.commands.options import Wanted, World, spread
from benchmarks.launchers.job import Job
from benchmarks.running.choices import Choices, How
from errors import UserError


@dataclass(frozen=True)
class Wider(How):
    """One option more, declared where it would be."""

    threads: int = field(default=1, metadata={"help": "Threads of each process.", "min": 1})
    pinned_memory: bool = field(default=True, metadata={"help": "Pin memory.", "name": "--pin"})


def test_a_field_more_is_an_option_more():
    app, seen = typer.Typer(), []

    @app.command()
    @spread
    def act(*, how: Wider, often: Annotated[int, typer.Option(help="Times.")] = 1) -> None:
        """Act."""
        seen.append((how, often))

    def ask(*words: str) -> int:
        return CliRunner().invoke(app, words).exit_code

    assert ask() == ask("--threads", "3", "--no-pin", "--compile", "--often", "2") == 0
    assert seen == [(Wider(), 1), (Wider(threads=3, pinned_memory=False, compiled=True), 2)]
    assert ask("--threads", "0") == 2
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "Threads of each process." in said and "--no-pin" in said and "Act." in said


def test_run_has_an_option_for_each_field_of_how_and_jobs_hold_them():
    run = typer.main.get_command(app).commands["run"]
    options = {parameter.name: parameter for parameter in run.params}
    for one in fields(How):
        assert options[one.name].default == one.default and options[one.name].help == one.metadata["help"]
    assert Job.model_fields["how"].annotation is How and Choices().how == How()


def test_what_is_wanted_becomes_requests_and_choices(tmp_path):
    wanted = Wanted(methods=["csp"], seeds=[0, 7], worlds=[World.open], epochs=2, set_=["csp.lr=1"])
    requests = wanted.requests("quick")
    assert [(one.method, one.seed, one.world) for one in requests] == [("csp", 0, "open"), ("csp", 7, "open")]
    assert wanted.choices(tmp_path) == Choices(results=tmp_path, epochs=2, overrides=("csp.lr=1",))
    assert len(replace(wanted, methods=["all"], seeds=None).requests("quick")) > 5


@pytest.mark.parametrize("option", ["--compile", "--epochs=1", "--precision=fp32"])
def test_an_option_that_a_job_decides_is_called_as_it_was_given(option, tmp_path):
    job = tmp_path / "job.json"
    job.write_text(made_job(tmp_path))
    done = here("run", "--spec", job, option, check=False)
    assert done.returncode == 2
    assert f"The option {option.split('=')[0]} does not go with --spec" in " ".join(done.stderr.split())


def made_job(folder) -> str:
    """A job as a launcher writes it."""
    from benchmarks.launchers.job import job_of
    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench

    choices = Wanted(methods=["clip_zero_shot"]).choices(folder)
    (planned,) = plan_runs(Wanted(methods=["clip_zero_shot"]).requests("quick"), Workbench(choices))
    return job_of(planned, choices, (), ()).model_dump_json()


def test_a_configuration_of_weights_goes_with_the_backbone():
    wanted = Wanted(methods=["csp"], backbone="ViT-B-32/w.pt", backbone_config=Path("c.json"))
    assert {request.backbone for request in wanted.requests("quick")} == {"ViT-B-32/w.pt::c.json"}
    with pytest.raises(UserError, match=r"'c.json' was given without the weights"):
        Wanted(backbone_config=Path("c.json")).requests("quick")
