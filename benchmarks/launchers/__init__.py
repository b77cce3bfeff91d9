"""Launchers: who does a list of runs. Here at once, in processes of this machine, or as jobs of a SLURM cluster.

The unit of work of all is `python bench.py run --spec FILE` (`job.py`); a run's folder and its lock say what became of
it, whoever did it. Another package registers a launcher of its own through the entry points `czsl_bench.launchers`.
Nothing here imports torch.
"""

from registry import LAUNCHERS

LAUNCHERS.add("inline", "benchmarks.launchers.inline:Inline", title="one run after the other, in this process")
LAUNCHERS.add(
    "local", "benchmarks.launchers.local:Local", title="processes of this machine, side by side: one per GPU or core"
)
LAUNCHERS.add("slurm", "benchmarks.launchers.slurm:Slurm", title="a job array of a SLURM cluster, through submitit")
