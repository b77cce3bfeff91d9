"""The table of methods across backbones, and what stands with it and with its figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.report.across import FEW_BACKBONES, Across, Family
from benchmarks.report.budgets import budget_notes
from benchmarks.report.captions import caption, test_split
from benchmarks.report.cells import mean_of, number
from benchmarks.report.figures import auc_values
from benchmarks.report.machines import mixture_notes
from benchmarks.report.table_model import GAP, Cell, Column, Table, ranked
from registry import METHODS


def across_table(found: Across) -> Table:
    """Return the mean AUC of methods (rows) on backbones (columns), with intervals, ranks and Kendall's W."""
    family = found.family
    columns = [Column(backbone) for backbone in family.groups]
    by_column = [
        ranked([_cell(found, method, backbone) for method in family.methods], column)
        for backbone, column in zip(family.groups, columns, strict=True)
    ]
    means = [
        number(
            float(np.mean(own))
            if (own := [found.ranks[m, b] for b in family.groups if (m, b) in found.ranks])
            else None
        )
        for m in family.methods
    ]
    titles = METHODS.titles()
    rows = [
        [Cell(text=titles.get(method, method)), Cell(text=_seeds(family, method)), *cells, rank]
        for method, *cells, rank in zip(family.methods, *by_column, means, strict=True)
    ]
    runs = [run for row in family.rows for run in row.runs]
    text = " ".join(
        part for part in (_said(found), _conditions(family), test_split(runs), agreement_text(found)) if part
    )
    missing = [
        family.reason(method, backbone)
        for backbone in family.groups
        for method in family.methods
        if family.row(method, backbone) is None
    ]
    return Table(
        "Across backbones",
        text,
        [Column("method"), Column("seeds"), *columns, Column("mean rank", percent=False, larger_is_better=None)],
        rows,
        [*missing, *cautions(found), *budget_notes(runs), *mixture_notes(runs)],
    )


def _cell(found: Across, method: str, backbone: str) -> Cell:
    row = found.family.row(method, backbone)
    if row is None:
        return Cell(text=GAP)
    rank = found.ranks.get((method, backbone))
    mark = "" if rank is None else f" ({rank:g})"
    return replace(mean_of(auc_values(row).tolist()), interval=found.intervals.get((method, backbone)), mark=mark)


def _seeds(family: Family, method: str) -> str:
    """Return a method's number of seeds, one for all backbones where they agree."""
    rows = [family.row(method, backbone) for backbone in family.groups]
    counts = [len(row.done) for row in rows if row is not None]
    return str(counts[0]) if len(set(counts)) == 1 else "/".join(str(len(row.done)) if row else GAP for row in rows)


def _said(found: Across) -> str:
    source = (
        f" [{100 * found.question.level:g} % interval, as in the tables of each backbone]" if found.intervals else ""
    )
    ranks = " (rank among the methods with results on every backbone)" if found.ranks else ""
    return f"Mean AUC over seeds{ranks}{source}."


def _conditions(family: Family) -> str:
    """Return the caption of one backbone's runs with the names of all backbones in its place."""
    runs = [run for row in family.rows for run in row.runs]
    said = caption(runs)
    return said.replace(f"backbone {runs[0].spec.backbone},", f"backbones {' and '.join(family.groups)},", 1)


def agreement_text(found: Across) -> str:
    """Say how far backbones agree in their order of methods, and what the number means."""
    if found.agreement is None:
        return ""
    agreement, backbones = found.agreement, len(found.family.groups)
    now, interval = agreement.now, agreement.interval
    if np.isnan(now.w):
        return "Kendall's W is undefined: on every backbone all methods are tied."
    over = "test images alone" if agreement.over_images_alone else "training seeds and test images"
    ways = f"all {now.orders:,} orders" if now.exact else f"{now.orders:,} orders drawn"
    ends = "" if np.isnan(interval.low) else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return (
        f"Kendall's W of {len(found.family.everywhere)} methods on {backbones} backbones: {now.w:.2f}{ends} "
        f"({100 * found.question.level:g} % interval, bootstrap of {found.question.resamples:,} resamples over {over}, "
        f"drawn for all methods together); p = {now.p_value:.2g} of a W at least as large where each backbone orders "
        f"the methods at random, from {ways}. W is 1 where all backbones order the methods alike and "
        f"{1 / backbones:.2g} on average where they do so at random. {_best(found)}."
    )


def _best(found: Across) -> str:
    """Name for each backbone the method that is most often its best, with the share of resamples."""
    assert found.agreement is not None
    titles, methods, first = METHODS.titles(), found.family.everywhere, found.agreement.first
    how = "Best in most resamples" if (first.max(axis=1) > 0.5).all() else "Best in more resamples than any other"
    return f"{how}: " + "; ".join(
        f"{backbone}, {titles.get(methods[own.argmax()], methods[own.argmax()])} ({100 * own.max():.0f} %)"
        for backbone, own in zip(found.family.groups, first, strict=True)
    )


def cautions(found: Across) -> list[str]:
    """Say what W cannot mean here: with few backbones, with one seed; or why there is none."""
    if found.reason:
        return [found.reason]
    assert found.agreement is not None
    backbones, notes = len(found.family.groups), []
    if backbones == 2:
        notes.append(
            "Two backbones: W is (1 + rho) / 2 of Spearman's rank correlation rho, never below 0, and says how far "
            "these two agree; of other backbones it says nothing."
        )
    elif backbones < FEW_BACKBONES:
        notes.append(f"{backbones} backbones are too few to speak for others: W describes these.")
    if found.agreement.over_images_alone:
        notes.append(
            "One seed: the interval of W is over test images alone, and how far another training would change the "
            "ranks is not in it."
        )
    elif single := [
        METHODS.titles().get(row.method, row.method) for row in found.family.rows if row.trains and len(row.done) < 2
    ]:
        notes.append(
            f"With one seed somewhere: {', '.join(dict.fromkeys(single))}; seeds are drawn of the others alone."
        )
    return notes


def figure_caption(found: Across) -> str:
    """Say what the figure shows."""
    bars = "; bar: its interval as in the table" if found.intervals else ""
    return (
        f"{found.family.name}: AUC on test by backbone; marker: mean over seeds{bars}. Lines lead the eye from one "
        f"backbone to the next: where they cross, the order changes. {agreement_text(found)} "
        f"{' '.join(cautions(found))}".strip()
    )
