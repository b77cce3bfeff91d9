"""The data sets that finished runs were judged on, as far as they lie on this machine, for names and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.report.scored_runs import Scored
from benchmarks.runs.records import RunRecord
from datasets.base import CompositionDataset
from errors import UserError
from registry import DATASETS


class Library:
    """Data sets by the names of runs, each read once; what cannot be read is remembered too. known: read already."""

    def __init__(self, known: Mapping[str, CompositionDataset] | None = None) -> None:
        self._found: dict[str, CompositionDataset | UserError] = dict(known or {})

    def dataset(self, run: RunRecord) -> CompositionDataset:
        """Return a run's data set. One that is not here, or is another release or selection of it, is a `UserError`.

        Nothing is downloaded and nothing rendered for a picture's sake.
        """
        name = run.spec.dataset
        if name not in self._found:
            try:
                self._found[name] = _load(name)
            except UserError as error:
                self._found[name] = error
        found = self._found[name]
        if isinstance(found, UserError):
            raise found
        if found.digest != run.spec.dataset_digest:
            raise UserError(
                f"The images of {run.run_id} cannot be shown.",
                f"{name} here has the digest {found.digest[:12]}, the run's had {run.spec.dataset_digest[:12]}.",
                "Make the report where the run's data set lies.",
            )
        return found

    def named(self, scored: Scored) -> Scored:
        """Return a per-image record with its words: one from before names were kept takes them from the data set."""
        if scored.images:
            return scored
        try:
            dataset = self.dataset(scored.run)
        except UserError:
            return scored
        words = dataset.vocabulary
        return replace(scored, states=words.states, objects=words.objects, images=dataset.splits["test"].images)


def _load(name: str) -> CompositionDataset:
    from datasets import icon_states

    if name == "icon_states" and not icon_states.is_rendered():
        raise UserError(
            "The images of icon_states cannot be shown.",
            "The data set is not rendered on this machine.",
            "Run python bench.py data check icon_states, which renders it, then make the report again.",
        )
    return DATASETS.get(name)()
