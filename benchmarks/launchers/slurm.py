"""Runs as a job array of a SLURM cluster, through submitit. Each job does one training.

Data and weights are prepared before the jobs are submitted, because compute nodes often have no network. The cache
(CZSL_HOME) and the results must therefore lie on a file system that the nodes share.

A job that SLURM pre-empts, or whose time ends, saves its run, queues itself again and goes on from there. What became
of a run is read from its record: SLURM is only asked what is in the queue, never its accounting (sacct).
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.launchers import launched
from benchmarks.launchers.base import PLACE, Launcher, LaunchOptions, Watch, name_of
from benchmarks.launchers.job import JOB, job_of, write_jobs
from benchmarks.launchers.slurm_job import RunJob
from benchmarks.launchers.slurm_queue import ask, in_queue
from benchmarks.launchers.slurm_settings import judge, parameters, refusal
from benchmarks.running.joint import together
from benchmarks.runs.environment import PROJECT
from benchmarks.training import stopping
from errors import UserError

if TYPE_CHECKING:
    from submitit import SlurmExecutor

    from benchmarks.running.choices import Choices
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench

REQUEUES = 20  # times that a job which used up its time is queued again; pre-emptions are not counted


class Slurm(Launcher):
    """Submits and returns."""

    name = "slurm"
    waits = False

    def __init__(self, options: LaunchOptions) -> None:
        super().__init__(options)
        self.parameters = parameters(options.settings)
        if importlib.util.find_spec("submitit") is None:
            raise UserError(
                "The launcher slurm needs submitit.",
                "It is not installed.",
                'Install it from this checkout: pip install -e ".[slurm]".',
            )

    def choices(self, choices: Choices) -> Choices:
        """Return the choices for the device of the compute nodes; what cannot be known from here must be said."""
        more = self.parameters.get("additional_parameters", {})
        wanted = any(key in self.parameters for key in ("gpus_per_node", "gres")) or any(
            key.startswith("gpus") or "gpu" in str(more[key]) for key in more if key.startswith(("gpus", "tres"))
        )
        device = choices.how.device if choices.how.device != "auto" else "cuda" if wanted else "cpu"
        if device.startswith("cuda") and choices.precision == "auto":
            raise UserError(
                "The precision of these runs cannot be chosen here.",
                "It is part of their identity, and what the GPUs of the compute nodes can do is not known.",
                "Pass --precision bf16, fp16 or fp32.",
            )
        return replace(choices, how=replace(choices.how, device=device), elsewhere=True)

    def launch(self, planned: Sequence[PlannedRun], workbench: Workbench, watch: Watch) -> int:
        """See `Launcher.launch`."""
        root = workbench.choices.results
        if shutil.which("sbatch") is None:
            there = "The command sbatch is not found."
            raise UserError("There is no SLURM here.", there, "Submit from a login node of the cluster.")
        with launched.handing_out(root):
            todo, held = launched.free(planned, root, watch)
            if not todo:
                return 3 if held else 0
            groups = together(todo)
            judge(self._script(root, len(groups)))  # before anything is written
            about = (workbench.choices, self.options.plugins, self.options.command_line)
            for runs in groups:
                write_jobs(runs, lambda item: job_of(item, *about))
            folders = [[str(item.folder.path.resolve()) for item in runs] for runs in groups]
            with stopping.deferred():  # what is in the queue is noted
                jobs = self._submit(root, [RunJob(*own) for own in folders])
                numbers = [(item, number) for runs, number in zip(groups, jobs, strict=True) for item in runs]
                for item, number in numbers:
                    launched.note(item.folder.path, self.name, number)
            stopping.check()
        for item, number in numbers:
            watch.submitted(name_of(item), f"SLURM job {number}")
        return 3 if held else 0

    def preview(self, planned: Sequence[PlannedRun], workbench: Workbench) -> list[str]:
        """See `Launcher.preview`: the script that sbatch would get, and what each job does. No SLURM is needed here."""
        root = workbench.choices.results
        todo = launched.unclaimed(planned, root)
        if not todo:
            return []
        firsts = [runs[0] for runs in together(todo)]
        script = self._script(root, len(firsts))
        tasks = [f"{n}: python bench.py run --spec {item.folder.path / JOB}" for n, item in enumerate(firsts)]
        what = "one job" if len(firsts) == 1 else f"an array of {len(firsts)} jobs"
        note = judge(script)
        shown = [f"SLURM: {what}; sbatch would get", *script.rstrip().splitlines(), "", "and the jobs would do", *tasks]
        return [*shown, note] if note else shown

    def _script(self, root: Path, jobs: int) -> str:
        """Return the script that sbatch gets for so many jobs."""
        executor = self._executor(root)
        if jobs > 1:
            executor.parameters["map_count"] = jobs  # as submitit does it itself for an array
        return executor._make_submission_file_text(executor._submitit_command_str, "")

    def _submit(self, root: Path, jobs: Sequence[RunJob]) -> list[str]:
        """Submit jobs, as an array where there are several, and return their numbers."""
        import submitit

        executor = self._executor(root)
        try:
            with executor.batch():
                handed = [executor.submit(job) for job in jobs]
        except (submitit.core.utils.FailedJobError, OSError) as error:
            said = " ".join(line for line in str(error).splitlines() if "sbatch:" in line) or str(error)
            raise refusal(said) from error
        return [job.job_id for job in handed]

    def _executor(self, root: Path) -> SlurmExecutor:
        """Return submitit's executor with all that the jobs are asked for."""
        import submitit

        class Executor(submitit.SlurmExecutor):
            """Can be made where there is no SLURM, to show what would be submitted."""

            @classmethod
            def affinity(cls) -> int:
                return 1

        executor = Executor(folder=(root / PLACE / "slurm").resolve(), max_num_timeout=REQUEUES)
        more = {"requeue": True, **self.parameters.get("additional_parameters", {})}  # whatever the site's default is
        setup = [*environment(), *self.parameters.get("setup", ())]
        own: dict[str, Any] = {"setup": setup, "additional_parameters": more}
        if self.options.parallel is not None:
            own["array_parallelism"] = self.options.parallel
        executor.update_parameters(**{"job_name": "czsl"} | self.parameters | own)
        return executor

    @classmethod
    def alive(cls, root: Path, jobs: Collection[str]) -> Mapping[str, str]:
        """Return the jobs in SLURM's queue, with their state in its words."""
        queue = in_queue({job.partition("_")[0] for job in jobs})
        return {job: queue[job] for job in jobs if job in queue}

    @classmethod
    def cancel(cls, root: Path, job: str) -> None:
        """Take a job out of the queue, or have it save its run and end."""
        ask("scancel", job)


def environment() -> list[str]:
    """Return shell lines by which a job finds this project, its caches and plugins as this process does."""
    lines = [f"export PYTHONPATH={shlex.quote(str(PROJECT))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    kept = ("CZSL_HOME", "CZSL_DATA")
    return lines + [f"export {name}={shlex.quote(os.environ[name])}" for name in kept if os.environ.get(name)]
