"""What is pretrained: a tiny CLIP, the text tower over the token rows in use, the label head, and their losses.

The loss of a batch is the sum of three image-to-text cross-entropies (CLIP, Radford et al. 2021, with several positives
as in Khosla et al. 2020): against the batch's own captions, where all captions of the image's pair count as right;
against one caption for each object; and against one for each state. The first is taken both ways. Both committed models
have these losses, tiny-icons-siglip too, so that towers are all that differs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.tiny_clip import pretrain_data as data
from methods.backbone.loading import fresh_clip
from methods.backbone.preprocessing import OPENAI_MEAN, OPENAI_STD
from methods.backbone.text_tower import end_positions, feature_token, padded, reading_of, text_part
from methods.backbone.tokens import tokenizer_of
from methods.offers import TINY, committed_config

if TYPE_CHECKING:
    from open_clip import CLIP


FOLDER = Path(__file__).parents[3] / "methods/backbone"


# At open_clip's own scale a patch's content is six times as long as its position, and a silhouette is nothing but which
# patch is where: objects are learnt several times faster when both weigh alike (docs/tiny_clip.md).
POSITION_SCALE = 15.0
TIMM_POSITIONS = 0.02
"""Deviation of timm's fresh positions; open_clip's is one over the root of the width."""


class TrainedText(nn.Module):
    """The text tower over the token rows in use. Captions in, features [K, d] out."""

    def __init__(self, model: CLIP, tokenizer: Any, context: int) -> None:
        super().__init__()
        self.model: CLIP
        self.lookup: Tensor
        self.model, self.tokenizer, self.context = model, tokenizer, context
        reading = reading_of(model)
        assert reading is not None, "a model that is read otherwise is no backbone"
        self.reading = reading
        used = torch.unique(tokenizer(data.every_caption(), context_length=context))
        self.register_buffer("used", used)
        lookup = torch.full((model.vocab_size,), -1)
        lookup[used] = torch.arange(len(used))
        self.register_buffer("lookup", lookup)
        self.rows = nn.Parameter(text_part(model).token_embedding.weight.detach()[used].clone())
        self._ids: dict[str, Tensor] = {}

    def forward(self, captions: list[str]) -> Tensor:
        for caption in captions:
            if caption not in self._ids:
                self._ids[caption] = self.tokenizer([caption], context_length=self.context)[0]
        ids = torch.stack([self._ids[caption] for caption in captions])
        part, ends = text_part(self.model), end_positions(self.reading, ids, pad=0)
        if self.reading.short:
            ids = ids[:, : int(ends.max()) + 1]
        vectors = self.rows[self.lookup[ids]]
        entering, mask = padded(self.model, self.reading, vectors, ends, self.rows[self.lookup[0]])
        x = part.ln_final(part.transformer(entering, attn_mask=mask))
        token = feature_token(self.reading, x, ends)
        return (
            part.text_projection(token) if isinstance(part.text_projection, nn.Linear) else token @ part.text_projection
        )

    def write_rows(self) -> None:
        """Put the trained rows back into the model's token table."""
        with torch.no_grad():
            text_part(self.model).token_embedding.weight[self.used] = self.rows


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


def build(seed: int, name: str = TINY) -> tuple[CLIP, TrainedText, LabelHead]:
    """Return a freshly initialised committed model, its text side, and the label head of the first stages."""
    torch.manual_seed(seed)
    config = committed_config(name)
    model = fresh_clip(config, name)
    with torch.no_grad():
        if (trunk := getattr(model.visual, "trunk", None)) is None:
            model.visual.positional_embedding.mul_(POSITION_SCALE)
        else:
            trunk.pos_embed.mul_(POSITION_SCALE * trunk.embed_dim**-0.5 / TIMM_POSITIONS)
        model.logit_scale.fill_(math.log(10.0))
    text = TrainedText(model, tokenizer_of(config, name), config["text_cfg"]["context_length"])
    return model, text, LabelHead(config["embed_dim"])


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
    text: TrainedText,
    head: LabelHead,
    stage: data.Stage,
    images: Tensor,
    pairs: np.ndarray,
    rng: np.random.Generator,
    speaker: data.Speaker,
) -> Tensor:
    """Return the losses of a batch that count in a stage: labels (state, object), captions (pair, object, state)."""
    features = functional.normalize(text.model.encode_image(images), dim=-1)
    terms = []
    if stage.labels:
        terms.append(head(features, torch.from_numpy(pairs)))
    if stage.captions:
        terms.append(caption_losses(text, features, pairs, rng, speaker))
    return torch.cat(terms)


def caption_losses(
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
    features = features * text.model.logit_scale.exp()
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


def save(model: CLIP, text: TrainedText, path: Path, meta: dict[str, str]) -> None:
    """Write the model as fp16 safetensors under open_clip's names."""
    from safetensors.torch import save_file

    text.write_rows()
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    tensors.pop("attn_mask", None)
    save_file(tensors, str(path), metadata=meta)
