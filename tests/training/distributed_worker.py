"""What the two processes in test_distributed.py do: train and score together, and compare with doing it alone.

Every process also does the run of one process by itself, so that it can judge; an assertion that fails ends the launch.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from toy_runs import CPU, Killed, make_backbone, make_trainer, numbers, without_times
from toy_world import make_toy

from benchmarks.runs.checkpoints import BEST
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.records import RunFolder
from benchmarks.training import loop as training
from benchmarks.training.distributed import ALONE, Group, start_group
from errors import UserError
from methods.base import Method
from methods.caila import CAILA
from methods.cams import CAMS, CAMSConfig
from methods.csp import CSP, CSPConfig
from methods.dfsp import DFSP, DFSPConfig
from methods.msci import MSCI, MSCIConfig
from methods.parts.caila_settings import CAILAConfig
from methods.refiner_style import RefinerStyle, RefinerStyleConfig
from methods.troika import Troika, TroikaConfig
from methods.vp_cmjl import VPCMJL, VPCMJLConfig

ONE_IMAGE_LEFT = {"batch_size": 47}  # of 48: then one process has the last image, and the other none
CASES = {
    "csp": (CSP, CSPConfig(), {"batch_size": 20, "micro_batch": 10}),
    "dfsp": (DFSP, DFSPConfig(), {"batch_size": 19, "augmentation": "none"}),
    "dfsp_i2t": (DFSP, DFSPConfig(fusion="i2t"), {"batch_size": 20}),
    "troika": (Troika, TroikaConfig(), ONE_IMAGE_LEFT),
    "msci": (MSCI, MSCIConfig(fusion="gated"), ONE_IMAGE_LEFT | {"clip_norm": 0.1}),
    "refiner_style": (RefinerStyle, RefinerStyleConfig(map_noise=0.01), {"batch_size": 23}),
    "caila": (CAILA, CAILAConfig(shift=0.5), {"batch_size": 20, "micro_batch": 5}),
    "cams": (CAMS, CAMSConfig(), {"batch_size": 23}),
    "vp_cmjl": (VPCMJL, VPCMJLConfig(), ONE_IMAGE_LEFT),
}


class WithDropout(CSP):
    """A method with torch's dropout on what belongs to each image."""

    def __init__(self, *options: object) -> None:
        super().__init__(*options)
        self.drop = torch.nn.Dropout(0.1)


class DrawsInTraining(CSP):
    """The same without a module."""

    def training_loss(self, batch, candidates):
        loss = super().training_loss(batch, candidates)
        torch.nn.functional.dropout(loss.total, 0.1)
        return loss


class Watch:
    """Keeps the gradients of the first optimizer step by name, as they come to it."""

    def __init__(self, method: Method) -> None:
        self.names = {id(weight): name for name, weight in method.trained().items()}

    def __enter__(self) -> Watch:
        self.gradients = {}
        self.hook = register_optimizer_step_pre_hook(self._keep)
        return self

    def _keep(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not self.gradients:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            self.gradients = {self.names[id(w)]: w.grad.clone() for w in weights if w.grad is not None}

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


class Bench:
    """Makes trainers that belong to a group, or that are alone in a folder of their own."""

    def __init__(self, root: Path, group: Group) -> None:
        self.root, self.group = root, group
        with group.leader_first():
            self.toy = make_toy(root / "toy")
        self.backbone = make_backbone()

    def trainer(self, name: str, group: Group, toy=None, **options):
        """Return a trainer of a group, in a folder that all its processes share."""
        own = self.root / f"own-{self.group.rank}" / name
        folder = own if group is ALONE else self.root / name
        execution = dataclasses.replace(CPU, group=group)
        made = make_trainer(
            folder if group.leads else own / "idle",
            toy or self.toy,
            copy.deepcopy(self.backbone),
            execution=execution,
            **options,
        )
        made.folder = group.folder(RunFolder(folder))
        group.barrier()
        return made

    def same_numbers(self, name: str) -> None:
        """Two processes: the gradients, the tensors and the records of one, up to rounding."""
        method, config, settings = CASES[name]
        seen = []
        for group in (ALONE, self.group):
            made = self.trainer(name, group, method=method, config=config, **{"epochs": 1, "lr": 1e-4} | settings)
            made.method.rows_at_once = 100  # several chunks, each with dropout
            made.method.backbone.recompute = name == "troika"
            start = {key: value.clone() for key, value in made.method.checkpoint().items()}
            with Watch(made.method) as watch:
                result = made.run()
            group.barrier()
            seen.append((watch.gradients, made, result, start))
        (one, alone, expected, start), (two, together, found, _) = seen
        largest = max(gradient.abs().max() for gradient in one.values())
        first, second = alone.method.checkpoint(), together.method.checkpoint()
        for key in start:
            if key not in one:  # statistics of BatchNorm
                assert torch.allclose(first[key], second[key], rtol=1e-5, atol=1e-6), key
                continue
            assert (one[key] - two[key]).abs().max() < 2e-6 * largest, f"gradient of {key} in the first step"
            # Adam moves an entry without a gradient (the bias of keys) by a step in the direction of rounding errors.
            real = one[key].abs() > 1e-4 * largest
            moved = (first[key] - start[key])[real].norm()
            assert (first[key] - second[key])[real].norm() <= 5e-3 * moved, key
        for before, after in zip(alone.folder.epochs(), together.folder.epochs(), strict=True):
            assert all(
                np.isclose(before["losses"][term], after["losses"][term], rtol=1e-5) for term in before["losses"]
            )
        assert abs(expected.metrics.test.auc - found.metrics.test.auc) < 1e-3
        assert found.counts == expected.counts

    def same_scores(self) -> None:
        """The same weights give the same scores bit for bit, with thresholds too: evaluation batches stay whole."""
        candidates = self.toy.candidates("val", "open")
        table = np.random.default_rng(0).normal(size=(4, 4))
        toy = dataclasses.replace(self.toy, feasibility=table.astype(np.float32))
        world = OpenWorld(feasibility="clip", threshold="search")
        assert len(candidates) == 16
        for name, spec in (("closed", {}), ("open", {"world": "open", "open_world": world})):
            scores = []
            for group in (ALONE, self.group):
                made = self.trainer(f"scores-{name}", group, toy, method=DFSP, config=DFSPConfig())
                made.spec = made.spec.model_copy(update=spec)
                made = training.Trainer(made.spec, made.folder, made.method, toy, made.execution)
                scores.append((made.score("val")[0], made.score("test")[0], made.validation_loss()))
            for one, two in zip(*(found[:2] for found in scores), strict=True):
                for key, values in one.to_arrays().items():
                    assert np.array_equal(values, two.to_arrays()[key]), (name, key)
            assert scores[0][2] == scores[1][2]

    def resumes(self) -> None:
        """A run of two processes that was stopped and started again ends as one that was not, bit for bit."""

        def stopping(what: str, done: int, total: int, note: str) -> None:
            if what == "epoch 2 of 3" and done > 20:
                raise Killed

        options = {"method": Troika, "config": TroikaConfig(), "epochs": 3, "batch_size": 20}
        whole = self.trainer("whole", self.group, **options)
        expected = numbers(whole.run())
        try:
            self.trainer("stopped", self.group, **options, report=stopping).run()
        except Killed:
            pass
        else:
            raise AssertionError("nothing stopped it")
        again = self.trainer("stopped", self.group, **options)
        assert numbers(again.run()) == expected
        assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())
        pair = [self.root / name / BEST for name in ("whole", "stopped")]
        assert pair[0].read_bytes() == pair[1].read_bytes()

    def refuses(self) -> None:
        """What cannot be shared, and processes that do not agree, are told in words."""
        mixing = DFSPConfig(fusion="i2t", layout="released")
        cases = (
            ("mixes the images of a batch", {"method": DFSP, "config": mixing}),
            ("Each of them needs an image", {"batch_size": 1}),
            ("its module 'drop' (Dropout) draws random numbers for itself", {"method": WithDropout}),
            ("(bernoulli_) draws random numbers for itself", {"method": DrawsInTraining}),
        )
        for number, (words, options) in enumerate(cases):
            try:
                self.trainer(f"refused-{number}", self.group, **options).run()
            except UserError as error:
                assert words in str(error), error
            else:
                raise AssertionError(f"not refused: {words}")
        assert self.group.agree([("run", f"by {self.group.rank}")]) == ["by 0"], "the first process decides"
        try:
            self.group.agree([(f"run {self.group.rank}", "run")])
        except UserError as error:
            assert "do not plan the same runs" in str(error)
        else:
            raise AssertionError("different plans went through")
        try:
            self.group.check_equal({"weight": torch.tensor([float(self.group.rank)])})
        except RuntimeError as error:
            assert "drifted apart" in str(error)
        else:
            raise AssertionError("different tensors went through")


def main(root: Path) -> None:
    """Do all of it."""
    group = start_group(torch.device("cpu"))
    assert group.size == 2
    bench = Bench(root, group)
    for name in CASES:
        bench.same_numbers(name)
    bench.same_scores()
    bench.resumes()
    bench.refuses()
    group.close()
