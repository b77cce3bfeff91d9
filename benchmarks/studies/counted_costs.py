"""What every method costs at ViT-L-14 on three label spaces, counted: the tables of docs/profile.md.

    python -m benchmarks.studies.counted_costs                  # about twenty minutes: every method is followed in full
    python -m benchmarks.studies.counted_costs --update docs/profile.md

Nothing is timed, so other work beside it changes nothing. Open worlds are counted where they are small.
"""

from __future__ import annotations

import argparse

from benchmarks.cost.record import Estimate, Flops, Profile, Row, Settings
from benchmarks.cost.tables import every, giga, line
from benchmarks.cost.whole import take
from benchmarks.runs import files
from benchmarks.studies.program import page_with, program
from errors import UserError
from registry import METHODS

BACKBONE = "ViT-L-14-quickgelu"
DATA = ("mit_states", "ut_zappos", "cgqa")
OPEN = ("ut_zappos",)
"""The others have 28,175 and 278,362 candidates, which take some methods hours to follow."""
BATCH = 16
START, END = "<!-- counted by benchmarks.studies.counted_costs -->", "<!-- end -->"
HEADS = (
    "method", "trained", "train/img", "ratio", "eval/img closed", "open", "text closed", "open", "GB train",
    "epoch, PFLOPs",
)  # fmt: skip


def table(closed: Profile, opened: Profile | None) -> str:
    """Return the counts of a label space as Markdown, a line for each method, the backbone alone as the last.

    opened: the same methods in the open world; None leaves its columns empty.
    A method that could not be counted is a `UserError` with its reason.
    """
    pairs = f"{closed.labels.candidates:,} candidates in the closed"
    if opened is not None:
        pairs += f" and {opened.labels.candidates:,} in the open"
    lines = [
        f"**{closed.settings.labels}**: {closed.labels.train_pairs:,} training pairs, {pairs} world, "
        f"{closed.labels.train_images:,} training images",
        "",
        line(HEADS),
        line(("---", *["---:"] * (len(HEADS) - 1))),
    ]
    least = _counts(closed.backbone)[0].train_step
    beside = [None] * len(every(closed)) if opened is None else [_counts(row)[0] for row in every(opened)]
    for row, other in zip(every(closed), beside, strict=True):
        counts, memory = _counts(row)
        training = (
            giga(counts.train_image),
            f"{counts.train_step / least:.2f}",
            f"{memory.training / 1e9:.2f}",
            f"{counts.train_epoch / 1e15:.2f}",
        )
        step, ratio, gigabytes, epoch = training if counts.train_step else ("–",) * len(training)
        scoring = (giga(counts.eval_image), "" if other is None else giga(other.eval_image))
        text = (giga(counts.prepare), "" if other is None else giga(other.prepare))
        lines.append(line((row.method, f"{row.parameters or 0:,}", step, ratio, *scoring, *text, gigabytes, epoch)))
    return "\n".join(lines)


def _counts(row: Row) -> tuple[Flops, Estimate]:
    if row.flops is None or row.estimate is None:
        raise UserError(
            f"'{row.method}' cannot be shown in this table.",
            row.error or "It was not counted.",
            "Leave it out with --methods.",
        )
    return row.flops, row.estimate


@program
def main() -> None:
    """Print the tables, and put them into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS.names())
    parser.add_argument("--backbone", default=BACKBONE)
    parser.add_argument("--update", type=page_with(START, END), help="document whose tables are replaced")
    arguments = parser.parse_args()
    made = []
    for name in DATA:
        settings = Settings(
            methods=tuple(arguments.methods), backbone=arguments.backbone, labels=name, batch=BATCH, flops_only=True
        )
        opened = take(settings.model_copy(update={"world": "open"})) if name in OPEN else None
        made.append(table(take(settings), opened))
        print(made[-1], end="\n\n", flush=True)
    if arguments.update is not None:
        text = "\n\n".join(made)
        files.put_between(arguments.update, START, END, f"\n{text}\n")


if __name__ == "__main__":
    main()
