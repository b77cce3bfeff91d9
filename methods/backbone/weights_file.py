"""Reading a file of CLIP weights: its tensors, OpenAI's marks, and whether it is the file of a pretrained tag.

What is known of how the weights were trained is put together in `origin.py`.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from datasets.cache import home
from errors import UserError, did_you_mean

if TYPE_CHECKING:
    from open_clip import CLIP

MARKS = ("input_resolution", "context_length", "vocab_size")
"""Whole numbers that OpenAI's files, and no others, carry beside the weights."""

# Of a folder with several, the first of these is taken, as open_clip does.
PREFERRED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")

_UNREADABLE = (
    RuntimeError,
    pickle.UnpicklingError,
    OSError,
    EOFError,
    AttributeError,
    StopIteration,
    TypeError,
    ValueError,
    LookupError,
    struct.error,
)
"""What reading a damaged file, or one of another kind, raises; SafetensorError beside them."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that was read.

    path: absolute. state: its tensors by name, without the marks. marked: whether it carries OpenAI's marks. tags: the
    pretrained tags, (model, tag), whose file this is, by its digest.
    """

    path: Path
    state: Mapping[str, Tensor]
    marked: bool = False
    tags: tuple[tuple[str, str], ...] = ()


def find_file(definition: str, weights: str, tags: list[str]) -> Path:
    """Return the absolute path of the weights file called `weights`: as given, or below `weights` in CZSL_HOME.

    A folder stands for the weights file in it. tags: of the definition, for the message of the `UserError`.
    """
    if weights:
        for path in (Path(weights).expanduser(), home() / "weights" / weights):
            if path.is_dir():
                path = _in_folder(path.absolute(), f"{definition}/{weights}")
            if path.is_file():
                return path.absolute()
    raise UserError(
        f"'{weights}' is neither a pretrained tag of '{definition}' nor a file."
        if weights
        else f"The backbone '{definition}/' does not say which weights to use.",
        f"For '{definition}' open_clip has the tags: {', '.join(tags) or 'none'}.",
        did_you_mean(weights, tags) or f"Pass '{definition}/<tag>' or '{definition}/<path of a weights file>'.",
    )


def read(path: Path) -> WeightsFile:
    """Read a safetensors file, or a torch file without running code from it.

    Of TorchScript archives, which hold code, those are read whose digest is that of a pretrained tag. Anything that
    cannot be read as weights is a `UserError`.
    """
    from open_clip.factory import load_state_dict
    from safetensors import SafetensorError

    tags = known_tags(path)
    try:
        state = load_state_dict(str(path), weights_only=True)
        named = all(isinstance(key, str) for key in state)
    except (*_UNREADABLE, SafetensorError) as error:
        if "TorchScript" not in str(error):
            raise _unreadable(path, type(error).__name__) from error
        if not tags:
            raise UserError(
                f"The file '{path}' cannot be read as weights.",
                "It is a TorchScript archive, as OpenAI's own files are, which would run code, and none that is known.",
                "Use the tag 'openai', or save its tensors: torch.save(torch.jit.load(FILE, 'cpu').state_dict(), NEW).",
            ) from error
        state, named = torch.jit.load(str(path), map_location="cpu").state_dict(), True
    if not named:
        raise _unreadable(path, "its keys are no names")
    if any(key.startswith(("vision_model.", "text_model.")) for key in state):
        raise UserError(
            f"The file '{path}' cannot be read as weights of open_clip.",
            "It is a CLIP of the package transformers, which calls and cuts its tensors otherwise (vision_model...).",
            "Use the same weights in open_clip's form: a tag, or the file open_clip_model.safetensors of their page.",
        )
    marked = all(mark in state for mark in MARKS)
    return WeightsFile(path, {key: value for key, value in state.items() if key not in MARKS}, marked, tags)


def fill(clip: CLIP, file: WeightsFile, definition: str) -> None:
    """Put the file's tensors into a model of `definition`; every tensor must fit, else it is a `UserError`."""
    own, state = clip.state_dict(), fitted(clip, file.state)
    wrong = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": sorted(
            key for key in own.keys() & state.keys() if getattr(state[key], "shape", None) != own[key].shape
        ),
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(keys)} {how} such as {keys[0]}" for how, keys in wrong.items() if keys)
        known = " or ".join(f"'{model}/{tag}'" for model, tag in file.tags[:2])
        raise UserError(
            f"The weights in '{file.path}' are not those of '{definition}'.",
            f"Of its {len(own)} tensors: {found}.",
            f"The file is that of {known}." if known else "Name the open_clip model the file was made with.",
        )
    clip.load_state_dict(state)  # half-precision values are copied into fp32


def fitted(clip: CLIP, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors under the names and in the shapes that a model has for them, as open_clip does on loading.

    Of an older file of a text tower of its own; of the logit scale and bias, a number or a vector of one; without a
    logit bias, which changes no order of scores, it is zero.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    own = clip.state_dict()
    changed = dict(convert_state_dict(clip, dict(state)))
    if "positional_embedding" in changed and "text.positional_embedding" in own:
        changed = convert_to_custom_text_state_dict(changed)
    for name in ("logit_scale", "logit_bias"):
        if name in own and name in changed and changed[name].numel() == own[name].numel() == 1:
            changed[name] = changed[name].reshape(own[name].shape)
    if "logit_bias" in own:
        changed.setdefault("logit_bias", torch.zeros_like(own["logit_bias"]))
    return changed


def known_tags(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the pretrained tags, (model, tag), whose file this is.

    Of the files of some tags open_clip knows the SHA-256, or its first digits, as a part of the address.
    """
    import open_clip

    if path.suffix == ".safetensors":  # none of those files
        return ()
    digest = None
    found = []
    for model, tag in open_clip.list_pretrained():
        known = _digest_in(open_clip.get_pretrained_cfg(model, tag).get("url") or "")
        if known:
            digest = digest or _sha256(path)
            if digest.startswith(known):
                found.append((model, tag))
    return tuple(found)


def _digest_in(url: str) -> str | None:
    """Return the hexadecimal digits of the SHA-256 that an address of open_clip's list holds."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    match = re.search(r"-([0-9a-f]{8,64})\.pt$", url)
    return match[1] if match and "mlfoundations" in url else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_folder(folder: Path, name: str) -> Path:
    """Return the weights file of a folder; none, or several of which open_clip prefers none, are a `UserError`."""
    there = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith("."))
    preferred = [folder / known for known in PREFERRED if folder / known in there]
    if preferred or len(there) == 1:
        return (preferred or there)[0]
    names = ", ".join(path.name for path in there[:5])
    raise UserError(
        f"The backbone '{name}' names a folder.",
        f"It holds {len(there)} weights files, {names}." if there else f"It holds no file {', '.join(SUFFIXES)}.",
        "Name the weights file.",
    )


def _unreadable(path: Path, how: str) -> UserError:
    with path.open("rb") as file:
        pointer = file.read(24).startswith(b"version https://git-lfs")
    return UserError(
        f"The file '{path}' cannot be read as weights.",
        "It is a pointer of Git LFS, which stands for a file that was not fetched."
        if pointer
        else f"It is no whole safetensors file and no torch file of plain tensors ({how}).",
        "Fetch the file itself (git lfs pull)."
        if pointer
        else "Use a tag, or a whole safetensors file or torch state dict of the model.",
    )
