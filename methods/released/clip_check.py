"""Holding the CLIP in a released checkpoint against the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from errors import UserError, counted
from methods.backbone.clip import Backbone
from methods.released import hugging_face
from methods.released.caila_names import CAILA_CLIP
from methods.released.names import ReleasedForm


def check_clip(file: str, tensors: Mapping[str, Tensor], backbone: Backbone, form: ReleasedForm) -> Sequence[str]:
    """Return the names of CLIP's tensors in the file, all of them equal to the backbone's in the file's precision.

    A `UserError` names the difference. Positions beyond the file's context length are not in it. Of CLIP that a method
    trains on, the tensors that stay frozen are compared.
    """
    known, differing, strange = [], [], []
    largest = ("", 0.0)
    own = _clip_of(backbone, form)
    for name, theirs in tensors.items():
        if name not in own and (form.clip_within or name.partition(".")[0] not in ("clip", "text_encoder")):
            continue
        known.append(name)
        ours = own.get(name)
        if ours is not None and name.endswith(".positional_embedding") and ours.dim() == theirs.dim():
            ours = ours[: len(theirs)]
        if ours is None or ours.numel() != theirs.numel():
            strange.append(name)
            continue
        expected = ours.reshape(theirs.shape).to(theirs.dtype)
        if not _same(expected, theirs):
            differing.append(name)
            difference = float((expected.float() - theirs.float()).abs().nan_to_num().max())
            largest = max(largest, (name, difference), key=lambda item: item[1])
    if strange or differing:
        there = [f"{len(strange)} have another name or shape, such as {strange[0]}"] if strange else []
        if differing:
            worst, by = largest if largest[0] else (differing[0], 0.0)
            there.append(f"{len(differing)} have other values, most {worst}, by {by:.2g}")
        raise UserError(
            f"The CLIP in '{file}' is not the backbone {backbone.name}.",
            f"Of its {counted(len(known), 'tensor')} {' and '.join(there)}.",
            "Pass the --backbone that it was trained with; CLIP that was itself trained on cannot be imported.",
        )
    return known


def _clip_of(backbone: Backbone, form: ReleasedForm) -> dict[str, Tensor]:
    """Return the backbone's tensors by the names of a released code, without those that its method trains."""
    own = backbone.clip.state_dict()
    if not form.clip_within:
        return {f"{place}.{name}": tensor for place in ("clip", "text_encoder") for name, tensor in own.items()}
    trained = {name for name, parameter in backbone.clip.named_parameters() if parameter.requires_grad}
    named = hugging_face.named(own)
    return {f"{CAILA_CLIP}{theirs}": tensor for theirs, ours, tensor in named if ours not in trained}


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return bool(torch.equal(ours, theirs) or torch.equal(ours.nan_to_num(), theirs.nan_to_num()))
