"""Where MSCI's prompts look: attention of the predicted pair's prompt over patches, in the local and global stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from benchmarks.report.images import Library
from benchmarks.report.scored_runs import Scored
from benchmarks.report.style import SMALLEST, WIDTH, new, words
from datasets.streams import stream
from errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.report.rescoring import Loaded

SHOWN = 4  # images
METHOD = "msci"


@dataclass(frozen=True, eq=False)
class Maps:
    """Attention over the patches of n images, by stage: float64 [n, side, side], 1 where a patch gets its even share.

    class_token: the same of the token that stands for no place, [n]. views: what the network saw, [n, H, W, 3].
    columns: the predicted pairs.
    """

    patches: Mapping[str, np.ndarray]
    class_token: Mapping[str, np.ndarray]
    views: np.ndarray
    columns: np.ndarray


def choose(scored: Scored) -> list[int]:
    """Return the test images shown: of `SHOWN` pairs drawn from a named stream one image each, right or wrong."""
    labels = scored.labels
    pairs, of_image = np.unique(np.stack([labels.states, labels.objects], axis=1), axis=0, return_inverse=True)
    rng = stream("figures", "attention", scored.run.spec.dataset)
    drawn = rng.choice(len(pairs), min(SHOWN, len(pairs)), replace=False)
    return sorted(int(rng.choice(np.flatnonzero(of_image.reshape(-1) == pair))) for pair in drawn)


def maps(loaded: Loaded, rows: Sequence[int], bias: float) -> Maps:
    """Return the attention of the prompt of each image's predicted pair: last layer of each stage, mean over heads.

    `UserError` if the run has neither stage (its ablation took them away) or no branch for pairs.
    """
    import torch

    from methods.msci import MSCI

    method = cast(MSCI, loaded.method)
    columns = loaded.top(rows, bias, 1)[:, 0]
    with torch.inference_mode():
        prepared = method.prepare(loaded.dataset.candidates("test", loaded.run.spec.world))
        batch = method.encode(loaded.batch(rows))
        memories = method.memories(batch.encoded)
        if "pair" not in memories or (method.stage_1 is None and method.stage_2 is None):
            raise UserError(
                "MSCI's attention cannot be shown.",
                f"{loaded.run.run_id} has no stage that reads the image for pairs.",
                "Run the full model.",
            )
        text = prepared.tensors["pair"][torch.as_tensor(columns, device=loaded.device)]
        found = method.attention(text, memories["pair"])
    patches, class_token = {}, {}
    for stage, layers in found.items():
        weights = layers[-1].double().mean(dim=1).diagonal(dim1=0, dim2=1).T.cpu().numpy()  # [n, T], own prompt
        weights = weights * weights.shape[1]
        side = math.isqrt(weights.shape[1] - 1)
        patches[stage] = weights[:, 1:].reshape(len(rows), side, side)
        class_token[stage] = weights[:, 0]
    backbone = method.backbone
    pixels = batch_images(loaded, rows) * np.asarray(backbone.image_std) + np.asarray(backbone.image_mean)
    return Maps(patches, class_token, pixels.clip(0, 1), columns)


def batch_images(loaded: Loaded, rows: Sequence[int]) -> np.ndarray:
    """Return the normalised views of test images, float [n, H, W, 3]."""
    images = loaded.batch(rows).images
    assert images is not None
    return images.permute(0, 2, 3, 1).cpu().numpy()


def attention(scored: Scored, library: Library) -> tuple[Figure, str]:
    """Return the figure and what its caption says; `UserError` without checkpoint, data set or images."""
    from benchmarks.report.rescoring import load

    dataset = library.dataset(scored.run)
    rows = choose(scored)
    found = maps(load(scored.run, dataset), rows, scored.bias)
    states, objects, labels = dataset.vocabulary.states, dataset.vocabulary.objects, scored.labels
    texts = []
    for row, column in zip(rows, found.columns, strict=True):
        truth = f"{states[labels.states[row]]} {objects[labels.objects[row]]}"
        said = f"{states[labels.candidate_states[column]]} {objects[labels.candidate_objects[column]]}"
        texts.append(f"{truth} ✓" if said == truth else f"{truth}, taken for {said}")
    said = (
        f"Seed {scored.run.spec.seed}; an image each of {len(rows)} test pairs drawn at random (stream "
        f"'figures/attention/{scored.run.spec.dataset}'), whether right or wrong. Prompt of the pair predicted at the "
        "bias chosen on validation, mean over heads, last layer of each stage. 1: as much as if all tokens got the "
        "same. Each stage has its own scale. Share of the class token, which stands for no place: "
        + "; ".join(f"{stage} {_range(values)}" for stage, values in found.class_token.items())
        + "."
    )
    return _draw(found, texts), said


def _range(values: np.ndarray) -> str:
    return f"{values.min():.2g} to {values.max():.2g}"


def _draw(found: Maps, texts: Sequence[str]) -> Figure:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, NullLocator

    stages = list(found.patches)
    columns, images = 1 + len(stages), len(texts)
    bar_height = 0.06
    figure, grid = new(
        (images + bar_height) * (WIDTH / columns + 0.1) + 0.4, WIDTH, nrows=images + 1, ncols=columns, squeeze=False,
        height_ratios=[1] * images + [bar_height],
    )  # fmt: skip
    extent = (0, found.views.shape[2], found.views.shape[1], 0)
    for axes in (*grid[:-1].flat, grid[-1, 0]):
        axes.set_axis_off()
    for line, view, text in zip(grid, found.views, texts, strict=False):
        line[0].imshow(view, interpolation="none", extent=extent)
        for axes in line:
            axes.set_title(" ", fontsize=SMALLEST)  # so that a row's pictures stay level
        said = line[0].text(0, 1.04, words(text, 96), transform=line[0].transAxes, fontsize=SMALLEST)
        said.set_in_layout(False)
    for place, stage in enumerate(stages, start=1):
        values = found.patches[stage]
        # Around 1, as far up as down, so that the middle of the scale is an even share.
        reach = max(values.max(), 1 / values.min(), 1.05)
        norm = LogNorm(1 / reach, reach)
        for axes, view, shown in zip(grid[:-1, place], found.views, values, strict=True):
            grey = view @ (0.299, 0.587, 0.114)
            axes.imshow(grey, cmap="gray", vmin=-0.6, vmax=1.4, interpolation="none", extent=extent)
            image = axes.imshow(shown, cmap="PuOr_r", norm=norm, alpha=0.6, interpolation="none", extent=extent)
        bar = figure.colorbar(image, cax=grid[-1, place], orientation="horizontal")
        step = math.sqrt(reach)
        bar.set_ticks([1 / step, 1, step])
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
        bar.ax.xaxis.set_minor_locator(NullLocator())
        bar.set_label(f"{stage} stage", fontsize=SMALLEST)
    return figure
