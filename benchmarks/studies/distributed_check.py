"""How far several processes that make one run are from one process that makes it: the figures of docs/distributed.md.

    python -m benchmarks.studies.distributed_check --methods csp dfsp troika msci

Each method is run twice with its settings, dropout and all: by one process and by several. Compared are the gradients
of the first optimizer step, the trained tensors at the end, and the test metrics. --apart lets BatchNorm see each
process's share alone, to show what it is for that it sees them all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.records import RunFolder
from benchmarks.runs.suites import Suite, expand
from benchmarks.studies.program import program
from benchmarks.training import batch_norm, distributed
from benchmarks.training.processes import launch
from registry import load_plugin

SEEN = "seen.safetensors"


@dataclass(frozen=True)
class Difference:
    """What lies between two runs of a method. gradient: largest difference of an entry in the first step's gradient,
    relative to its largest entry. moved: how far the trained tensors are apart, relative to how far they moved (L2
    norms), over the entries whose first gradient was above a 10,000th of the largest: Adam moves an entry without a
    gradient by whole steps in the direction of rounding errors. tensor: largest difference of any entry. loss: of the
    last epoch. auc, hm: on test."""

    method: str
    gradient: float
    moved: float
    tensor: float
    loss: float
    auc: float
    hm: float


def observe(arguments: argparse.Namespace, results: Path) -> None:
    """Run the methods in this group of processes, and keep the start and the first gradients beside the records."""
    for path in arguments.plugin:
        load_plugin(path)
    if arguments.apart:
        setattr(batch_norm, "_BatchNorm", ())  # noqa: B010  # no module is one of these
        setattr(distributed.Group, "check_equal", lambda *_: None)  # noqa: B010  # running statistics differ then
    choices = Choices(
        results, overrides=arguments.set, epochs=arguments.epochs, precision="fp32", how=How(device="cpu")
    )
    workbench = Workbench(choices)
    suite = Suite(methods=tuple(arguments.methods), datasets=(arguments.dataset,))
    trained: list[torch.nn.Parameter] = []
    seen: dict[str, Tensor] = {}

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not trained:
            every = (parameter for group in optimizer.param_groups for parameter in group["params"])
            trained.extend(parameter for parameter in every if parameter.grad is not None)
            gradients = (parameter.grad for parameter in trained)
            seen["gradient"] = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
            seen["start"] = torch.cat([parameter.detach().flatten() for parameter in trained])

    hook = register_optimizer_step_pre_hook(keep)
    for planned in plan_runs(expand(suite), workbench):
        trained.clear()
        execute(planned, workbench)
        if workbench.group.leads:
            seen["end"] = torch.cat([parameter.detach().flatten() for parameter in trained])
            save_file(seen, planned.folder.path / SEEN)
    hook.remove()
    workbench.group.close()


def compare(one: Path, several: Path) -> list[Difference]:
    """Return the differences of all runs in two results folders, by method."""
    found = []
    for folder in sorted(path.parent for path in one.glob(f"*/{SEEN}")):
        pair = [RunFolder(root / folder.name).read() for root in (one, several)]
        seen = [load_file(run.path / SEEN) for run in pair]
        tests = [run.finished.metrics.test for run in pair]
        losses = [run.epochs[-1]["losses"]["total"] for run in pair]
        if not torch.equal(seen[0]["start"], seen[1]["start"]):
            raise RuntimeError(f"{folder.name}: the runs did not start from the same tensors")
        gradients, ends = ([values[name].double() for values in seen] for name in ("gradient", "end"))
        real = gradients[0].abs() > 1e-4 * gradients[0].abs().max()
        moved = (ends[0] - seen[0]["start"].double())[real].norm()
        found.append(
            Difference(
                method=pair[0].spec.method,
                gradient=float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()),
                moved=float((ends[0] - ends[1])[real].norm() / moved),
                tensor=float((ends[0] - ends[1]).abs().max()),
                loss=abs(losses[0] - losses[1]),
                auc=abs(tests[0].auc - tests[1].auc),
                hm=abs(tests[0].best_hm - tests[1].best_hm),
            )
        )
    return found


@program
def main() -> None:
    """Make the runs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["csp", "dfsp", "troika", "msci"])
    parser.add_argument("--dataset", default="icon_states")
    parser.add_argument("--devices", type=int, default=2, help="processes that make one run")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], help="settings, as in 'bench.py run --set'")
    parser.add_argument("--plugin", nargs="+", default=[], help="Python files that register methods or data")
    parser.add_argument("--apart", action="store_true", help="BatchNorm with the statistics of each share")
    parser.add_argument("--results", type=Path, help="keep the records here")
    parser.add_argument("--observe", type=Path, help=argparse.SUPPRESS)  # what the processes are started with
    arguments = parser.parse_args()
    if arguments.observe is not None:
        observe(arguments, arguments.observe)
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.results or Path(scratch)
        for count, folder in ((1, root / "one"), (arguments.devices, root / "several")):
            module = "benchmarks.studies.distributed_check"
            command = [sys.executable, "-m", module, *sys.argv[1:], "--observe", str(folder)]
            if code := launch(count, command):
                sys.exit(code)
        print("| method | gradient | tensors, relative | tensors | loss | AUC | HM |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for row in compare(root / "one", root / "several"):
            numbers = (row.gradient, row.moved, row.tensor, row.loss, row.auc, row.hm)
            print(f"| {row.method} | {' | '.join(f'{number:.1e}' for number in numbers)} |")


if __name__ == "__main__":
    main()
