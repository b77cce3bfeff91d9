"""Pretraining of the committed models on rendered icons; resumable and seeded.

    python -m benchmarks.studies.tiny_clip.pretrain --steps 1300 --batch 96
    python -m benchmarks.studies.tiny_clip.pretrain --model tiny-icons-siglip --steps 1800

In the first stages the vision tower learns from plain class labels (`pretrain_data.STAGES`), after that from captions
(`model.py` has the losses). Only the token rows that captions use are trained; the rest of the 49,408 keep what they
start as.

Stopped at any time it goes on from the last checkpoint (`--work`), with the same numbers as an unbroken run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.studies.program import program
from benchmarks.studies.tiny_clip import pretrain_data as data
from benchmarks.studies.tiny_clip.model import (
    FOLDER,
    LabelHead,
    TrainedText,
    accuracies,
    build,
    caption_losses,
    losses,
    save,
    to_input,
)
from datasets import cache
from datasets.icons.render import stream
from methods.offers import COMMITTED, TINY

if TYPE_CHECKING:
    from open_clip import CLIP


TOKEN_TABLE = "token_embedding.weight"
_FREE = ("embedding", "pos_embed", "latent")


def stage_of(step: int, steps: int) -> int:
    """Return the curriculum stage of a step."""
    done = 0.0
    for stage, stretch in enumerate(data.STAGES):
        done += stretch.share
        if step < done * steps:
            return stage
    return len(data.STAGES) - 1


class Pools:
    """The images that each step draws from. A pool never straddles two stages, so that each holds one look."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.per_pool = max(1, round(options.pool * options.reuse / options.batch))
        self._key = -1
        self._loaded: tuple[np.ndarray, ...] = ()

    def at(self, step: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (stage, images, pairs, held-out images, their pairs) of a step, rendered when first asked for."""
        options = self.options
        stage = stage_of(step, options.steps)
        key = step // self.per_pool * 10 + stage
        if key != self._key:
            folder, seed = options.work / "pools", options.seed
            shown = data.render_pool(folder, seed, key, stage, options.pool)
            held = data.render_pool(folder, seed, 10**6 + stage, stage, options.held)
            self._key, self._loaded = key, (*shown, *held)
        shown_images, shown_pairs, held_images, held_pairs = self._loaded
        return stage, shown_images, shown_pairs, held_images, held_pairs


def optimizer_for(model: CLIP, text: TrainedText, head: LabelHead, lr: float, decay: float) -> torch.optim.AdamW:
    """Return AdamW; gains, biases, positions, token rows, a pooling's query and the scale are not decayed."""
    named = {n: p for n, p in model.named_parameters() if not n.endswith(TOKEN_TABLE)} | {"rows": text.rows}
    matrices = {n for n, p in named.items() if p.ndim >= 2 and n != "rows" and not any(part in n for part in _FREE)}
    decayed = [p for n, p in named.items() if n in matrices]
    free = [p for n, p in named.items() if n not in matrices]
    free += list(head.parameters())
    groups = [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def relearn_text(
    model: CLIP,
    text: TrainedText,
    name: str,
    seed: int,
    images: np.ndarray,
    pairs: np.ndarray,
    steps: int,
    batch: int = 256,
) -> TrainedText:
    """Train a fresh text tower against the locked image tower (LiT, Zhai et al., CVPR 2022) and return it.

    Its captions come from the uneven speaker, so that it knows some words well and others hardly: the weakness of a
    real CLIP that prompt learning mends. The model's own text tower and scale are replaced. It takes a minute and is
    not checkpointed: after an interruption it is done again, with the same numbers.
    """
    fresh, _, _ = build(seed, name)
    own = {name: value for name, value in fresh.state_dict().items() if not name.startswith("visual.")}
    model.load_state_dict(own, strict=False)
    text = TrainedText(model, text.tokenizer, text.context)
    with torch.no_grad():
        parts = [model.encode_image(to_input(images[at : at + 250], None)) for at in range(0, len(images), 250)]
    features = functional.normalize(torch.cat(parts), dim=-1)
    trained = [p for n, p in model.named_parameters() if n in own and not n.endswith(TOKEN_TABLE)] + [text.rows]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    speaker = data.uneven_speaker(seed)
    for step in range(steps):
        rng = stream("pretrain", seed, "text step", step)
        rows = rng.choice(len(features), size=min(batch, len(features)), replace=False)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 1e-3)
        terms = caption_losses(text, features[torch.from_numpy(rows)], pairs[rows], rng, speaker)
        optimizer.zero_grad(set_to_none=True)
        terms.sum().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100.0))
    return text


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 4 % of the steps, then a half cosine to 2 % of the peak."""
    warm = max(1, round(0.04 * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


@program
def main() -> None:
    """Run or resume a pretraining."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=COMMITTED, default=TINY)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--pool", type=int, default=20000, help="images rendered at a time")
    parser.add_argument("--held", type=int, default=1000, help="fresh images for the logged accuracies")
    parser.add_argument("--reuse", type=float, default=4.0, help="times each image is shown, shifted anew")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--text-steps", type=int, default=300, help="steps of the text tower, the image tower locked")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--work", type=Path, default=cache.home() / "pretrain")
    parser.add_argument("--out", type=Path, help="of the weights; default: beside the model's definition")
    options = parser.parse_args()
    out = options.out or FOLDER / f"{options.model}.safetensors"
    options.work.mkdir(parents=True, exist_ok=True)
    model, text, head = build(options.seed, options.model)
    optimizer = optimizer_for(model, text, head, options.lr, options.weight_decay)
    own = "" if options.model == TINY else f"-{options.model}"  # pools of images are shared
    checkpoint, log = options.work / f"checkpoint{own}.pt", options.work / f"log{own}.jsonl"
    first, spent = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        text.rows.data.copy_(state["rows"])
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["step"], state["seconds"]
        print(f"resumed at step {first}", flush=True)
    pools, speaker = Pools(options), data.even_speaker()
    for step in range(first, options.steps):
        start = time.perf_counter()
        stage, images, pairs, held, held_pairs = pools.at(step)
        rng = stream("pretrain", options.seed, "step", step)
        rows = np.sort(rng.choice(len(images), size=options.batch, replace=False))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        batch = to_input(images[rows], rng)
        terms = losses(text, head, data.STAGES[stage], batch, pairs[rows], rng, speaker)
        optimizer.zero_grad(set_to_none=True)
        terms.sum().backward()
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100.0))
        spent += time.perf_counter() - start
        done = step + 1
        if done % options.checkpoint_every == 0 or done == options.steps:
            found = accuracies(model, text, held, held_pairs)
            line = {
                "step": done,
                "stage": stage,
                "seconds": round(spent, 1),
                "losses": [round(v, 3) for v in terms.tolist()],
            }
            line |= {name: round(value, 4) for name, value in found.items()}
            print(json.dumps(line), flush=True)
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            state = {"model": model.state_dict(), "rows": text.rows.data, "optimizer": optimizer.state_dict()}
            state["head"] = head.state_dict()
            torch.save(state | {"step": done, "seconds": spent}, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    start = time.perf_counter()
    _, images, pairs, held, held_pairs = pools.at(options.steps - 1)
    text = relearn_text(model, text, options.model, options.seed, images, pairs, options.text_steps)
    spent += time.perf_counter() - start
    print(json.dumps({"text_steps": options.text_steps} | accuracies(model, text, held, held_pairs)), flush=True)
    meta = {
        "seed": str(options.seed),
        "steps": str(options.steps),
        "text_steps": str(options.text_steps),
        "batch": str(options.batch),
        "minutes": f"{spent / 60:.1f}",
    }
    save(model, text, out, meta)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", flush=True)


if __name__ == "__main__":
    main()
