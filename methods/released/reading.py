"""Reading a released checkpoint without running code from it, and fitting it to a method and its backbone."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from errors import UserError, counted
from methods.backbone.clip import Backbone
from methods.base import Method
from methods.released.clip_check import check_clip
from methods.released.names import DFSP_VARIANTS, FORMS, ReleasedForm, Shapes, looks_like

TEXT_SIDE = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
"""CLIP's tensors that the released models save a second time, under "text_encoder."."""

_SCALAR = np.float64(0).__reduce__()[0]  # a function of numpy's own, whose module was called otherwise before numpy 2
NUMPY_NUMBER: list[Any] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
]
"""What a file may name beside tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read.

    path: absolute.
    digest: hexadecimal SHA-256 of the file.
    tensors: by the names of the released code, as they are in the file.
    """

    path: Path
    digest: str
    tensors: Mapping[str, Tensor]

    @property
    def shapes(self) -> Shapes:
        """The tensors' shapes by name."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class Fitted:
    """A checkpoint in our names.

    weights: what `Method.load_checkpoint` takes, floating point in fp32.
    unused: names that the released code saves and never reads.
    clip: how many of CLIP's tensors the file holds; they are the backbone's.
    """

    weights: Mapping[str, Tensor]
    unused: tuple[str, ...]
    clip: int


def form_of(method: str) -> ReleasedForm:
    """Return the form of a method's files; a method without one is a `UserError`."""
    if method not in FORMS:
        raise UserError(
            f"Files of a released code of '{method}' cannot be read or written.",
            f"Their forms are known for {', '.join(FORMS)}.",
            "Choose one of these; own runs keep their weights in best.safetensors.",
        )
    return FORMS[method]


def read_checkpoint(file: Path) -> Checkpoint:
    """Return the tensors of a torch file (`torch.save`), read with weights_only, or of a safetensors file.

    No such file, one that is cut short, TorchScript, and anything but named tensors are a `UserError`.
    """
    path = file.expanduser().absolute()
    asked = f"The checkpoint '{file}' cannot be read."
    try:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UserError(asked, f"The system says: {error.strerror or error}.", "Check its path.") from error
    if _is_torchscript(path):
        raise UserError(
            asked,
            "It is a TorchScript archive, which holds code, and none of the released codes saves one.",
            "Pass the file that the training script saved with torch.save.",
        )
    try:
        content = _content(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            asked,
            "It holds other things than tensors, and reading these could run code."
            if "Weights only" in str(error)
            else "It is cut short or no file of torch.save.",
            "Save its tensors alone: torch.save(model.state_dict(), NEW).",
        ) from error
    except Exception as error:  # a damaged file may raise nearly anything
        raise UserError(
            asked,
            f"It is cut short, damaged or no file of torch.save ({path.stat().st_size:,} bytes).",
            "Copy it again from where it was saved.",
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("net"), Mapping):
        content = content["net"]  # CAILA's, beside the epoch and its AUC
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        kind = type(content).__name__
        keys = f"whose keys are {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise UserError(
            asked,
            f"It holds no table of tensors by name but {'one ' + keys if keys else 'a ' + kind}.",
            "Save the state dict alone: torch.save(model.state_dict(), NEW).",
        )
    if strange := [str(name) for name, value in content.items() if value.layout is not torch.strided]:
        raise UserError(
            asked,
            f"{counted(len(strange), 'tensor is', 'tensors are')} sparse, such as {strange[0]}.",
            "Save dense tensors: tensor.to_dense().",
        )
    if not content:
        raise UserError(asked, "It holds no tensor.", "Pass the file that the training script saved.")
    tensors = {str(name): value.detach() for name, value in content.items()}
    return Checkpoint(path, digest, tensors)


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # CAILA's files have a number of numpy's beside the weights; these three make one and nothing else.
    with torch.serialization.safe_globals(NUMPY_NUMBER), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other pickles, which are refused
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def variant_of(method: str, file: Path) -> dict[str, Any]:
    """Return the settings that a file's name tells: DFSP calls its files by the variant, "txt2img_best.pt"."""
    if method != "dfsp":
        return {}
    return next(({"fusion": ours} for word, ours in DFSP_VARIANTS.items() if word in file.name), {})


def check_method(checkpoint: Checkpoint, method: str) -> ReleasedForm:
    """Return the form of a method whose code may have saved the file; a `UserError` names the one that did."""
    form, likely = form_of(method), looks_like(checkpoint.tensors)
    if likely == method:
        return form
    names = list(checkpoint.tensors)
    raise UserError(
        f"The file '{checkpoint.path.name}' is not of {method}.",
        f"Its {counted(len(names), 'tensor is that', 'tensors are those')} of {likely}."
        if likely
        else f"Its tensors ({len(names):,}) are not those of any released code, such as {', '.join(names[:3])}.",
        f"Pass --method {likely}." if likely else f"Pass a file of the released code of {', '.join(FORMS)}.",
    )


def check_labels(checkpoint: Checkpoint, form: ReleasedForm, states: int, objects: int, dataset: str) -> None:
    """Raise a `UserError` unless the file's table has a row for each state and object of the data set."""
    if form.table and len(table := _vectors(checkpoint, form.table)) != states + objects:
        raise UserError(
            f"The file '{checkpoint.path.name}' is not of the data set {dataset}.",
            f"Its table has {len(table)} rows, and {dataset} has {states} states + {objects} "
            f"objects = {states + objects}.",
            "Pass the --dataset that it was trained on.",
        )


def settings_of(checkpoint: Checkpoint, form: ReleasedForm) -> dict[str, Any]:
    """Return the settings that the shapes in a file give away; shapes that the code cannot save are a `UserError`."""
    try:
        return dict(form.inferred(checkpoint.shapes))
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"The file '{checkpoint.path.name}' is not of {form.method}.",
            "The names of its tensors are those of that code, and their shapes are not.",
            "Pass the file as the released code saved it.",
        ) from error


def fit(checkpoint: Checkpoint, form: ReleasedForm, method: Method) -> Fitted:
    """Return the file's tensors in our names. method: built with the settings that the file gives away.

    The backbone's tensors in it have to be the backbone's, every tensor of ours has to be there in its shape, and what
    is left must be what the code saves in vain; anything else is a `UserError`.
    """
    backbone, left = method.backbone, dict(checkpoint.tensors)
    _check_width(checkpoint, form, backbone)
    clip = check_clip(checkpoint.path.name, checkpoint.tensors, backbone, form)
    left = {name: value for name, value in left.items() if name not in clip}
    weights, missing, misshapen = {}, [], []
    for ours, own in method.checkpoint().items():
        theirs = form.name_of(ours, backbone.n_vision_blocks)
        found = left.pop(theirs, None)
        if found is not None and form.turned(theirs):
            found = found.T
        if found is None:
            missing.append(theirs)
        elif found.shape != own.shape:
            misshapen.append(f"{theirs} is {tuple(found.shape)}, not {tuple(own.shape)}")
        elif fault := _fault(found, own):
            raise UserError(
                f"The tensors in '{checkpoint.path.name}' are no trained weights.",
                f"{theirs} {fault}.",
                "Save the state dict of a training that ended well, in floating point.",
            )
        else:
            weights[ours] = found.to(own.dtype)
    unused = [name for name in left if name.startswith(form.unused)] if form.unused else []
    strange = [name for name in left if name not in unused]
    if missing or misshapen or strange:
        wrong = {"missing": missing, "of another shape": misshapen, "unknown to the released code": strange}
        said = "; ".join(f"{len(names)} {how}, such as {names[0]}" for how, names in wrong.items() if names)
        raise UserError(
            f"The tensors in '{checkpoint.path.name}' are not those of {form.method} on {backbone.name}.",
            f"There are {said}.",
            "Pass the method, backbone and settings that it was trained with.",
        )
    return Fitted(weights, tuple(unused), len(clip))


def _fault(tensor: Tensor, own: Tensor) -> str:
    """Return what keeps a file's tensor from being ours; "" for nothing."""
    if tensor.is_floating_point() != own.is_floating_point() or tensor.is_complex():
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}"
    lost = int((~torch.isfinite(tensor)).sum())
    return f"has {counted(lost, 'number')} that are NaN or infinite" if lost else ""


def _vectors(checkpoint: Checkpoint, name: str) -> Tensor:
    """Return a tensor that is a table of vectors; another is a `UserError`."""
    table = checkpoint.tensors[name]
    if table.ndim != 2:
        raise UserError(
            f"The checkpoint '{checkpoint.path.name}' cannot be read.",
            f"Its {name} should be a table of vectors and has the shape {tuple(table.shape)}.",
            "Save it as the released code does, a row for each word.",
        )
    return table


def _check_width(checkpoint: Checkpoint, form: ReleasedForm, backbone: Backbone) -> None:
    table = _vectors(checkpoint, form.width or ("soft_embeddings" if not form.whole else form.table))
    if table.shape[-1] != backbone.text_width:
        raise UserError(
            f"The file '{checkpoint.path.name}' is not of the backbone {backbone.name}.",
            f"Its text vectors have {table.shape[-1]} numbers, the backbone's {backbone.text_width}.",
            "Pass the --backbone that it was trained with.",
        )
