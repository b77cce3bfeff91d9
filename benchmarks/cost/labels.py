"""Label spaces to measure on: real pair lists with no image behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.base import PHASES, CompositionDataset, Pair, Phase, Vocabulary
from datasets.layout import LayoutReader
from datasets.published import Published, shipped_lists
from errors import UserError, did_you_mean
from registry import DATASETS

SHIPPED = ("mit_states", "ut_zappos", "cgqa", "icon_states")


@dataclass(frozen=True)
class LabelSpace:
    """The pair lists of a data set, and how many images it trains on. `dataset` may have no splits."""

    name: str
    dataset: CompositionDataset
    train_images: int


def label_space(name: str) -> LabelSpace:
    """Return a label space: of those that ship with the suite by their lists alone, of others by loading the data set.

    An unknown name, or a data set that is not there, is a `UserError`.
    """
    if name == "icon_states":
        from datasets.icons.plan import plan_images, plan_pairs

        plan = plan_pairs()
        images = sum(drawing.phase == "train" for drawing in plan_images(plan))
        return _bare(name, "icon_states", {"train": plan.train, "val": plan.val, "test": plan.test}, images)
    reader = DATASETS.get(name) if name in DATASETS else None
    lists = shipped_lists(name) if isinstance(reader, LayoutReader) else None
    if isinstance(reader, LayoutReader) and lists is not None:
        about: Published = reader.published
        return _bare(name, about.title, lists, about.train.images)
    try:
        dataset = DATASETS.get(name)()
    except UserError as error:
        raise UserError(
            f"There is no label space '{name}' here.",
            f"Those of {', '.join(SHIPPED)} ship with the suite; any other is that of a data set, and: {error.asked}",
            did_you_mean(name, SHIPPED) or "Choose one of these, or name a data set that is there.",
        ) from error
    return LabelSpace(dataset.name, dataset, len(dataset.splits["train"]))


def _bare(name: str, title: str, lists: dict[Phase, tuple[Pair, ...]], images: int) -> LabelSpace:
    vocabulary = Vocabulary.from_pairs(pair for phase in PHASES for pair in lists[phase])
    dataset = CompositionDataset(
        name=name,
        title=title,
        root=Path(),
        vocabulary=vocabulary,
        train_pairs=lists["train"],
        val_pairs=lists["val"],
        test_pairs=lists["test"],
        splits={},
        digest="",
    )
    return LabelSpace(name, dataset, images)
