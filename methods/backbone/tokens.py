"""What the backbone asks of a tokenizer, whether it is open_clip's own or one of Hugging Face that open_clip wraps."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from errors import UserError

if TYPE_CHECKING:
    from open_clip import SimpleTokenizer

EXTRA = "pip install 'czsl-bench[huggingface]'"
"""How the package transformers is installed."""


@dataclass(frozen=True)
class Tokens:
    """Text to ids.

    encode: ids of a text without any special tokens.
    start, end: the special ids around a text.
    pad: what fills a text up to the context.
    joins: whether the ids of words joined by blanks are those of the words one after the other.
    """

    encode: Callable[[str], list[int]]
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    joins: bool

    def row(self, text: str) -> list[int]:
        """Return the ids of a whole text, without padding."""
        return [*self.start, *self.encode(text), *self.end]

    def word(self, text: str) -> list[int]:
        """Return the ids that words have within a sentence."""
        if self.joins:
            return self.encode(text)
        before = "of"
        return self.encode(f"{before} {text}")[len(self.encode(before)) :]


def tokens_of(tokenizer: Any) -> Tokens:
    """Return what is asked of a tokenizer of open_clip."""
    inner = getattr(tokenizer, "tokenizer", None)  # an HFTokenizer's
    if inner is None:
        start, last = (tokenizer.sot_token_id,), (tokenizer.eot_token_id,)
        return Tokens(tokenizer.encode, start, last, pad=0, joins=True)

    def encode(text: str) -> list[int]:
        return list(inner(tokenizer.clean_fn(text), add_special_tokens=False).input_ids)

    probe = encode("a photo")
    whole = list(inner(tokenizer.clean_fn("a photo")).input_ids)
    at = next(at for at in range(len(whole)) if whole[at : at + len(probe)] == probe)
    end = tuple(whole[at + len(probe) :])
    if tokenizer.strip_sep_token:
        end = tuple(0 if token == inner.sep_token_id else token for token in end)
    return Tokens(encode, tuple(whole[:at]), end, pad=inner.pad_token_id, joins=False)


def tokenizer_of(config: Mapping[str, Any], name: str) -> Any:
    """Return open_clip's tokenizer of a model configuration.

    name: of the model, for the message. One of Hugging Face that cannot be had is a `UserError`.
    """
    import open_clip

    text = config["text_cfg"]
    options, length = dict(text.get("tokenizer_kwargs") or {}), text.get("context_length", 77)
    source = text.get("hf_tokenizer_name")
    require_own_text(config, name)
    if not source:
        made = copy.copy(_clip_tokenizer(json.dumps(options, sort_keys=True)))
        made.context_length = length
        return made
    require_transformers(config, name)
    try:
        return open_clip.tokenizer.HFTokenizer(source, length, **options)
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"The tokenizer of '{name}' could not be downloaded.",
            f"It is {source} of Hugging Face and is not in the local cache ({reason}).",
            "Connect once to fetch it, or choose a model with CLIP's own tokenizer, see 'list backbones'.",
        ) from error


@functools.cache
def _clip_tokenizer(options: str) -> SimpleTokenizer:
    """Return CLIP's own tokenizer, read once a process: its 49 thousand merges take a tenth of a second each time.

    options: its keyword arguments as JSON.
    """
    import open_clip

    made: SimpleTokenizer = open_clip.SimpleTokenizer(**json.loads(options))
    return made


def require_transformers(config: Mapping[str, Any], name: str) -> None:
    """Raise `UserError` for a model whose tokenizer needs the package transformers where it is not installed."""
    import importlib.util

    source = config["text_cfg"].get("hf_tokenizer_name")
    if source and importlib.util.find_spec("transformers") is None:
        raise UserError(
            f"The tokenizer of '{name}' is not part of open_clip.",
            f"It is {source} of Hugging Face, which the package transformers reads, and that is not installed.",
            f"Install it ({EXTRA}), or choose a model that 'list backbones' shows without it.",
        )


def require_own_text(config: Mapping[str, Any], name: str) -> None:
    """Raise `UserError` for a model whose text tower is one of Hugging Face."""
    if source := config["text_cfg"].get("hf_model_name"):
        raise UserError(
            f"The model '{name}' cannot be the backbone.",
            f"Its text tower is {source} of Hugging Face, whose blocks this suite does not run.",
            "Choose a model whose text tower is open_clip's own, see 'list backbones'.",
        )
