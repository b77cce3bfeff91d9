"""A finished run's method again, with its trained weights, to score images or to look inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.runs.places import load_backbone_of
from benchmarks.runs.records import RunRecord
from datasets.base import Vocabulary
from datasets.streams import derived_seed
from errors import UserError
from registry import METHODS

if TYPE_CHECKING:
    import torch

    from methods.base import Method


def load_method(run: RunRecord, vocabulary: Vocabulary, device: torch.device | str = "cpu") -> Method:
    """Return the method of a finished run with the weights of its selected epoch, ready to score as in its final test.

    vocabulary: of the run's data set. A run that is not done, weights that are missing or do not fit, or a backbone
    whose weights are not there or not the run's are a `UserError`.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from benchmarks.runs.checkpoints import BEST

    asked = f"The method of {run.run_id} cannot be loaded."
    if run.spec.external is not None:
        raise UserError(asked, "Its scores came from a file, without a network.", "Choose a run of a method.")
    if run.result is None:
        raise UserError(asked, f"The run is {run.status}, not done.", "Finish it with bench.py run.")
    spec = run.spec
    method_class = METHODS.get(spec.method)
    _, backbone = load_backbone_of(run, asked)
    config = method_class.Config.model_validate(spec.method_config)
    with torch.random.fork_rng(devices=[]):
        # What a method draws at first and does not train is not in the checkpoint, and follows from the seed.
        torch.manual_seed(derived_seed("init", spec.seed))
        method = method_class(backbone.to(device), vocabulary, config).to(device)
    if method.info.trains and spec.has_weights:
        path = run.path / BEST
        try:
            method.load_checkpoint(load_file(path))
        except FileNotFoundError as error:
            raise UserError(
                asked, f"Its folder has no {BEST}: only the record was kept.", "Run it again with --on-existing redo."
            ) from error
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(
                asked, f"Reading {path} gives: {error}.", "Restore the file, or run it again with --on-existing redo."
            ) from error
    method.on_final_evaluation()
    return method.eval()
