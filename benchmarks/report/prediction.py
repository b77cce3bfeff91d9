"""The pairs that a finished run sees in new images.

A run's folder is enough: it keeps the words, the candidates of its test and which of them its open world kept. Neither
the data set nor its images are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.report.finished import load_method
from benchmarks.report.scored_runs import phase_arrays, validation_bias
from benchmarks.runs.records import RunFolder, RunRecord
from datasets.base import Candidates, Vocabulary
from datasets.own.walking import images_below
from datasets.pictures import UnreadablePicture, read_picture
from errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 32  # images at once


@dataclass(frozen=True)
class Guess:
    """A candidate of an image. score: with the bias in it where the pair is unseen, on the method's own scale.

    probability: the softmax of all candidates' scores, bias included.
    """

    state: str
    object: str
    seen: bool
    score: float
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The best candidates of an image, best first."""

    image: Path
    guesses: tuple[Guess, ...]


def image_files(paths: Sequence[Path], notify: Callable[[str], None] = lambda message: None) -> list[Path]:
    """Return the images among files and folders, those of a folder sorted; nothing there is a `UserError`.

    notify: told what a folder holds that is left out, by the rule of `datasets.own.walking`, which is that of own data.
    """
    found: list[Path] = []
    said: list[str] = []
    for path in paths:
        if path.is_dir():
            below = images_below(path)
            found += below.images
            said += [f"{path}: {sentence}" for sentence in below.sentences()]
        else:
            found.append(path)
    if not found:
        raise UserError(
            f"There is no image in {', '.join(map(str, paths))}.",
            " ".join(said) or "An image has an ending such as .jpg or .png.",
            "Pass images or a folder of images.",
        )
    for sentence in said:
        notify(sentence)
    return found


def image_views(files: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> Iterator[list[Tensor]]:
    """Yield the transformed pictures of files, `BATCH` at once, upright by their EXIF data.

    One picture at a time is held at its full size. Those that cannot be read are all named in one `UserError`: from the
    first of them on nothing is yielded any more, and the other files are only tried.
    """
    views: list[Tensor] = []
    broken: list[str] = []
    for file in files:
        try:
            picture = read_picture(file, turned=True)
        except UnreadablePicture as error:
            broken.append(f"{file} ({error})")
        if broken:
            continue
        views.append(transform(picture))
        if len(views) == BATCH:
            yield views
            views = []
    if broken:
        raise UserError(
            f"{len(broken)} of the {len(files)} images cannot be read.", f"{'; '.join(broken)}.", "Leave them out."
        )
    if views:
        yield views


def candidates_of(run: RunRecord) -> tuple[Candidates, np.ndarray]:
    """Return the candidates of a run's test, and which of them its open world kept, bool [P]."""
    arrays = RunFolder(run.path).read_arrays()
    own = phase_arrays(arrays, "test")
    if "names.states" not in arrays or "candidate_pairs" not in own:
        raise UserError(
            f"The run {run.run_id} cannot predict.",
            "Its record is from before the names of states and objects were kept.",
            "Run it again with --on-existing redo.",
        )
    vocabulary = Vocabulary(tuple(arrays["names.states"].tolist()), tuple(arrays["names.objects"].tolist()))
    candidates = Candidates(vocabulary, own["candidate_pairs"], own["candidate_seen"], run.spec.world)
    return candidates, own.get("candidate_kept", np.ones(len(candidates), dtype=bool))


def bias_of(run: RunRecord, wish: str) -> float:
    """Return the bias for unseen pairs: "validation" is the run's own, "none" is 0, anything else a number.

    Where validation chose none, "validation" is 0 as well, which `bias_note` says.
    """
    if wish == "validation":
        return float(np.nan_to_num(validation_bias(run)))
    try:
        bias = 0.0 if wish == "none" else float(wish)
    except ValueError:
        bias = np.nan
    if not np.isfinite(bias):
        raise UserError(f"'{wish}' is no bias.", "It is added to unseen scores.", "Pass validation, none or a number.")
    return bias


def bias_note(run: RunRecord, wish: str) -> str:
    """Return what a user should know of the bias, "" where it is what was asked for."""
    if wish != "validation" or not np.isnan(validation_bias(run)):
        return ""
    reason = run.finished.selection.no_bias or "validation has seen or unseen images alone"
    return (
        f"No bias was chosen on validation, because {reason}: nothing is added to unseen pairs. "
        "Pass --bias with a number to make them likelier."
    )


def predict(
    run: RunRecord, paths: Sequence[Path], *, bias: str = "validation", top: int = 5, device: Any = "cpu"
) -> list[Prediction]:
    """Return the `top` pairs of each image (files and folders) by a finished run.

    Pairs that the run's open world removed are no candidates. Everything that stands in the way is a `UserError`.
    """
    if run.result is None:
        raise UserError(
            f"The run {run.run_id} cannot predict.", f"It is {run.status}, not done.", "Finish it with bench.py run."
        )
    shift = bias_of(run, bias)
    files = image_files(paths)
    candidates, kept = candidates_of(run)
    guesses: list[tuple[Guess, ...]] = []
    for part in score_images(run, candidates, files, device):
        guesses += _best(part + shift * ~candidates.seen, candidates, kept, top)
    return [Prediction(file, own) for file, own in zip(files, guesses, strict=True)]


def _best(scores: np.ndarray, candidates: Candidates, kept: np.ndarray, top: int) -> list[tuple[Guess, ...]]:
    """Return the `top` kept candidates of each row of scores [n, P] with the bias in them, best first."""
    scores[:, ~kept] = -np.inf
    log_total = np.logaddexp.reduce(scores, axis=1)
    names = candidates.names()
    return [
        tuple(
            Guess(names[c][0], names[c][1], bool(candidates.seen[c]), float(row[c]), float(np.exp(row[c] - total)))
            for c in np.argsort(-row, kind="stable")[: min(top, int(kept.sum()))]
        )
        for row, total in zip(scores, log_total, strict=True)
    ]


def score_images(
    run: RunRecord, candidates: Candidates, files: Sequence[Path], device: Any = "cpu"
) -> Iterator[np.ndarray]:
    """Yield a run's scores of images against candidates, float64 [n, P], as its evaluation makes them.

    Batch by batch, so that memory does not grow with the number of images.
    """
    import torch

    from benchmarks.evaluation.scoring import chunk_scores, evaluation_mode
    from datasets.transforms import build_transform
    from methods.base import Batch

    method = load_method(run, candidates.vocabulary, device)
    backbone = method.backbone
    transform = build_transform(backbone.image_size, backbone.image_mean, backbone.image_std, resizing=method.resizing)
    with torch.inference_mode(), evaluation_mode(method):
        prepared = method.prepare(candidates)
    for views in image_views(files, transform):
        with torch.inference_mode(), evaluation_mode(method):  # left before the caller goes on
            images = torch.stack(views).to(device)
            unknown = torch.full((len(images),), -1, device=images.device)  # nobody knows their labels
            batch = method.encode(Batch(unknown, unknown, unknown, images=images))
            parts = chunk_scores(method, batch, prepared, len(candidates))
            scores = torch.cat([part.float().cpu() for _, part in parts], dim=1).double().numpy()
        yield scores
