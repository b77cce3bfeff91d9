"""Finding an open_clip model by a backbone's name and loading its weights.

    tiny-icons, tiny-icons-siglip                 the small models that lie beside this file
    ViT-L-14-quickgelu/openai                     <open_clip model>/<pretrained tag>, downloaded by open_clip
    ViT-L-14-quickgelu/folder/model.safetensors   <open_clip model>/<local file>, also of CZSL_HOME/weights
    ViT-B-32/random                               <open_clip model>/random, seeded, for tests and profiling

A configuration that does not lie beside a weights file follows it: ViT-L-14/w.pt::w_config.json.

open_clip is imported inside the functions: it takes seconds, and listing methods must not pay for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from errors import UserError, did_you_mean
from methods.backbone.blocks import weights_digest
from methods.backbone.origin import Origin, of_file, of_random, of_tag
from methods.backbone.text_tower import text_part
from methods.backbone.tokens import require_own_text, tokenizer_of
from methods.backbone.weights_file import fill, find_file, read
from methods.backbone_names import split_configuration
from methods.offers import COMMITTED, TINY, TINY_SIGLIP, committed_config

if TYPE_CHECKING:
    from open_clip import CLIP

_HERE = Path(__file__).parent


def find_clip(name: str, seed: int = 0) -> tuple[CLIP, Any, str, Origin | None]:
    """Return (open_clip model in fp32 on the CPU, its tokenizer, the name to record, its origin) of a backbone's name.

    seed: of the weights of `<model>/random`; nothing else depends on it. A committed model has no origin. An unknown
    name, missing or unfitting weights, a definition whose activation is not the one the weights were trained with, or a
    file of which nobody knows how its images were normalised, is a `UserError`.
    """
    if name in COMMITTED:
        return *_committed(name), None
    whole, stated = split_configuration(name)
    if whole in COMMITTED and stated is not None:
        raise _no_file(whole, stated)
    import open_clip

    definition, _, weights = name.partition("/")
    _require_definition(name)
    config = open_clip.get_model_config(definition)
    tags = open_clip.list_pretrained_tags_by_model(definition)
    weights, stated = split_configuration(weights)
    if stated is not None and (weights == "random" or open_clip.is_pretrained_cfg(definition, weights)):
        raise _no_file(f"{definition}/{weights}", stated)
    tokenizer = tokenizer_of(config, name)  # what is refused for it is refused before weights are fetched
    if weights == "random":
        return build_clip(config, name, seed), tokenizer, name, of_random(config)
    clip = build_clip(config, name)
    if open_clip.is_pretrained_cfg(definition, weights):
        source = open_clip.get_pretrained_cfg(definition, weights)
        origin = of_tag(config, source, definition, weights)
        assert not source.get("quick_gelu") or _computes_quick_gelu(clip), f"{name} was built without QuickGELU"
        fill(clip, read(_download(source, name)), definition)
    else:
        file = read(find_file(definition, weights, tags))
        fill(clip, file, definition)
        origin = of_file(config, file, definition, weights, stated)
        # Records keep this name: the file's own, never its folder. What is in it, the digest tells.
        name = f"{definition}/{file.path.name}"
    clip.visual.image_mean, clip.visual.image_std = origin.mean, origin.std
    clip.visual.preprocess_cfg = origin.resizing.configuration()  # where open_clip keeps it
    return clip, tokenizer, name, origin


def names_a_file(name: str) -> bool:
    """Return whether a backbone's name is that of a weights file: a definition, and no tag of it and not "random"."""
    import open_clip

    definition, _, weights = name.partition("/")
    weights, _ = split_configuration(weights)
    known = definition in open_clip.list_models() and weights not in ("", "random")
    return known and not open_clip.is_pretrained_cfg(definition, weights)


def _no_file(name: str, configuration: Path) -> UserError:
    return UserError(
        f"The configuration '{configuration}' was given for '{name}'.",
        "A configuration says what the weights in a file were trained with, and that names no file.",
        "Leave --backbone-config out, or pass --backbone <model>/<weights file>.",
    )


def weights_file(name: str) -> Path | None:
    """Return the weights file that a backbone's name means, where it means one: a tag wins over a file of its name."""
    definition, _, weights = name.partition("/")
    weights, _ = split_configuration(weights)
    path = Path(weights).expanduser()
    if not weights or not path.is_file():
        return None
    import open_clip

    return None if weights == "random" or open_clip.is_pretrained_cfg(definition, weights) else path


def shapes_of_clip(name: str) -> tuple[CLIP, Any, str]:
    """Return (open_clip model on the meta device, its tokenizer, name): its shapes, no numbers, whatever its weights.

    name: as for `find_clip`; the weights may be left out. An unknown model is a `UserError`.
    """
    import open_clip

    definition = name.partition("/")[0]
    if name in COMMITTED:
        config = committed_config(name, _HERE)
    else:
        _require_definition(f"{definition}/random")  # any weights would do
        config = open_clip.get_model_config(definition)
    with torch.device("meta"):
        return build_clip(config, name), tokenizer_of(config, name), name


def identity(name: str) -> tuple[str, str] | None:
    """Return (name to record, digest of the weights) of a backbone where that is known without building the model.

    It is for the committed models; None means that only `find_clip` can tell. Importing open_clip takes seconds, which
    a command that finds all its runs done should not spend.
    """
    weights = _HERE / f"{name}.safetensors"
    if name not in COMMITTED or not weights.is_file():
        return None
    from safetensors.torch import load_file

    return name, weights_digest(load_file(weights))


def build_clip(config: Mapping[str, Any], name: str, seed: int = 0) -> CLIP:
    """Return an open_clip model with random weights for a model configuration (embed_dim, vision_cfg, ...).

    The weights depend on `seed` alone; the global random stream is left as it was. See `fresh_clip`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fresh_clip(config, name)


def fresh_clip(config: Mapping[str, Any], name: str) -> CLIP:
    """Return an open_clip model with weights from the global random stream.

    Its class is the one that open_clip takes: `CLIP`, `CustomTextCLIP` or `CoCa`. A text tower of Hugging Face without
    the package that reads it is a `UserError` that calls the model `name`.
    """
    import open_clip

    import methods.backbone.icon_tower  # noqa: F401  timm knows its name from now on

    values = dict(config)
    require_own_text(values, name)
    own_text = values.pop("custom_text", False)
    kind = (
        open_clip.CLIP if not own_text else open_clip.CoCa if "multimodal_cfg" in values else open_clip.CustomTextCLIP
    )
    return kind(**values)


def _committed(name: str) -> tuple[CLIP, Any, str]:
    """Load a committed model. Its JSON is an open_clip configuration, or {"model_cfg", "preprocess_cfg"} of one."""
    description, weights = _HERE / f"{name}.json", _HERE / f"{name}.safetensors"
    if missing := [path.name for path in (description, weights) if not path.is_file()]:
        raise UserError(
            f"The backbone '{name}' is not complete.",
            f"In {_HERE} there is no {' and no '.join(missing)}.",
            "Restore the file from the repository, or choose another backbone.",
        )
    preprocess = json.loads(description.read_text(encoding="utf-8")).get("preprocess_cfg", {})
    config = committed_config(name, _HERE)
    clip = build_clip(config, name)
    fill(clip, read(weights), name)
    clip.visual.image_mean, clip.visual.image_std = preprocess.get("mean"), preprocess.get("std")
    clip.visual.preprocess_cfg = preprocess
    return clip, tokenizer_of(config, name), name


def _require_definition(name: str) -> None:
    """Raise `UserError` unless open_clip defines the model that a backbone's name begins with."""
    import open_clip

    definition, known = name.partition("/")[0], open_clip.list_models()
    if definition not in known:
        raise UserError(
            f"There is no backbone '{name}'.",
            f"A backbone is '{TINY}', '{TINY_SIGLIP}', or one of open_clip's {len(known)} models, a slash and weights.",
            did_you_mean(definition, [*COMMITTED, *known]) or "Pass for example 'ViT-L-14-quickgelu/openai'.",
        )


def _computes_quick_gelu(clip: CLIP) -> bool:
    """Ask the modules themselves, in both towers, as far as these are open_clip's transformers."""
    from open_clip.transformer import QuickGELU

    towers = [tower.transformer for tower in (clip.visual, text_part(clip)) if hasattr(tower, "transformer")]
    blocks = [block for tower in towers for block in tower.resblocks]
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
