"""Numbers and arrays of numbers as they stand in a record: checked where they are read, written as they are."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import PlainSerializer, PlainValidator


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError("a number or null is needed here")


def _array(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, (list, tuple)):
        raise ValueError("a list of numbers is needed here")
    return np.array([_number(value) for value in values])


Number = Annotated[float, PlainValidator(_number), PlainSerializer(lambda value: value)]
"""NaN where JSON has null. An int stays one, so that what is read is written again alike."""

Array = Annotated[np.ndarray, PlainValidator(_array), PlainSerializer(lambda values: values.tolist())]
"""As a list in JSON."""
