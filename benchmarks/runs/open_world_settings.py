"""What a user says about the open world, and what of it makes a run's numbers. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from datasets.base import World

FILE_SOURCES = ("glove", "table")
"""Sources of feasibility scores that are files; a setting has "source:file", a specification the source alone."""

THRESHOLD_GRID = 50
"""Number of thresholds that a search tries, those of the released codes."""

Masking = Literal["clean", "official"]


class OpenWorldSettings(BaseModel):
    """What a user says about the open world; a run in the closed world does not read it.

    feasibility: where the scores of unseen pairs come from: "shipped" tables, "clip", "glove:<file>", "table:<file>",
        "none" to keep every pair; "auto" is the shipped table that belongs to the data set, else "clip"
    threshold: the smallest feasibility of a pair that is kept, or "search" for the one with the best validation AUC of
        a grid of 50
    masking: what becomes of the others, see `OpenWorld`
    selection_world: where validation selects the epoch

    None leaves the last two to the profile: clean and open, or official and closed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    feasibility: Literal["auto", "none", "shipped", "clip"] | str = "auto"
    threshold: Literal["search"] | float = "search"
    masking: Masking | None = None
    selection_world: World | None = None

    @field_validator("feasibility")
    @classmethod
    def _known_source(cls, feasibility: str) -> str:
        kind, _, file = feasibility.partition(":")
        if feasibility not in ("auto", "none", "shipped", "clip") and not (kind in FILE_SOURCES and file):
            raise ValueError(
                "it is none of auto, none, shipped, clip, glove:<file of word vectors> and table:<file of scores>"
            )
        return feasibility


class OpenWorld(BaseModel):
    """The part of a run's identity that only the open world has.

    feasibility: the source of the scores
    feasibility_digest: of the table, None for "clip", whose table follows from the data set and the backbone
    masking: "clean" removes a pair from the candidates, "official" multiplies scores by ([feasibility >= threshold] +
        [seen])
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    feasibility: Literal["shipped", "glove", "clip", "table"]
    feasibility_digest: str | None = None
    threshold: Literal["search"] | float = "search"
    masking: Masking = "clean"
    selection_world: World = "open"
