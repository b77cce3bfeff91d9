"""`result.json`: written by training, read by reports, significance and commands, documented in results/README.md.

One class per object of the file. A key that a record lacks, because its release did not write it, is None here and
stays absent when the record is written again; what a later release added is passed over.

A docstring's lines "name: meaning" are the rows of results/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.runs import files
from benchmarks.runs.number_types import Number
from benchmarks.runs.numbers import (
    Calibration,
    ErrorKinds,
    LegacyHeadline,
    LegacyMetrics,
    MacroAccuracies,
    Metrics,
    SliceAccuracies,
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Selection(_Part):
    """Which epoch counts, and the bias that validation chose.

    policy: the rule that was asked for, or "nothing to select"
    epoch: the epoch, from 0; null where nothing was trained
    value: what the rule gave for it; null where nothing was trained
    bias: of the best harmonic mean on validation; null where it chose none
    chosen_by: the rule that stood in for the policy, where one did
    reason: why it did
    no_bias: why no bias was chosen, where none was
    """

    policy: str
    epoch: int | None
    value: Number | None
    bias: Number
    chosen_by: str | None = None
    reason: str | None = None
    no_bias: str | None = None


class PhaseMetrics(_Part):
    """The exact metrics by split.

    val: of validation
    test: of test, with the bias chosen on validation
    """

    val: Metrics | None = None
    test: Metrics


class Kept(_Part):
    """Unseen pairs that the threshold keeps, each as [kept, all].

    pairs: of all states x objects
    val_pairs: of those that validation lists
    test_pairs: of those that test lists
    """

    pairs: tuple[int, int]
    val_pairs: tuple[int, int]
    test_pairs: tuple[int, int]


class UnseenCap(_Part):
    """Share of a split's unseen images whose pair is kept; no more of them can be right.

    val: of validation
    test: of test
    """

    val: Number
    test: Number


class OpenWorldResult(_Part):
    """The open world under its threshold, where one removes pairs.

    feasibility: where the feasibility scores come from
    feasibility_digest: of their table
    masking: how pairs below the threshold are removed, "clean" or "official"
    selection_world: the world that the epoch was selected in
    threshold: the one in force
    searched: whether validation chose it
    chosen_by: by what it is chosen where it is searched
    grid: thresholds that were tried
    val_aucs: what validation gave for each
    kept: unseen pairs that it keeps
    unseen_cap: share of unseen images whose pair it keeps
    """

    feasibility: str
    feasibility_digest: str | None
    masking: str
    selection_world: str
    threshold: Number
    searched: bool
    chosen_by: str
    grid: Sequence[Number]
    val_aucs: Sequence[Number]
    kept: Kept
    unseen_cap: UnseenCap


class Legacy(_Part):
    """The published 20-point sweep by split.

    test: of test
    """

    test: LegacyMetrics | LegacyHeadline


class Counts(_Part):
    """How many images and candidate pairs there were.

    train_images, val_images, test_images: images of each split
    train_candidates, val_candidates, test_candidates: candidates of each
    """

    train_images: int | None = None
    val_images: int | None = None
    test_images: int
    train_candidates: int | None = None
    val_candidates: int | None = None
    test_candidates: int | None = None


class Cost(_Part):
    """What the run took.

    trained_parameters: numbers that were trained; null where the scores came from a file
    train_seconds: training without validation
    train_images_per_second: null where nothing was trained
    test_seconds: scoring the test images
    test_images_per_second: null where that took no time
    peak_memory_bytes: of the accelerator, or on the CPU of the whole process up to then; null where nothing tells it
    micro_batch: images that went through a training step at once; null where nothing was trained
    eval_batch: images that were scored at once
    feature_cache: splits whose frozen features were kept
    feature_seconds: making these
    compiled: whether the training step was compiled
    """

    trained_parameters: int | None
    train_seconds: Number
    train_images_per_second: Number | None
    test_seconds: Number | None = None
    test_images_per_second: Number | None
    peak_memory_bytes: int | None
    micro_batch: int | None = None
    eval_batch: int | None = None
    feature_cache: Sequence[str] | None = None
    feature_seconds: Number | None = None
    compiled: bool | None = None


class Result(_Part):
    """What a finished run says.

    run_id: name of the run
    selection: the epoch and the bias that count
    metrics: exact metrics of validation and test
    open_world: the open world, where a threshold removes pairs
    legacy: the published sweep
    slices: test accuracies by the tags of images
    errors: kinds of errors on unseen test images, at the bias
    macro: test accuracies in which every pair counts the same, at the bias
    calibration: confidence against accuracy on test, at the bias
    counts: images and candidates
    left_out_images: names of images that the splits list and that were missing, where some were
    cost: parameters, time, memory
    """

    run_id: str
    selection: Selection
    metrics: PhaseMetrics
    open_world: OpenWorldResult | None = None
    legacy: Legacy | None = None
    slices: Sequence[SliceAccuracies]
    errors: ErrorKinds | None = None
    macro: MacroAccuracies | None = None
    calibration: Calibration | None = None
    counts: Counts
    left_out_images: Sequence[str] | None = None
    cost: Cost

    def content(self) -> dict[str, Any]:
        """Return what is written, in the order of the classes; what was not given is left out."""
        return self.model_dump(exclude_unset=True)


AROUND = {
    "schema_version": "version of the record's files; another release may read others",
    "not_finite": 'what JSON has no number for and a null stands in for, by dotted place: "nan", "inf", "-inf"',
}
"""What the file holds besides the fields of `Result`."""


def result_of(content: Mapping[str, Any], path: Path) -> Result:
    """Return the result that a file holds; a field that is absent or wrong is a `UserError` that names it."""
    try:
        return Result.model_validate(files.with_all_numbers(content))
    except (ValidationError, TypeError, ValueError, AttributeError) as error:
        raise files.incomplete(path, error) from error
