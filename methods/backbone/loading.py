"""Finding an open_clip model by a backbone's name and loading its weights.

    tiny-icons                                    the small model that lies beside this file
    ViT-L-14-quickgelu/openai                     <open_clip model>/<pretrained tag>, downloaded by open_clip
    ViT-L-14-quickgelu/folder/model.safetensors   <open_clip model>/<local file>
    ViT-B-32/random                               <open_clip model>/random, seeded, for tests and profiling

open_clip is imported inside the functions: it takes seconds, and listing methods must not pay for it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from errors import UserError, did_you_mean
from methods.backbone.blocks import weights_digest

if TYPE_CHECKING:
    from open_clip import CLIP

TINY = "tiny-icons"
_HERE = Path(__file__).parent


def find_clip(name: str, seed: int = 0) -> tuple[CLIP, Any, str]:
    """Return (open_clip model in fp32 on the CPU, its tokenizer, the name to record) for a backbone's name.

    seed: of the weights of `<model>/random`; nothing else depends on it. An unknown name, missing or unfitting weights,
    or a definition whose activation is not the one the weights were trained with is a `UserError`.
    """
    if name == TINY:
        return _tiny_clip()
    import open_clip

    definition, _, weights = name.partition("/")
    known = open_clip.list_models()
    if definition not in known:
        raise UserError(
            f"There is no backbone '{name}'.",
            f"A backbone is '{TINY}', or one of open_clip's {len(known)} models, a slash, and its weights.",
            did_you_mean(definition, [TINY, *known]) or "Pass for example 'ViT-L-14-quickgelu/openai'.",
        )
    config = open_clip.get_model_config(definition)
    tags = open_clip.list_pretrained_tags_by_model(definition)
    if weights == "random":
        return build_clip(config, name, seed), _tokenizer(config), name
    if open_clip.is_pretrained_cfg(definition, weights):
        source = open_clip.get_pretrained_cfg(definition, weights)
        _require_same_activation(config, source, definition, weights)
        clip = build_clip(config, name)
        assert not source.get("quick_gelu") or _computes_quick_gelu(clip), f"{name} was built without QuickGELU"
        _load_weights(clip, _download(source, name), name)
        clip.visual.image_mean, clip.visual.image_std = source["mean"], source["std"]
        return clip, _tokenizer(config), name
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"'{weights}' is neither a pretrained tag of '{definition}' nor a file."
            if weights
            else f"The backbone '{name}' does not say which weights to use.",
            f"For '{definition}' open_clip has the tags: {', '.join(tags) or 'none'}.",
            did_you_mean(weights, tags) or f"Pass '{definition}/<tag>' or '{definition}/<path of a weights file>'.",
        )
    clip = build_clip(config, name)
    _load_weights(clip, path, name)
    # Records keep this name: the file's own, never its folder. What is in it, the digest tells.
    return clip, _tokenizer(config), f"{definition}/{path.name}"


def weights_file(name: str) -> Path | None:
    """Return the weights file that a backbone's name means, where it means one: a tag wins over a file of its name."""
    definition, _, weights = name.partition("/")
    path = Path(weights).expanduser()
    if not weights or not path.is_file():
        return None
    import open_clip

    return None if weights == "random" or open_clip.is_pretrained_cfg(definition, weights) else path


def shapes_of_clip(name: str) -> tuple[CLIP, Any, str]:
    """Return what `find_clip` does with the model on the meta device: its shapes, no numbers, whatever its weights.

    name: as for `find_clip`; the weights may be left out. An unknown model is a `UserError`.
    """
    import open_clip

    definition = name.partition("/")[0]
    if name == TINY:
        stored = json.loads((_HERE / f"{TINY}.json").read_text(encoding="utf-8"))
        config = stored.get("model_cfg", stored)
    elif definition in open_clip.list_models():
        config = open_clip.get_model_config(definition)
    else:
        return find_clip(f"{definition}/random")  # which says what there is
    with torch.device("meta"):
        return build_clip(config, name), _tokenizer(config), name


def identity(name: str) -> tuple[str, str] | None:
    """Return (name to record, digest of the weights) of a backbone where that is known without building the model.

    It is for the committed model; None means that only `find_clip` can tell. Importing open_clip takes seconds, which a
    command that finds all its runs done should not spend.
    """
    weights = _HERE / f"{TINY}.safetensors"
    if name != TINY or not weights.is_file():
        return None
    from safetensors.torch import load_file

    return TINY, weights_digest(load_file(weights))


def build_clip(config: Mapping[str, Any], name: str, seed: int = 0) -> CLIP:
    """Return an `open_clip.CLIP` with random weights for an open_clip model configuration (embed_dim, vision_cfg, ...).

    The weights depend on `seed` alone; the global random stream is left as it was. A configuration whose towers are
    not open_clip's own ViT and text transformer is a `UserError` that calls the model `name`.
    """
    import open_clip

    foreign = {"timm_model_name", "hf_model_name", "hf_tokenizer_name"} & {*config["vision_cfg"], *config["text_cfg"]}
    if foreign or config.get("custom_text") or not isinstance(config["vision_cfg"].get("layers"), int):
        raise UserError(
            f"The model '{name}' cannot be the backbone.",
            "Its towers are not open_clip's own ViT and text transformer.",
            "Choose an open_clip CLIP with a ViT image tower, such as ViT-L-14-quickgelu/openai.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(**config)


def _tiny_clip() -> tuple[CLIP, Any, str]:
    """Load the committed model. Its JSON is an open_clip configuration, or {"model_cfg", "preprocess_cfg"} of one."""
    description, weights = _HERE / f"{TINY}.json", _HERE / f"{TINY}.safetensors"
    if missing := [path.name for path in (description, weights) if not path.is_file()]:
        raise UserError(
            f"The backbone '{TINY}' is not complete.",
            f"In {_HERE} there is no {' and no '.join(missing)}.",
            "Restore the file from the repository, or choose another backbone.",
        )
    stored = json.loads(description.read_text(encoding="utf-8"))
    config, preprocess = stored.get("model_cfg", stored), stored.get("preprocess_cfg", {})
    clip = build_clip(config, TINY)
    _load_weights(clip, weights, TINY)
    clip.visual.image_mean, clip.visual.image_std = preprocess.get("mean"), preprocess.get("std")
    return clip, _tokenizer(config), TINY


def _tokenizer(config: Mapping[str, Any]) -> Any:
    """Return open_clip's BPE tokenizer with the configuration's options."""
    import open_clip

    options = config["text_cfg"].get("tokenizer_kwargs") or {}
    return open_clip.SimpleTokenizer(context_length=config["text_cfg"].get("context_length", 77), **options)


def _require_same_activation(config: Mapping[str, Any], source: Mapping[str, Any], definition: str, tag: str) -> None:
    """Refuse weights in a definition with another activation; open_clip only warns, and every feature changes."""
    trained, defined = bool(source.get("quick_gelu")), bool(config.get("quick_gelu"))
    if trained == defined:
        return
    other = f"{definition}-quickgelu" if trained else definition.removesuffix("-quickgelu")
    kinds = {True: "QuickGELU", False: "the exact GELU"}
    raise UserError(
        f"The weights '{tag}' were trained with {kinds[trained]}, but '{definition}' computes {kinds[defined]}.",
        f"open_clip defines the fitting model as '{other}'.",
        f"Pass '{other}/{tag}'.",
    )


def _computes_quick_gelu(clip: CLIP) -> bool:
    """Ask the modules themselves, in both towers."""
    from open_clip.transformer import QuickGELU

    blocks = [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]
    return all(isinstance(block.mlp.gelu, QuickGELU) for block in blocks)


def _download(source: Mapping[str, Any], name: str) -> Path:
    """Return the local file of a pretrained tag, downloaded by open_clip or found in its cache."""
    import open_clip

    try:
        return Path(open_clip.download_pretrained(dict(source)))
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"The weights of '{name}' could not be downloaded.",
            f"They come from {source.get('hf_hub') or source.get('url')} and are not in the local cache ({reason}).",
            f"Connect once to fetch them, or pass '{name.partition('/')[0]}/<path of a weights file>'.",
        ) from error


def _load_weights(clip: CLIP, path: Path, name: str) -> None:
    """Load a safetensors file, or a torch file without running code from it, into the model; every tensor must fit."""
    from open_clip.factory import load_state_dict
    from safetensors import SafetensorError

    unreadable = (
        RuntimeError,
        pickle.UnpicklingError,
        SafetensorError,
        OSError,
        EOFError,
        AttributeError,
        StopIteration,
    )
    try:
        state = load_state_dict(str(path), weights_only=True)
    except unreadable as error:
        script = "TorchScript" in str(error)
        raise UserError(
            f"The file '{path}' cannot be read as weights.",
            "It is a TorchScript archive, as OpenAI's own files are, which would run code."
            if script
            else f"It is no safetensors file and no torch file of plain tensors ({type(error).__name__}).",
            "Use the tag 'openai', or a safetensors file or torch state dict of the model.",
        ) from error
    own = clip.state_dict()
    # OpenAI's files carry three whole numbers beside the weights.
    state = {
        key: value for key, value in state.items() if key not in ("input_resolution", "context_length", "vocab_size")
    }
    wrong = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": sorted(
            key for key in own.keys() & state.keys() if getattr(state[key], "shape", None) != own[key].shape
        ),
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(keys)} {how} such as {keys[0]}" for how, keys in wrong.items() if keys)
        raise UserError(
            f"The weights in '{path}' are not those of '{name.partition('/')[0]}'.",
            f"Of its {len(own)} tensors: {found}.",
            "Name the open_clip model the file was made with.",
        )
    clip.load_state_dict(state)  # half-precision values are copied into fp32
