"""Pretraining of the tiny CLIP (`tiny-icons`) on rendered icons; resumable and seeded.

    python -m benchmarks.studies.tiny_clip.pretrain --steps 1300 --batch 96

In the first stages the vision tower learns from plain class labels (`pretrain_data.STAGES`). After that the loss of a
batch is the sum of three image-to-text cross-entropies (CLIP, Radford et al. 2021, with several positives as in Khosla
et al. 2020): against the batch's own captions, where all captions of the image's pair count as right; against one
caption for each object; and against one for each state. The first is taken both ways. Only the token rows that captions
use are trained; the rest of the 49,408 keep their initial values.

Stopped at any time it goes on from the last checkpoint (`--work`), with the same numbers as an unbroken run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.tiny_clip import pretrain_data as data
from datasets import cache
from datasets.icons.render import stream
from methods.backbone.clip import OPENAI_MEAN, OPENAI_STD

if TYPE_CHECKING:
    from open_clip import CLIP

CONFIG = Path(__file__).parents[3] / "methods/backbone/tiny-icons.json"
# At open_clip's own scale a patch's content is six times as long as its position, and a silhouette is nothing but which
# patch is where: objects are learnt several times faster when both weigh alike (docs/tiny_clip.md).
POSITION_SCALE = 15.0


class TrainedText(nn.Module):
    """The text tower over the token rows in use. Captions in, features [K, d] out."""

    def __init__(self, model: CLIP, tokenizer: Any, context: int) -> None:
        super().__init__()
        self.model: CLIP
        self.lookup: Tensor
        self.model, self.tokenizer, self.context = model, tokenizer, context
        used = torch.unique(tokenizer(data.every_caption(), context_length=context))
        self.register_buffer("used", used)
        lookup = torch.full((model.vocab_size,), -1)
        lookup[used] = torch.arange(len(used))
        self.register_buffer("lookup", lookup)
        self.rows = nn.Parameter(model.token_embedding.weight.detach()[used].clone())
        self._ids: dict[str, Tensor] = {}

    def forward(self, captions: list[str]) -> Tensor:
        for caption in captions:
            if caption not in self._ids:
                self._ids[caption] = self.tokenizer([caption], context_length=self.context)[0]
        ids = torch.stack([self._ids[caption] for caption in captions])
        length = int(ids.argmax(dim=1).max()) + 1
        ids, model = ids[:, :length], self.model
        x = self.rows[self.lookup[ids]] + model.positional_embedding[:length]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
        return x[torch.arange(len(x)), ids.argmax(dim=1)] @ model.text_projection

    def write_rows(self) -> None:
        """Put the trained rows back into the model's token table."""
        with torch.no_grad():
            self.model.token_embedding.weight[self.used] = self.rows


class LabelHead(nn.Module):
    """One learned vector per state and per object, in place of captions. Features [B, d] in, losses [2] out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, len(data.STATE_WORDS) + len(data.OBJECT_WORDS))
        nn.init.normal_(self.classes.weight, std=0.05)

    def forward(self, features: Tensor, pairs: Tensor) -> Tensor:
        logits = self.classes(features * 12.0)
        states, things = logits.split([len(data.STATE_WORDS), len(data.OBJECT_WORDS)], dim=1)
        return torch.stack(
            [functional.cross_entropy(states, pairs[:, 0]), functional.cross_entropy(things, pairs[:, 1])]
        )


def build(seed: int) -> tuple[CLIP, TrainedText, LabelHead]:
    """Return a freshly initialised tiny CLIP, its text side, and the label head of the first stages."""
    import open_clip

    torch.manual_seed(seed)
    config = json.loads(CONFIG.read_text())
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        model.visual.positional_embedding.mul_(POSITION_SCALE)
        model.logit_scale.fill_(math.log(10.0))
    text = TrainedText(model, open_clip_tokenizer(), config["text_cfg"]["context_length"])
    return model, text, LabelHead(config["embed_dim"])


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


def to_input(images: np.ndarray, rng: np.random.Generator | None) -> Tensor:
    """Return normalised float [B, 3, 64, 64]; with a generator each image is shifted by up to 3 pixels."""
    if rng is not None:
        shifts = rng.integers(-3, 4, size=(len(images), 2))
        padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
        size = images.shape[1]
        images = np.stack(
            [p[3 + y : 3 + y + size, 3 + x : 3 + x + size] for p, (y, x) in zip(padded, shifts, strict=True)]
        )
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(OPENAI_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_STD).view(3, 1, 1)


def losses(
    model: CLIP,
    text: TrainedText,
    head: LabelHead,
    stage: data.Stage,
    images: Tensor,
    pairs: np.ndarray,
    rng: np.random.Generator,
    speaker: data.Speaker,
) -> Tensor:
    """Return the losses of a batch that count in a stage: labels (state, object), captions (pair, object, state)."""
    features = functional.normalize(model.encode_image(images), dim=-1)
    terms = []
    if stage.labels:
        terms.append(head(features, torch.from_numpy(pairs)))
    if stage.captions:
        terms.append(caption_losses(model, text, features, pairs, rng, speaker))
    return torch.cat(terms)


def caption_losses(
    model: CLIP,
    text: TrainedText,
    features: Tensor,
    pairs: np.ndarray,
    rng: np.random.Generator,
    speaker: data.Speaker,
) -> Tensor:
    """Return (pair, object, state) cross-entropies of unit image features [B, d] against captions, float [3]."""
    state_texts, object_texts = data.class_captions(rng, speaker)
    texts = data.captions(rng, pairs, speaker) + object_texts + state_texts
    words = functional.normalize(text(texts), dim=-1)
    own, things, states = words.split([len(pairs), len(object_texts), len(state_texts)])
    features = features * model.logit_scale.exp()
    state, thing = torch.from_numpy(pairs[:, 0]), torch.from_numpy(pairs[:, 1])
    same = (state[:, None] == state) & (thing[:, None] == thing)
    target = same.float() / same.sum(dim=1, keepdim=True)
    logits = features @ own.T
    pair = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
    return torch.stack(
        [
            pair,
            functional.cross_entropy(features @ things.T, thing),
            functional.cross_entropy(features @ states.T, state),
        ]
    )


@torch.inference_mode()
def accuracies(model: CLIP, text: TrainedText, images: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """Return state, object and pair accuracy over all words, fractions, by the plain prompt "a photo of ..."."""
    prompts = [f"a photo of {state} {thing}" for state in data.STATE_WORDS for thing in data.OBJECT_WORDS]
    words = functional.normalize(text(prompts), dim=-1)
    chosen = []
    for at in range(0, len(images), 256):
        features = functional.normalize(model.encode_image(to_input(images[at : at + 256], None)), dim=-1)
        chosen.append((features @ words.T).argmax(dim=1))
    best = torch.cat(chosen).numpy()
    state, thing = best // len(data.OBJECT_WORDS) == pairs[:, 0], best % len(data.OBJECT_WORDS) == pairs[:, 1]
    return {"state": float(state.mean()), "object": float(thing.mean()), "pair": float((state & thing).mean())}


def optimizer_for(model: CLIP, text: TrainedText, head: LabelHead, lr: float, decay: float) -> torch.optim.AdamW:
    """Return AdamW; gains, biases, positions, token rows and the scale are not decayed."""
    named = {n: p for n, p in model.named_parameters() if n != "token_embedding.weight"} | {"rows": text.rows}
    decayed = [p for n, p in named.items() if p.ndim >= 2 and "embedding" not in n and n != "rows"]
    free = [p for n, p in named.items() if not (p.ndim >= 2 and "embedding" not in n and n != "rows")]
    free += list(head.parameters())
    groups = [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def relearn_text(
    model: CLIP, seed: int, images: np.ndarray, pairs: np.ndarray, steps: int, batch: int = 256
) -> TrainedText:
    """Train a fresh text tower against the locked image tower (LiT, Zhai et al., CVPR 2022) and return it.

    Its captions come from the uneven speaker, so that it knows some words well and others hardly: the weakness of a
    real CLIP that prompt learning mends. The model's own text tower and scale are replaced. It takes a minute and is
    not checkpointed: after an interruption it is done again, with the same numbers.
    """
    fresh, _, _ = build(seed)
    own = {name: value for name, value in fresh.state_dict().items() if not name.startswith("visual.")}
    model.load_state_dict(own, strict=False)
    text = TrainedText(model, open_clip_tokenizer(), model.context_length)
    with torch.no_grad():
        parts = [model.encode_image(to_input(images[at : at + 250], None)) for at in range(0, len(images), 250)]
    features = functional.normalize(torch.cat(parts), dim=-1)
    trained = [p for n, p in model.named_parameters() if n in own and n != "token_embedding.weight"] + [text.rows]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    speaker = data.uneven_speaker(seed)
    for step in range(steps):
        rng = stream("pretrain", seed, "text step", step)
        rows = rng.choice(len(features), size=min(batch, len(features)), replace=False)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 1e-3)
        terms = caption_losses(model, text, features[torch.from_numpy(rows)], pairs[rows], rng, speaker)
        optimizer.zero_grad(set_to_none=True)
        terms.sum().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100.0))
    return text


def open_clip_tokenizer():
    """Return CLIP's BPE tokenizer at the model's context length."""
    import open_clip

    return open_clip.SimpleTokenizer(context_length=json.loads(CONFIG.read_text())["text_cfg"]["context_length"])


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 4 % of the steps, then a half cosine to 2 % of the peak."""
    warm = max(1, round(0.04 * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def save(model: CLIP, text: TrainedText, path: Path, meta: dict[str, str]) -> None:
    """Write the model as fp16 safetensors under open_clip's names."""
    from safetensors.torch import save_file

    text.write_rows()
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    tensors.pop("attn_mask", None)
    save_file(tensors, str(path), metadata=meta)


def main() -> None:
    """Run or resume a pretraining."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    parser.add_argument("--out", type=Path, default=CONFIG.with_suffix(".safetensors"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model, text, head = build(options.seed)
    optimizer = optimizer_for(model, text, head, options.lr, options.weight_decay)
    checkpoint, log = options.work / "checkpoint.pt", options.work / "log.jsonl"
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
        terms = losses(model, text, head, data.STAGES[stage], batch, pairs[rows], rng, speaker)
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
    text = relearn_text(model, options.seed, images, pairs, options.text_steps)
    spent += time.perf_counter() - start
    print(json.dumps({"text_steps": options.text_steps} | accuracies(model, text, held, held_pairs)), flush=True)
    meta = {
        "seed": str(options.seed),
        "steps": str(options.steps),
        "text_steps": str(options.text_steps),
        "batch": str(options.batch),
        "minutes": f"{spent / 60:.1f}",
    }
    save(model, text, options.out, meta)
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)", flush=True)


if __name__ == "__main__":
    main()
