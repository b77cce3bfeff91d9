"""Validation scores of the selected epoch are made once, and are those that would be made again."""

from __future__ import annotations

import numpy as np
import pytest
from toy_runs import CPU, make_backbone, make_trainer, numbers

from benchmarks.training.kept_scores import KeptScores
from methods.csp import CSP, CSPConfig
from methods.troika import Troika


def outcome(trainer):
    """What a run gives, without its cost, and its arrays."""
    return numbers(trainer.run()), trainer.folder.read_arrays()


def same(ours, theirs):
    assert ours[0] == theirs[0] and ours[1].keys() == theirs[1].keys()
    assert all(np.array_equal(ours[1][name], theirs[1][name]) for name in ours[1])


def configured(method, **settings):
    return CSPConfig(dropout=0.3) if method is CSP else method.Config(**settings)


@pytest.mark.parametrize(
    ("method", "settings", "found"),
    [(CSP, {}, 1), (Troika, {}, 1), (Troika, {"test_score_weights": (0.1, 0.9, 0.9)}, 0)],
)
def test_the_selected_epochs_scores_are_those_that_would_be_made_again(
    tmp_path, toy, monkeypatch, method, settings, found
):
    def trainer(name):
        config = configured(method, **settings)
        return make_trainer(tmp_path / name, toy, make_backbone(), method=method, config=config, epochs=2)

    saving = trainer("saving")
    kept = outcome(saving)
    assert saving.kept.found == found and len(saving.kept.kept) == 3 - found
    monkeypatch.setattr(KeptScores, "get", lambda self, method, world, batch, make: make()[0])
    again = trainer("again")
    same(kept, outcome(again))
    assert again.kept.found == 0


def test_other_weights_batches_and_hooks_are_other_scores(tmp_path, toy):
    trainer = make_trainer(tmp_path, toy, make_backbone())
    method, kept, made = trainer.method, KeptScores(), []

    def make():
        made.append(0)
        return len(made), CPU.eval_batch

    assert [kept.get(method, "closed", CPU.eval_batch, make) for _ in range(2)] == [1, 1]
    few = kept.get(method, "closed", 3, lambda: ("of three", 3))
    assert few == "of three", "fewer images at once round otherwise"
    tensor = next(iter(method.trained().values()))
    before = tensor.detach().clone()
    tensor.data += 1
    assert kept.get(method, "closed", CPU.eval_batch, make) == 2
    tensor.data.copy_(before)
    method.on_final_evaluation()
    assert kept.get(method, "closed", CPU.eval_batch, make) == 1

    class Changing(CSP):
        """Does at the end what nobody has put into words."""

        def on_final_evaluation(self):
            self.eval()

    method.__class__ = Changing
    assert [kept.get(method, "closed", CPU.eval_batch, make) for _ in range(2)] == [3, 4]
