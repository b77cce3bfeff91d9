"""Names of CAILA's tensors in its released code (zhaohengz/CAILA), and the settings that their shapes give away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CAILA_CLIP = "clip_model."
"""What the names of CLIP's tensors begin with in CAILA's files; the rest of them is Hugging Face's."""
UNUSED = tuple(f"{CAILA_CLIP}{tower}_model.embeddings.position_ids" for tower in ("text", "vision"))
"""What CAILA's code saves and its scores never read."""
TOKEN_TABLE = f"{CAILA_CLIP}text_model.embeddings.token_embedding.weight"
"""The tensor whose rows are as wide as the text tower."""
NAMES = {
    r"^scales\.state$": "attr_logit_scale",
    r"^scales\.object$": "obj_logit_scale",
    r"^(?:text|vision)\.(\w+)\.adapters\.(text|vision)_(\d+)_(\w+)_out\.": r"\2_model.encoder.layers.\3.\4.\1.",
    r"^mixture\.adapters\.vision_(\d+)_(\w+)_out\.own\.": r"vision_model.encoder.layers.\1.\2.mixture.",
    r"^(\w+_model\.encoder\.layers\.\d+)\.attn\.": rf"{CAILA_CLIP}\1.adapter1.",
    r"^(\w+_model\.encoder\.layers\.\d+)\.mlp\.": rf"{CAILA_CLIP}\1.adapter2.",
    r"(adapter\d)\.state\.": r"\1.attr.",
    r"(adapter\d)\.object\.": r"\1.obj.",
    r"(adapter\d\.\w+\.)(down|up)\.": r"\1\2_sampler.",
}
"""Pattern of our name -> theirs, in order."""


def inferred(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the settings of CAILA's file: its blocks are counted from the first, our mixture layers from the last."""
    vision = f"{CAILA_CLIP}vision_model.encoder.layers."
    own = sorted(int(name.removeprefix(vision).split(".")[0]) for name in shapes if _is_down(name, vision, "attr"))
    mixed = [int(name.removeprefix(vision).split(".")[0]) for name in shapes if _is_down(name, vision, "mixture")]
    layers = len({name.removeprefix(vision).split(".")[0] for name in shapes if name.startswith(vision)})
    text = next((name for name in shapes if _is_down(name, f"{CAILA_CLIP}text_model.", "pair")), None)
    found: dict[str, Any] = {"text_adapters": text is not None, "vision_adapters": bool(own)}
    for name in (text, *(name for name in shapes if _is_down(name, vision, "attr"))):
        if name is not None:
            bottleneck, width = shapes[name]
            found["reduction"] = width // bottleneck
    if own:
        found |= {"adapter_start": own[0], "adapter_end": None if own[-1] == layers - 1 else own[-1] + 1}
        # Where no block is mixed, or none of the mixed ones has adapters, a file does not tell which are.
        found["mixture_layers"] = layers - min(mixed) if mixed else 0
    return found


def _is_down(name: str, beginning: str, mode: str) -> bool:
    return name.startswith(beginning) and name.endswith(f".adapter1.{mode}.down_sampler.weight")
