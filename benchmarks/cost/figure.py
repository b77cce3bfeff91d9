"""The figure of a profile: seconds of a training step by part; GFLOPs by part where nothing was measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cost.parts import PARTS
from benchmarks.cost.record import Profile
from benchmarks.cost.tables import every, part_seconds
from benchmarks.report.style import new, pyplot, save


def draw(profile: Profile, path: Path) -> list[Path]:
    """Write the figure beside `path` in every format of the report and return the files; [] with nothing to show."""
    import pandas as pd
    import seaborn as sns

    rows = []
    timed = any(row.timing is not None and row.timing.step is not None for row in every(profile))
    for row in every(profile):
        if timed and row.timing is not None and row.timing.step is not None:
            costs = part_seconds(profile, row)
        elif not timed and row.flops is not None and row.flops.train_step:
            costs = {part: value / 1e9 for part, value in row.flops.train_parts.items()}
        else:
            continue
        name = "backbone alone" if row is profile.backbone else row.method
        rows += [{"method": name, "part": part, "cost": cost} for part, cost in costs.items()]
    if not rows:
        return []
    data = pd.DataFrame(rows)
    parts = [part for part in ("decode", *PARTS) if data.loc[data["part"] == part, "cost"].sum() > 0]
    pyplot()
    names = list(dict.fromkeys(data["method"]))
    figure, axes = new(0.45 + 0.25 * len(names), width=5.5)
    sns.histplot(
        data.assign(method=pd.Categorical(data["method"], names)),
        y="method",
        weights="cost",
        hue="part",
        hue_order=parts[::-1],  # the last is drawn first, at the axis
        palette=sns.color_palette("colorblind", len(parts))[::-1],
        multiple="stack",
        discrete=True,
        shrink=0.75,
        edgecolor="white",
        linewidth=0.3,
        ax=axes,
    )
    settings = profile.settings
    axes.set(ylabel="", xlabel=f"{'seconds' if timed else 'GFLOPs'} of a training step, {settings.labels}")
    sns.move_legend(axes, "center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title=None, reverse=True)
    return save(figure, path)
