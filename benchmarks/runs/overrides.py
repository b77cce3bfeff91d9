"""What the user sets: `--set key=value` options and a `--config` file, sorted out by method.

Keys may be bare, for every selected method that has them, or belong to one method: `--set csp.lr=1e-3`, or a table
[csp] in the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmarks.runs.settings import Values, known_keys, read_toml, refuse_unknown
from errors import UserError, did_you_mean


def parse_overrides(items: Iterable[str], methods: Mapping[str, type[BaseModel]]) -> dict[str, Values]:
    """Return the values of `--set` options for each selected method (a name and its Config class).

    `csp.lr=1e-3` is for csp alone; a bare `lr=1e-3` is for every selected method that has the key. The prefixed value
    wins over the bare one, and the later over the earlier.
    """
    bare: Values = {}
    prefixed: dict[str, Values] = {}
    for item in items:
        key, equals, text = item.partition("=")
        method, dot, own_key = key.strip().rpartition(".")
        if not equals or not own_key:
            raise UserError(
                f"The option '--set {item}' is not understood.", "It needs a key and a value.", "Write --set lr=1e-3."
            )
        if dot:
            prefixed.setdefault(method, {})[own_key] = parse_value(text)
        else:
            bare[own_key] = parse_value(text)
    return _distribute(bare, prefixed, methods, "--set")


def load_config_file(path: str | Path, methods: Mapping[str, type[BaseModel]]) -> dict[str, Values]:
    """Return the values of a settings file for each selected method: top-level keys for all, tables for one each."""
    content = read_toml(Path(path))
    prefixed = {key: value for key, value in content.items() if isinstance(value, dict)}
    bare = {key: value for key, value in content.items() if not isinstance(value, dict)}
    return _distribute(bare, prefixed, methods, str(path))


def parse_value(text: str) -> Any:
    """Return the value a person means by `text`: number, boolean, null, list, or else the string itself.

    >>> [parse_value(text) for text in ("3", "1e-3", "False", "none", "[1, 2]", "[state,object]", "val_auc", '"3"')]
    [3, 0.001, False, None, [1, 2], ['state', 'object'], 'val_auc', '3']
    """
    text = text.strip()
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        pass
    else:
        # 1e999 reads as infinity, no setting either; as a string it is refused under its own spelling.
        return text if value == math.inf or value == -math.inf else value
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):  # what JSON does not allow: +5, .5, 1_000
        try:
            value = number(text)
        except ValueError:
            continue
        if abs(value) < math.inf:  # neither infinite nor NaN
            return value
    if text.startswith("[") and text.endswith("]"):
        return [parse_value(part) for part in text[1:-1].split(",")]
    return text


def setting_text(value: Any) -> str:
    """Return the text that `parse_value` reads as a setting's value: as a person would write it where that does.

    >>> [setting_text(value) for value in (0.001, True, None, ["state", "object"], "val_auc", "none", " 3")]
    ['0.001', 'true', 'none', '[state, object]', 'val_auc', '"none"', '" 3"']
    """
    plain = _plain(value)
    read = parse_value(plain)
    same = json.dumps(read) == json.dumps(value)  # which tells 1 from true and from 1.0, as == does not
    return plain if same else json.dumps(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return "none" if value is None else str(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no settings


def _distribute(
    bare: Values, prefixed: Mapping[str, Values], methods: Mapping[str, type[BaseModel]], where: str
) -> dict[str, Values]:
    known = {method: known_keys(method, config_class) for method, config_class in methods.items()}
    all_keys = sorted({key for keys in known.values() for key in keys})
    refuse_unknown(bare, all_keys, " or ".join(methods), where)
    for method, values in prefixed.items():
        if method not in methods:
            raise UserError(
                f"There are settings for '{method}' (from {where}), which is not in this run.",
                f"The selected methods are {', '.join(methods)}.",
                did_you_mean(method, methods) or "Select it with --methods, or leave its settings out.",
            )
        refuse_unknown(values, known[method], method, where)
    return {
        method: {**{key: bare[key] for key in bare if key in known[method]}, **prefixed.get(method, {})}
        for method in methods
    }
