"""What is pretrained: the tiny CLIP, the text tower over the token rows in use, the label head, and their losses.

The loss of a batch is the sum of three image-to-text cross-entropies (CLIP, Radford et al. 2021, with several positives
as in Khosla et al. 2020): against the batch's own captions, where all captions of the image's pair count as right;
against one caption for each object; and against one for each state. The first is taken both ways.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.tiny_clip import pretrain_data as data
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


def open_clip_tokenizer():
    """Return CLIP's BPE tokenizer at the model's context length."""
    import open_clip

    return open_clip.SimpleTokenizer(context_length=json.loads(CONFIG.read_text())["text_cfg"]["context_length"])


def save(model: CLIP, text: TrainedText, path: Path, meta: dict[str, str]) -> None:
    """Write the model as fp16 safetensors under open_clip's names."""
    from safetensors.torch import save_file

    text.write_rows()
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    tensors.pop("attn_mask", None)
    save_file(tensors, str(path), metadata=meta)
