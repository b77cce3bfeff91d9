"""Writing a method's weights in the form of its released code, so that its test script can load them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from errors import UserError
from methods.base import Method
from methods.parts.dfsp_fusion import DecomposedFusion
from methods.released import hugging_face
from methods.released.caila_names import CAILA_CLIP
from methods.released.names import ReleasedForm
from methods.released.reading import TEXT_SIDE, form_of

CONTEXT_LENGTH = 8
"""Tokens of a prompt in the released configurations of DFSP, Troika and MSCI."""

MSCI_DEAD_LAYERS = {"mit_states": 3}
"""Layers of the cross-attention that MSCI's code builds and never calls (`cmt_layers`); 2 on the other data sets."""


def released_tensors(method: Method, dataset: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return (tensors by the names of the released code, names of those that are zeros because nothing reads them).

    A method without such a form, or a setting that it cannot hold, is a `UserError`.
    """
    form = form_of(method.info.name)
    _check_settings(method, form)
    blocks = method.backbone.n_vision_blocks
    tensors = {form.name_of(name, blocks): value.cpu() for name, value in method.checkpoint().items()}
    if not form.whole:
        return tensors, ()
    if form.clip_within:
        tensors = {name: value.T if form.turned(name) else value for name, value in tensors.items()}
        return {**_clip_within(method), **tensors}, ()
    unread = _unread(method, dataset)
    zeros = {name: torch.zeros(shape) for name, shape in unread.items() if name not in tensors}
    return {**tensors, **zeros, **_clip(method)}, tuple(zeros)


def write_released(path: Path, tensors: Mapping[str, Tensor], inside: Mapping[str, Any] | None = None) -> None:
    """Write tensors as `torch.save` does; a file that is there already is a `UserError`.

    inside: what stands beside them where they are one entry, see `ReleasedForm`.
    """
    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        with path.open("xb") as file:
            torch.save(content if inside is None else {"net": content, **inside}, file)
    except OSError as error:
        raise UserError(
            f"The checkpoint cannot be written to {path}.",
            f"The system says: {error.strerror or error}.",
            "Choose another --out, or move the file away.",
        ) from error


def _clip_within(method: Method) -> dict[str, Tensor]:
    """Return all of CLIP's tensors by Hugging Face's names, with the position numbers that a model of theirs saves."""
    own = {name: value.detach().cpu() for name, value in method.backbone.clip.state_dict().items()}
    tensors = {f"{CAILA_CLIP}{theirs}": tensor for theirs, _, tensor in hugging_face.named(own)}
    for tower, length in (("text", len(own["positional_embedding"])), ("vision", method.backbone.n_patches + 1)):
        tensors[f"{CAILA_CLIP}{tower}_model.embeddings.position_ids"] = torch.arange(length)[None]
    return tensors


def _check_settings(method: Method, form: ReleasedForm) -> None:
    config = method.config.model_dump()
    for key, value in form.fixed.items():
        if config[key] != value:
            raise UserError(
                f"This run of {form.method} cannot be written in the form of the released code.",
                f"Its setting {key} is {config[key]!r}, and the released code knows {value!r} alone.",
                "Export a run without that switch.",
            )
    for key, value in form.beyond.items():
        if config[key] == value:
            raise UserError(
                f"This run of {form.method} cannot be written in the form of the released code.",
                f"Nobody knows how that code calls the tensors of its setting {key}={value!r}.",
                "Export a run without that switch.",
            )


def _clip(method: Method) -> dict[str, Tensor]:
    """Return CLIP's tensors as the released models hold them: whole, and the text side a second time."""
    length = method.config.model_dump().get("context_length", CONTEXT_LENGTH)
    own = {name: value.detach().cpu() for name, value in method.backbone.clip.state_dict().items()}
    own["positional_embedding"] = own["positional_embedding"][:length]
    again = {f"text_encoder.{name}": value for name, value in own.items() if name.startswith(TEXT_SIDE)}
    return {**{f"clip.{name}": value for name, value in own.items()}, **again}


def _unread(method: Method, dataset: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the released code builds and saves beside what this method has."""
    backbone, width = method.backbone, method.backbone.embed_dim
    if method.info.name == "dfsp":
        form, rows = form_of("dfsp"), len(method.vocabulary.states) + len(method.vocabulary.objects)
        config = method.config.model_dump()
        every = DecomposedFusion(
            "bif",
            "released",
            vision_width=backbone.vision_width,
            text_width=backbone.text_width,
            image_tokens=backbone.n_patches + 1,
            text_rows=config["context_length"] * rows,
            depth=config["depth"],
            dropout=0.0,
        )
        return {form.name_of(f"fusion.{name}", 0): tuple(value.shape) for name, value in every.state_dict().items()}
    if method.info.name != "msci":
        return {}
    shapes: dict[str, tuple[int, ...]] = {"patch_norm.weight": (width,), "patch_norm.bias": (width,)}
    for layer in range(MSCI_DEAD_LAYERS.get(dataset, 2)):
        shapes |= {f"cmt.{layer}.cross_attn.{kind}_proj.weight": (width, width) for kind in "qkv"}
        shapes |= {f"cmt.{layer}.cross_attn.proj.weight": (width, width), f"cmt.{layer}.cross_attn.proj.bias": (width,)}
        shapes |= {f"cmt.{layer}.norm.weight": (width,), f"cmt.{layer}.norm.bias": (width,)}
        shapes |= {f"cmt.{layer}.mlp.0.weight": (4 * width, width), f"cmt.{layer}.mlp.0.bias": (4 * width,)}
        shapes |= {f"cmt.{layer}.mlp.3.weight": (width, 4 * width), f"cmt.{layer}.mlp.3.bias": (width,)}
    gate = "fusion_module.attention_gate"
    shapes |= {f"{gate}.0.weight": (width, 2 * width), f"{gate}.0.bias": (width,)}
    for norm in (f"{gate}.1", "fusion_module.norm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for level in ("low", "high"):  # built for a single block too, where nothing reads it
        shapes |= {f"concat_projection_{level}.0.weight": (width, width), f"concat_projection_{level}.0.bias": (width,)}
        shapes |= {f"concat_projection_{level}.1.weight": (width,), f"concat_projection_{level}.1.bias": (width,)}
    return shapes
