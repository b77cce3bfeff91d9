"""Names of a method's tensors in its released code, and the settings that their shapes give away.

CSP and CoOp (BatsResearch/csp) save one table under one name, DFSP (Forest-art/DFSP), Troika (bighuang624/Troika) and
MSCI (ltpwy/MSCI) the state dict of their whole model with CLIP in it, and so does CAILA (zhaohengz/CAILA), whose CLIP
is Hugging Face's (`caila_names.py`). A name of ours becomes theirs piece by piece.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from methods.released import caila_names, hugging_face, tensor_names

BACKBONE = "backbone.clip."
"""What the names of the backbone's tensors begin with in `Method.checkpoint`."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a file's tensors by name."""

DFSP_VARIANTS = {"txt2img": "t2i", "img2txt": "i2t", "BiFusion": "bif", "OnlySPM": "none"}
"""DFSP's words for its variants, with which the names of its files begin, and ours."""


@dataclass(frozen=True)
class ReleasedForm:
    """What a released code saves.

    method: its name here.
    table: the tensor with a row per state and object, "" where none is saved.
    marks: beginnings of names that no other of the codes saves.
    names: patterns of our names and their replacements, in order.
    whole: whether CLIP is saved too, and not one tensor alone.
    inferred: from shapes to the settings that they give away.
    forward: settings at which the released code computes, which a file does not say; a command line wins over them.
    fixed: settings that a model of the released code cannot have otherwise.
    unsaid: further settings that change scores and leave no trace in the file.
    unused: beginnings of names that the code saves and its scores never read.
    width: the tensor whose last axis is as wide as the text tower, "" for the table.
    inside: what else such a file holds beside the state dict, which is then its entry "net"; None is the state dict
        alone.
    beyond: settings that no file can hold.
    clip_within: whether CLIP's tensors stand among the method's by Hugging Face's names, and are trained in part.
    """

    method: str
    table: str
    marks: tuple[str, ...]
    names: Mapping[str, str]
    whole: bool = True
    inferred: Callable[[Shapes], Mapping[str, Any]] = lambda shapes: {}
    forward: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    unsaid: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    width: str = ""
    inside: Mapping[str, Any] | None = None
    beyond: Mapping[str, Any] = field(default_factory=dict)
    clip_within: bool = False

    def turned(self, theirs: str) -> bool:
        """Return whether the released code holds a tensor the other way round."""
        return self.clip_within and theirs.removeprefix(caila_names.CAILA_CLIP) in hugging_face.TRANSPOSED

    def name_of(self, ours: str, vision_blocks: int) -> str:
        """Return the released code's name of a tensor of `Method.checkpoint`."""
        if slot := re.fullmatch(r"adapters\.adapters\.vision_(\d+)_(attn|mlp)\.(down|up)\.(\w+)", ours):
            # One flat list: first those beside attention, then those beside the MLPs.
            place = int(slot[1]) + (vision_blocks if slot[2] == "mlp" else 0)
            return f"additional_visual_params.{place}.{slot[3]}_proj.{slot[4]}"
        if ours.startswith(BACKBONE):
            return caila_names.CAILA_CLIP + hugging_face.name_of(ours.removeprefix(BACKBONE))
        name = ours
        for pattern, theirs in self.names.items():
            name = re.sub(pattern, theirs, name)
        return name


def count_of(shapes: Shapes, pattern: str) -> int:
    """Return how many numbers stand in a pattern's one group in the names of a file.

    >>> count_of({"cmt.0.norm.bias": (4,), "cmt.1.norm.bias": (4,)}, r"cmt.(\\d+).")
    2
    """
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


def _adapters(shapes: Shapes) -> dict[str, Any]:
    down = shapes.get("additional_visual_params.0.down_proj.weight")
    return {} if down is None else {"adapter_width": down[0]}


def _troika(shapes: Shapes) -> dict[str, Any]:
    return {**_adapters(shapes), "traction_layers": count_of(shapes, r"cmt\.(\d+)\.")}


def _msci(shapes: Shapes) -> dict[str, Any]:
    found = _adapters(shapes)
    for level in ("low", "high"):
        width, wide = shapes.get(f"concat_projection_{level}.0.weight", (1, 0))
        if wide:
            found[f"n_{level}"] = wide // width
    for stage, name in ((1, "stage1_local_alignment"), (2, "stage2_global_fusion")):
        found[f"stage_{stage}_layers"] = count_of(shapes, rf"{name}\.cross_attn_layers\.(\d+)\.")
    return found


def _dfsp(shapes: Shapes) -> dict[str, Any]:
    found: dict[str, Any] = {"depth": count_of(shapes, r"fusion\.resblocks_img\.(\d+)\.")}
    rows = shapes.get("fusion.txt2img_transform_layer2.weight")
    table = shapes.get("soft_att_obj")
    if rows is not None and table is not None and rows[1] % table[0] == 0:
        found["context_length"] = rows[1] // table[0]
    return found


_SAME_BRANCHES = {
    "branches": ("pair", "state", "object"),
    "learn_context": True,
    "shared_context": False,
    "shared_words": True,
    "adapters": "both",
    "adapter_scale": 0.1,
    "disentangle": True,
}

FORMS = {
    form.method: form
    for form in (
        ReleasedForm(
            "csp",
            "soft_embeddings",
            (),
            {r"^table\.weight$": "soft_embeddings"},
            whole=False,
            fixed={"learn_context": False},
        ),
        ReleasedForm("coop", "", (), {r"^prompt\.context$": "soft_embeddings"}, whole=False),
        ReleasedForm(
            "dfsp",
            "soft_att_obj",
            ("soft_prompt", "fusion.crossblock_img."),
            tensor_names.DFSP,
            inferred=_dfsp,
            forward={"layout": "released"},
            fixed={"learn_context": True, "learn_primitives": True},
            unsaid=("fusion", "clip_share", "decompose_over", "mix_images", "primitive_scores_at_test"),
            unused=("fusion.",),
        ),
        ReleasedForm(
            "troika",
            "soft_att_obj",
            ("cmt.",),
            {**tensor_names.THREE_BRANCHES, **tensor_names.TROIKA},
            inferred=_troika,
            forward={"compound_norm": True},
            fixed={**_SAME_BRANCHES, "learn_lambda": True, "class_token": True},
            unsaid=("heads", "inference", "score_weights"),
        ),
        ReleasedForm(
            "msci",
            "soft_att_obj",
            ("stage1_local_alignment.", "stage2_global_fusion."),
            {**tensor_names.THREE_BRANCHES, **tensor_names.MSCI},
            inferred=_msci,
            fixed={
                **_SAME_BRANCHES,
                "learn_lambda": True,
                "fused": "both",
                "fusion": "lambda",
                "low_pooling": "linear",
                "high_pooling": "linear",
            },
            unsaid=("stage_1_heads", "stage_2_heads", "interaction", "inference", "score_weights"),
            unused=("cmt.", "patch_norm.", "fusion_module.", "concat_projection_low.", "concat_projection_high."),
        ),
        ReleasedForm(
            "caila",
            "",
            ("attr_logit_scale", caila_names.CAILA_CLIP),
            caila_names.NAMES,
            inferred=caila_names.inferred,
            forward={"test_view": "released"},
            fixed={"learn_tokens": True},
            unsaid=("combination", "combine_latent", "combine_output", "pair_text"),
            unused=caila_names.UNUSED,
            width=caila_names.TOKEN_TABLE,
            inside={"epoch": 0, "AUC": math.nan},
            beyond={"combination": "concat"},
            clip_within=True,
        ),
    )
}
"""By the method's name."""


def looks_like(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the method whose code saves such names, None where no code does."""
    if set(tensors) == {"soft_embeddings"}:
        return "coop" if tensors["soft_embeddings"].shape[:1] == (3,) else "csp"
    for method in ("msci", "troika", "dfsp", "caila"):  # MSCI's files hold an unused Troika
        if all(any(name.startswith(mark) for name in tensors) for mark in FORMS[method].marks):
            return method
    return None
