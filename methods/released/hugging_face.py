"""CLIP's tensors by the names of Hugging Face's transformers, which CAILA's released code is built on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

_TOWERS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
_BLOCK = {
    r"\.ln_(\d)\.": r".layer_norm\1.",
    r"\.attn\.out_proj\.": ".self_attn.out_proj.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}
_ELSEWHERE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # spelt so
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
TRANSPOSED = ("visual_projection.weight", "text_projection.weight")
"""What open_clip holds the other way round."""


def name_of(ours: str) -> str:
    """Return the name of one of open_clip's tensors; the three projections of attention have one each, see `named`.

    >>> name_of("visual.transformer.resblocks.3.ln_1.bias"), name_of("ln_final.weight")
    ('vision_model.encoder.layers.3.layer_norm1.bias', 'text_model.final_layer_norm.weight')
    """
    for tower, theirs in _TOWERS.items():
        if ours.startswith(tower):
            name = theirs + ours.removeprefix(tower)
            for pattern, replacement in _BLOCK.items():
                name = re.sub(pattern, replacement, name)
            return name
    return _ELSEWHERE[ours]


def named(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield of open_clip's tensors (their name, ours, the tensor as they hold it); queries, keys and values apart."""
    for ours, tensor in tensors.items():
        place, _, kind = ours.rpartition(".in_proj_")
        if place:
            theirs = name_of(f"{place}.").removesuffix("attn.") + "self_attn."
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{theirs}{letter}_proj.{kind}", ours, third
        else:
            theirs = name_of(ours)
            yield theirs, ours, tensor.T if theirs in TRANSPOSED else tensor
