"""What one build does when it is told to: a program of this checkout that imports everything else from another.

    python benchmarks/studies/against/child.py '{"root": "/path/of/a/checkout", "kind": "step", "method": "csp", ...}'

It prepares its work, prints one line of JSON when it is ready, and then does a round for each line "go" on standard
input and prints what it measured. So two builds wait side by side, and only the one that is told to computes. Of the
other build it uses only what a method, a data set and the cost of methods are asked by; it imports nothing of its own
package, because that belongs to this checkout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

Round = Callable[[], dict[str, float]]
"""Does the work once and returns what was measured, by name."""


def pin(cores: list[int]) -> bool:
    """Keep this process to some cores; return whether the system can."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, cores)
    return True


class Problem:
    """A method with random weights and the label space, at the sizes of the job.

    candidates: of the training split, and of the test with `job["candidates"]` of them where the lists have more pairs
    than the split's own, as the released codes have it (MIT-States: 1,962).
    """

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        from benchmarks.cost.counting import backbone_name, build
        from benchmarks.cost.labels import label_space
        from benchmarks.running.process import deterministic
        from registry import BACKBONES

        self.job = job
        deterministic()
        labels = label_space(job["labels"])
        dataset = labels.dataset
        self.backbone = BACKBONES.get(backbone_name(job["backbone"]))()
        torch.manual_seed(0)
        self.method, training = build(job["method"], self.backbone, labels)
        self.training = training.model_copy(update={"batch_size": job["batch"], "micro_batch": None})
        self.train = dataset.candidates("train")
        every = dict.fromkeys((*dataset.train_pairs, *dataset.test_pairs, *dataset.val_pairs))
        self.test = replace(dataset, test_pairs=tuple(every)).candidates("test")

    def batch(self, candidates: Any) -> Any:
        """Return a batch of noise, each image of one of the candidates."""
        from benchmarks.cost.timing import random_batch

        return random_batch(self.backbone, candidates, self.job["batch"], 0)


def step(job: dict[str, Any], before: int) -> Round:
    """Optimizer steps of a method on one batch, and the largest memory so far."""
    import torch

    from benchmarks.training.execution import Execution
    from benchmarks.training.optimizers import make_optimizer
    from benchmarks.training.steps import Stepper

    problem = Problem(job)
    method, training = problem.method, problem.training
    execution = Execution(torch.device("cpu"), job["precision"], compiled=job["compiled"])
    method.train()
    optimizer, _ = make_optimizer(method, training)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    said: list[str] = []
    stepper = Stepper(method, training, execution, problem.train, optimizer, scaler, said.append)
    batch = problem.batch(problem.train)

    def measured() -> dict[str, float]:
        seconds, cpu = timed(lambda: stepper.step(batch, "measurement"))
        if said:
            raise RuntimeError(said[0])
        return {"step": seconds, "step cpu": cpu, "step memory": largest() - before}

    return measured


def evaluation(job: dict[str, Any], before: int) -> Round:
    """The text of all candidates, and the scores of a batch of images against them."""
    import torch

    from benchmarks.evaluation.scoring import score_images
    from benchmarks.training.execution import Execution

    problem = Problem(job)
    method, test, images = problem.method.eval(), problem.test, job["batch"]
    batch = replace(problem.batch(test), pairs=torch.full((images,), -1))
    execution = Execution(torch.device("cpu"), job["precision"])

    def measured() -> dict[str, float]:
        with execution.autocast(), torch.inference_mode():
            forget()
            prepared: list[Any] = []
            text, text_cpu = timed(lambda: prepared.append(method.prepare(test)))
            with_text = largest() - before
            forget()
            scoring, cpu = timed(
                lambda: score_images(method, [batch], test, pair_chunk=execution.pair_chunk, prepared=prepared[0])
            )
        return {
            "image": scoring / images,
            "image cpu": cpu / images,
            "image with text": (scoring + text) / images,
            "image with text cpu": (cpu + text_cpu) / images,
            "image memory": largest() - before,
            "text memory": with_text,
        }

    return measured


KINDS = {"step": step, "evaluation": evaluation}


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that `work` takes, and those that this process computed meanwhile."""
    start, computed = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - computed


def forget() -> int:
    """Forget the largest memory so far and return what is in use, bytes; 0 where the system does not tell."""
    from benchmarks.cost.peak import reset_peak

    try:
        return reset_peak("cpu")
    except OSError:
        return 0


def largest() -> int:
    """Return the largest memory since `forget`, bytes."""
    from benchmarks.cost.peak import peak

    try:
        return peak("cpu")
    except OSError:
        return 0


def main() -> None:
    """Do the job of the command line, a round for each line of standard input."""
    job = json.loads(sys.argv[1])
    sys.path[0] = job["root"]  # instead of this file's folder
    pinned = pin(job["cores"])
    import torch

    torch.set_num_threads(job["threads"])
    import benchmarks
    from benchmarks.cost import timing  # noqa: F401  # so that importing it is not counted as memory of the work

    if Path(benchmarks.__file__ or "").resolve().parents[1] != Path(job["root"]).resolve():
        sys.exit(f"the modules come from {benchmarks.__file__}, not from {job['root']}")
    one = KINDS[job["kind"]](job, forget())
    print(json.dumps({"pinned": pinned, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        if line.strip() != "go":
            break
        print(json.dumps(one()), flush=True)


if __name__ == "__main__":
    main()
