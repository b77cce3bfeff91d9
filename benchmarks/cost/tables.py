"""The tables of a profile, for the terminal (80 columns), Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost.decoding import workers_needed
from benchmarks.cost.parts import PARTS
from benchmarks.cost.record import Profile, Row
from benchmarks.runs.files import write_aside

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Cells for people. The first column is text, the others are numbers."""

    title: str
    heads: Cells
    rows: Sequence[Cells]
    notes: Sequence[str] = ()


def tables(profile: Profile) -> list[Table]:
    """Return what was counted and, if anything was measured, the times and the shares of parts."""
    found = [counted(profile)]
    if any(row.timing is not None for row in (profile.backbone, *profile.rows)):
        found += [measured(profile), shares(profile)]
    return found


def every(profile: Profile) -> tuple[Row, ...]:
    """Return the rows of the methods, then that of the backbone alone."""
    return (*profile.rows, profile.backbone)


def counted(profile: Profile) -> Table:
    """Return parameters, GFLOPs and the estimate of memory."""
    heads = ("method", "trained", "step", "train/img", "ratio", "eval/img", "text", "GB train", "GB eval")
    least = profile.backbone.flops
    rows = []
    for row in every(profile):
        flops, memory = row.flops, row.estimate
        if flops is None or memory is None:
            rows.append((row.method, *[""] * (len(heads) - 1)))
            continue
        ratio = flops.train_step / least.train_step if least is not None and flops.train_step else None
        rows.append(
            (
                row.method,
                millions(row.parameters or 0),
                giga(flops.train_step) if flops.train_step else "–",
                giga(flops.train_image) if flops.train_step else "–",
                "–" if ratio is None else f"{ratio:.2f}",
                giga(flops.eval_image),
                giga(flops.prepare),
                f"{memory.training / 1e9:.2f}" if flops.train_step else "–",
                f"{memory.evaluation / 1e9:.2f}",
            )
        )
    about, labels = profile.settings, profile.labels
    batch = f"batches of {about.batch}" if about.batch else "each method's own batch size"
    notes = [
        f"{labels.train_pairs:,} training pairs, {labels.candidates:,} candidates ({about.world} world), {batch}. "
        "GFLOPs (a multiplication with its addition is 2): a training step, an image of it, an image in evaluation, "
        "the text of all candidates once. ratio: the step to that of the backbone alone. GB: estimated.",
        *[f"{row.method}: {row.error}" for row in every(profile) if row.error],
    ]
    return Table(f"{about.backbone}, {about.labels}: counted", heads, rows, notes)


def measured(profile: Profile) -> Table:
    """Return milliseconds, images per second, memory and the ratios to the backbone."""
    heads = ("method", "ms/step", "±", "img/s", "ratio", "/image", "ms/img", "img/s", "GB", "GB est.")
    base = profile.backbone.timing
    least = None if base is None or base.step is None else base.step.median
    tower = None if base is None else base.step_parts.get("vision")
    rows = []
    for row in every(profile):
        timing = row.timing
        if timing is None:
            rows.append((row.method, *["failed"] * bool(row.error), *[""] * (len(heads) - 1 - bool(row.error))))
            continue
        step, image = timing.step, timing.evaluation.median / row.batch
        estimate = None if row.estimate is None else row.estimate.training or row.estimate.evaluation
        memory = timing.memory_training if timing.memory_training is not None else timing.memory_evaluation
        rows.append(
            (
                row.method,
                "–" if step is None else f"{step.median * 1e3:,.0f}",
                "–" if step is None else f"{(step.most - step.least) / 2 * 1e3:,.0f}",
                "–" if step is None else number(row.batch / step.median),
                "–" if step is None or least is None else f"{step.median / least:.2f}",
                "–" if step is None or not tower else f"{step.median / tower:.1f}",
                f"{image * 1e3:,.1f}",
                number(1 / image),
                "–" if memory is None else f"{memory / 1e9:.2f}",
                "" if estimate is None else f"{estimate / 1e9:.2f}",
            )
        )
    settings = profile.settings
    device = profile.environment.get("gpu") or profile.environment.get("cpu", {}).get("name") or settings.device
    notes = [
        f"{device}, {settings.precision}, {profile.environment.get('threads', '?')} threads; median of "
        f"{settings.steps} steps after {settings.warmup}, ± half their range. ratio: a step to a step of the backbone "
        "alone (image tower forward once, text tower over all training pairs forward and backward). /image: to the "
        "image tower's forward pass alone. ms/img and the second img/s: evaluation, the text being prepared. GB: peak "
        "above what the process had before the method was built; est.: as estimated before a run.",
        *decoding_notes(profile),
    ]
    return Table(f"{settings.backbone}, {settings.labels}: measured", heads, rows, notes)


def decoding_notes(profile: Profile) -> list[str]:
    """Return in a sentence how many decoding processes keep up with the fastest step and evaluation."""
    decoding = profile.decoding
    if decoding is None:
        return []
    rates = [
        ("step", row.method, row.batch / row.timing.step.median)
        for row in profile.rows
        if row.timing is not None and row.timing.step is not None
    ]
    rates += [
        ("evaluation", row.method, row.batch / row.timing.evaluation.median)
        for row in profile.rows
        if row.timing is not None
    ]
    needs = []
    for kind in ("step", "evaluation"):
        own = [(rate, method) for what, method, rate in rates if what == kind]
        if own:
            rate, method = max(own)
            workers = workers_needed(rate, decoding)
            needs.append(f"{workers} for the fastest {kind} ({method}, {rate:,.1f} images/s)")
    return [
        f"Decoding: one process reads {decoding.images_per_second:,.0f} JPEG images/s of {decoding.width} x "
        f"{decoding.height} pixels ({decoding.bytes / 1e3:.0f} KB), augmented; processes needed to keep up: "
        f"{', '.join(needs)}."
    ]


def shares(profile: Profile) -> Table:
    """Return the share of each part in the time of a training step, in percent, forward and backward together."""
    heads = ("method", "decode", *PARTS)
    rows = []
    for row in every(profile):
        if row.timing is None or row.timing.step is None:
            continue
        parts = part_seconds(profile, row)
        total = sum(parts.values())
        rows.append((row.method, *(f"{100 * parts.get(part, 0.0) / total:.1f}" for part in heads[1:])))
    notes = [
        "Percent of a training step whose images are decoded in the same process (other processes take decode off it). "
        "vision: image tower with adapters; text: text tower over all training pairs; interaction: fusion, "
        "cross-attention, comparing; each forward and backward. other: what no part claims."
    ]
    return Table("Share of time by part", heads, rows, notes)


def part_seconds(profile: Profile, row: Row) -> dict[str, float]:
    """Return the seconds of each part of a training step, with the decoding of its images."""
    timing = row.timing
    if timing is None:
        return {}
    decode = 0.0 if profile.decoding is None else row.batch / profile.decoding.images_per_second
    return {"decode": decode, **timing.step_parts}


def markdown(found: Sequence[Table]) -> str:
    """Return tables as Markdown."""
    texts = []
    for table in found:
        lines = [f"**{table.title}**", "", line(table.heads)]
        lines.append(line(("---", *["---:"] * (len(table.heads) - 1))))
        lines += [line(row) for row in table.rows]
        for note in table.notes:
            lines += ["", note]
        texts.append("\n".join(lines))
    return "\n\n".join(texts) + "\n"


def write_csv(profile: Profile, path: Path) -> None:
    """Write one line per method with the numbers as they are."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    fields = ("train_step", "train_image", "train_epoch", "eval_image", "prepare")
    writer.writerow(
        ["method", "batch", "trained_parameters", *(f"flops_{name}" for name in fields)]
        + ["bytes_estimated_training", "bytes_estimated_evaluation", "step_seconds", "step_least", "step_most"]
        + ["evaluation_seconds_per_image", "prepare_seconds", "bytes_training", "bytes_evaluation"]
        + [f"seconds_{part}" for part in ("decode", *PARTS)]
        + ["error"]
    )
    for row in every(profile):
        flops, memory, timing = row.flops, row.estimate, row.timing
        step = None if timing is None else timing.step
        parts = part_seconds(profile, row) if step is not None else {}
        writer.writerow(
            [row.method, row.batch, row.parameters, *(None if flops is None else getattr(flops, f) for f in fields)]
            + ([None, None] if memory is None else [memory.training, memory.evaluation])
            + ([None] * 3 if step is None else [step.median, step.least, step.most])
            + ([None, None] if timing is None else [timing.evaluation.median / row.batch, timing.prepare])
            + ([None, None] if timing is None else [timing.memory_training, timing.memory_evaluation])
            + [parts.get(part) for part in ("decode", *PARTS)]
            + [row.error]
        )
    write_aside(path, lambda file: file.write(target.getvalue().encode()))


def line(cells: Cells) -> str:
    """Return a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def giga(flops: float) -> str:
    """Return FLOPs in units of 10^9 with three digits.

    >>> giga(8.8e9), giga(528e9), giga(1.604e12)
    ('8.8', '528', '1,604')
    """
    value = flops / 1e9
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def millions(count: int) -> str:
    """Return a count for people.

    >>> millions(0), millions(1536), millions(18_053_554)
    ('0', '1,536', '18.05 M')
    """
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"


def number(value: float) -> str:
    """Return a rate with two or three digits.

    >>> number(0.8123), number(12.34), number(345.6)
    ('0.81', '12.3', '346')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
