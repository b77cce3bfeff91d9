"""What a backbone offers and what a method needs of it, known from the model's definition before anything is loaded.

    offers_of("ViT-B-16-SigLIP/webli")         of a backbone's name, None where only the loaded backbone can tell
    require_fit("troika", needs, "RN50/openai")

A definition is a JSON file of open_clip, read where the package lies, so that listing imports neither it nor torch.
`Backbone.offers` says the same of a built model; a test and `benchmarks.studies.backbones` hold the two together.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from errors import UserError, did_you_mean

OFFERS: Mapping[str, str] = {
    "pooled_image": "one feature of the whole image",
    "patch_tokens": "tokens of the patches after the last image block, raw and in the joint space",
    "taps": "tokens after any image block",
    "adapters": "slots beside the input and on the output of every sub-layer of the image blocks",
    "any_length": "image blocks that run on sequences of any length",
    "image_tokens": "a class token among the patches, which in the joint space is the image feature",
    "soft_prompt": "text features of token vectors that a method writes",
    "text_adapters": "slots beside the input and on the output of every sub-layer of the text blocks",
    "text_tokens": "tokens of all positions of a text, of which the end token is the feature",
    "causal_text": "text whose positions see earlier ones alone, so that beginnings are shared",
}
"""Each offer, and what it is."""

IMAGE_BLOCKS = frozenset({"patch_tokens", "taps", "adapters"})
IMAGE_ANY_LENGTH = frozenset({"any_length"})
IMAGE_CLASS_TOKEN = frozenset({"image_tokens"})
ALWAYS = frozenset({"pooled_image", "soft_prompt"})
TEXT_BLOCKS = frozenset({"text_adapters"})
TEXT_TOKENS = frozenset({"text_tokens"})
TEXT_CAUSAL = frozenset({"causal_text"})

TINY = "tiny-icons"
_HERE = Path(__file__).parent / "backbone"


@dataclass(frozen=True)
class Offers:
    """What a definition offers.

    names: a part of `OFFERS`, nothing of a definition that cannot be a backbone.
    images: the kind of its image tower, in words.
    text: the kind of its text tower, in words.
    package: what has to be installed for it beside the suite, else None.
    """

    names: frozenset[str]
    images: str
    text: str
    package: str | None = None

    def lacking(self, needs: Iterable[str]) -> list[str]:
        """Return what is needed and not offered, in the order of `OFFERS`."""
        needed = set(needs)
        return [name for name in OFFERS if name in needed and name not in self.names]


def offers_of_config(config: Mapping[str, Any]) -> Offers:
    """Return what an open_clip model configuration (embed_dim, vision_cfg, text_cfg ...) offers."""
    kind, of_images = _images(config["vision_cfg"])
    if config["text_cfg"].get("hf_model_name"):
        return Offers(frozenset(), kind, "Hugging Face")
    text, of_text, package = _text(config["text_cfg"])
    return Offers(ALWAYS | of_images | of_text, kind, text, package)


def _images(config: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    if name := config.get("timm_model_name"):
        name = name.removeprefix("test_")  # timm's own small ones
        family = re.split(r"[_\d.]", name)[0]
        if name.startswith("vit_relpos") or family not in ("eva", "vit", "vitamin"):
            return f"timm {family if family != 'vit' else 'vit_relpos'}", frozenset()
        rotary = name.startswith(("eva02", "vit_pe")) and "enormous" not in name
        pool = config.get("timm_pool") or ("avg" if "gap" in name or family == "vitamin" else "token")
        kind = f"timm {'EVA' if family == 'eva' or rotary else 'ViT'}, {_POOLS[pool]}"
        free = frozenset() if rotary else IMAGE_ANY_LENGTH
        return kind, IMAGE_BLOCKS | free | (IMAGE_CLASS_TOKEN if pool == "token" else frozenset())
    if isinstance(config.get("layers"), (list, tuple)):
        return "ResNet", frozenset()
    pool = config.get("pool_type", "tok")
    ordinary = not any(config.get(key) for key in _CUSTOM_BLOCK) and not config.get("attentional_pool")
    if not ordinary or (pool != "tok" and not config.get("final_ln_after_pool")):
        return "ViT, attention pooling" if config.get("attentional_pool") else "ViT of other blocks", frozenset()
    of_class = IMAGE_CLASS_TOKEN if pool == "tok" else frozenset()
    return f"ViT, {_POOLS[pool]}", IMAGE_BLOCKS | IMAGE_ANY_LENGTH | of_class


_POOLS = {"tok": "class token", "token": "class token", "avg": "mean", "map": "attention pooling"}
_CUSTOM_BLOCK = (
    "block_type",
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
)


def _text(config: Mapping[str, Any]) -> tuple[str, frozenset[str], str | None]:
    package = "transformers" if config.get("hf_tokenizer_name") else None
    if config.get("embed_cls"):
        return "causal, class token", TEXT_BLOCKS, package
    causal, pool = not config.get("no_causal_mask"), config.get("pool_type", "argmax")
    at_end = pool in ("argmax", "eos")
    names = TEXT_BLOCKS | (TEXT_TOKENS if at_end else frozenset()) | (TEXT_CAUSAL if causal and at_end else frozenset())
    where = "end token" if at_end else f"{pool} position"
    return f"{'causal' if causal else 'both ways'}, {where}", names, package


def definition_files() -> Mapping[str, Path]:
    """Return open_clip's definitions by name, in the order of their names; nothing is imported."""
    spec = importlib.util.find_spec("open_clip")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    found = {file.stem: file for place in places for file in Path(place, "model_configs").glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: [int(p) if p.isdigit() else p.lower() for p in _parts(item[0])]))


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def config_of(definition: str) -> Mapping[str, Any] | None:
    """Return the model configuration of a definition, None for one that there is not.

    Where open_clip is imported it is asked, for it may have been given more definitions.
    """
    if definition == TINY:
        stored = json.loads((_HERE / f"{TINY}.json").read_text(encoding="utf-8"))
        return stored.get("model_cfg", stored)
    if (open_clip := sys.modules.get("open_clip")) is not None and "factory" in vars(open_clip):
        return open_clip.get_model_config(definition) if definition in open_clip.list_models() else None
    file = definition_files().get(definition)
    return None if file is None else json.loads(file.read_text(encoding="utf-8"))


@cache
def all_offers() -> Mapping[str, Offers]:
    """Return what each of open_clip's definitions offers, by name, `tiny-icons` first."""
    files = {TINY: _HERE / f"{TINY}.json", **definition_files()}
    return {name: offers_of_config(json.loads(file.read_text(encoding="utf-8"))) for name, file in files.items()}


def offers_of(backbone: str) -> Offers | None:
    """Return what a backbone of this package offers, by its name; None for a definition that is not known."""
    config = config_of(backbone.partition("/")[0])
    return None if config is None else offers_of_config(config)


def fitting(needs: Iterable[str]) -> list[str]:
    """Return the definitions that offer all that is needed."""
    needed = tuple(needs)
    return [name for name, offers in all_offers().items() if not offers.lacking(needed)]


def require_fit(
    method: str, needs: Collection[str], backbone: str, offers: Collection[str], others: Sequence[str] = ()
) -> None:
    """Raise `UserError` if a method needs what a backbone does not offer, or what no backbone knows.

    offers: a part of `OFFERS`. others: methods that run there. The message lists backbones that fit, and these.
    """
    if unknown := sorted(set(needs) - set(OFFERS)):
        raise UserError(
            f"The method '{method}' says that it needs '{unknown[0]}' of a backbone.",
            f"A backbone may offer {', '.join(OFFERS)}.",
            did_you_mean(unknown[0], OFFERS) or "Mend `needs` in its MethodInfo.",
        )
    lacking = [name for name in OFFERS if name in needs and name not in offers]
    if lacking:
        fit = fitting(needs)
        usual = [name for name in EXAMPLES if name in fit] or fit[:4]
        raise UserError(
            f"The method '{method}' cannot run on '{backbone}'.",
            f"It needs {'; '.join(f'{name} ({OFFERS[name]})' for name in lacking)}, which it does not offer.",
            f"Choose one of the {len(fit)} models that fit, such as {', '.join(usual)}, see 'list backbones'"
            + (f", or a method that runs on this one: {', '.join(others)}." if others else "."),
        )


EXAMPLES = (
    TINY,
    "ViT-L-14-quickgelu",
    "ViT-B-16",
    "EVA02-L-14",
    "ViT-B-16-SigLIP2",
    "PE-Core-L-14-336",
    "MobileCLIP2-B",
)
"""Models that a message names where they fit."""
