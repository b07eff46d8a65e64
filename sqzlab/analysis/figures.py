"""The three figures of a study: learning curves, gain over the baseline, accuracy against cost.

A panel for each group of arms. Colour and marker follow the squeeze (Okabe and Ito's colours, told apart by marker
too); what is missing is named in its panel. Drawn without pyplot and without dates: equal records, equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

End = tuple[float, float, str, tuple[str, str]]  # x, y, text, (colour, marker)
INK, FAINT, GRID, PAPER = "#222222", "#777777", "#d4d4d4", "#ffffff"  # the report lets them follow light and dark
MOST_ARMS, MOST_GROUPS = 16, 9
CURVES_PER_ARM = 5  # so many seeds are drawn as lines; more become a band from least to greatest
MOST_SEEDS = 20  # so many seeds of an arm are drawn one by one at most


def why_not_drawn(groups: Sequence[Group]) -> str | None:
    """Why figures of these groups would not be readable, or None."""
    most = max((len(group.arms) for group in groups), default=0)
    if most > MOST_ARMS or len(groups) > MOST_GROUPS:
        return (
            f"figures are not drawn: {most} arms in {len(groups)} groups cannot be told apart "
            f"(at most {MOST_ARMS} in {MOST_GROUPS}); the tables hold them all"
        )
    if not any(arm.n for group in groups for arm in group.arms):
        return "figures are not drawn: no run has finished"
    return None


def learning_curves(groups: Sequence[Group], curves: pd.DataFrame) -> Figure:
    """Training loss and validation error by epoch, a row for each group: mean over seeds, and the seeds."""
    by_run = {str(run_id): epochs for run_id, epochs in curves.groupby("run_id")}
    figure, axes = _panels(len(groups), 2, panel=(2.45, 2.3), gaps=(_room(groups) + 0.55, 1.0), right=_room(groups))
    for (left, right), group in zip(axes, groups, strict=True):
        for ax, metric in ((left, "train_loss"), (right, "top1_err")):
            ends = [end for arm in group.arms if (end := _curve(ax, arm, metric, by_run)) is not None]
            _title(ax, group)
            ax.set(xlabel="epoch", ylabel=METRICS[metric].label)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if ends:
                _log_ticks(ax)
                _label_ends(ax, ends)
    return figure


def gain_over_baseline(groups: Sequence[Group]) -> Figure:
    """Top-1 gain by arm: a dot for each seed, a marker for the mean, a bar of one sample standard deviation."""
    columns = min(2, len(groups))
    height = 0.27 * max(len(group.arms) for group in groups) + 0.1
    width = 5.2 if columns == 1 else 2.35
    rows, room = -(-len(groups) // columns), max(1.05, _room(groups))
    figure, axes = _panels(rows, columns, panel=(width, height), gaps=(room + 0.1, 1.0), left=room, bottom=0.65)
    for ax, group in zip(axes.flat, groups, strict=False):
        _gains(ax, group)
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    told = "marker: mean; bar: ± one sample standard deviation over the seeds; dots: seeds"
    figure.text(room / figure.get_figwidth(), 0.08 / figure.get_figheight(), told, fontsize=7, color=FAINT)
    return figure


def accuracy_against_cost(groups: Sequence[Group]) -> Figure:
    """Mean Top-1 accuracy against MACs, a panel for each group, each arm named."""
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    width = 4.4 if columns == 1 else 2.0
    figure, axes = _panels(rows, columns, panel=(width, 2.5), gaps=(_room(groups) + 0.6, 1.0), right=_room(groups))
    macs = [count for group in groups for arm in group.arms if (count := arm.count("macs"))]
    metric = METRICS["gflops" if max(macs, default=0) >= 1e9 else "mflops"]
    for ax, group in zip(axes.flat, groups, strict=False):
        ends = []
        for arm in group.arms:
            mean, count = arm.mean("top1"), arm.count(metric.key)
            if mean is None or count is None:
                continue
            colour, marker = _look(arm)
            ax.plot(metric.transform(count), mean, color=colour, marker=marker, mec=PAPER, mew=0.6, ms=7, ls="none")
            ends.append((metric.transform(count), mean, arm.label, (colour, marker)))
        _title(ax, group)
        ax.set(xlabel=metric.label, ylabel=f"mean {METRICS['top1'].label}")
        ax.margins(0.12)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.ticklabel_format(useOffset=False)
        if ends:
            _label_ends(ax, ends)
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    return figure


def draw(groups: Sequence[Group], curves: pd.DataFrame) -> dict[str, bytes]:
    """All figures in all formats, by file name."""
    files = {}
    with matplotlib.style.context(STYLE):
        drawn = {
            "gain": gain_over_baseline(groups),
            "curves": learning_curves(groups, curves),
            "cost": accuracy_against_cost(groups),
        }
        for name, figure in drawn.items():
            for kind, metadata in FORMATS.items():
                file = io.BytesIO()
                figure.savefig(file, format=kind, metadata=dict(metadata))
                files[f"{name}.{kind}"] = file.getvalue()
    return files


# ---- parts of a panel --------------------------------------------------------------------------


def _panels(
    rows: int,
    columns: int,
    *,
    panel: tuple[float, float],
    gaps: tuple[float, float],
    left: float = 0.6,
    right: float = 0.15,
    bottom: float = 0.5,
) -> tuple[Figure, Any]:
    """A figure whose panels have this size in inches whatever their number: (figure, axes of (rows, columns))."""
    (width, height), (across, down), top = panel, gaps, 0.45
    total = left + columns * width + (columns - 1) * across + right, top + rows * height + (rows - 1) * down + bottom
    figure = Figure(figsize=total)
    FigureCanvasAgg(figure)
    axes = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * (width + across), bottom + (rows - 1 - row) * (height + down)
            axes[row, column] = figure.add_axes((x / total[0], y / total[1], width / total[0], height / total[1]))
    return figure, axes


def _curve(ax: Axes, arm: Arm, metric: str, by_run: Mapping[str, pd.DataFrame]) -> End | None:
    """Draws an arm's seeds and their mean; returns where its label belongs, or None without any epoch."""
    shown = METRICS[metric]
    runs = [by_run[row["run_id"]] for row in arm.done if row["run_id"] in by_run]
    if not runs:
        return None
    epochs = np.unique(np.concatenate([run["epoch"] for run in runs]))
    lines = np.full((len(runs), len(epochs)), np.nan)
    for line, run in zip(lines, runs, strict=True):
        line[np.searchsorted(epochs, run["epoch"])] = shown.transform(run[shown.key].to_numpy())
    whole = ~np.isnan(lines).any(axis=0)  # a mean over fewer seeds would jump where a file is cut
    epochs, lines = epochs[whole], lines[:, whole]
    if not len(epochs):
        return None
    colour, marker = _look(arm)
    if 1 < len(lines) <= CURVES_PER_ARM:
        ax.plot(epochs, lines.T, color=colour, lw=0.5, alpha=0.45)
    elif len(lines) > CURVES_PER_ARM:
        ax.fill_between(epochs, lines.min(axis=0), lines.max(axis=0), color=colour, alpha=0.15, lw=0)
    mean = lines.mean(axis=0)
    every = list(range(len(epochs) - 1, -1, -max(1, len(epochs) // 8)))
    ax.plot(epochs, mean, color=colour, marker=marker, markevery=every, ms=3.5, mec=PAPER, mew=0.4)
    return float(epochs[-1]), float(mean[-1]), arm.label, (colour, marker)


def _gains(ax: Axes, group: Group) -> None:
    reference = None if group.baseline is None else group.baseline.mean("top1")
    for y, arm in enumerate(group.arms):
        colour, marker = _look(arm)
        if reference is None or arm.n == 0:
            text = arm.note() or "no baseline"
            ax.annotate(text, (0, y), (4, 0), textcoords="offset points", va="center", color=FAINT, fontsize=7.5)
            continue
        gains, sd = arm.values("top1") - reference, arm.sd("top1")
        ax.errorbar(
            gains.mean(), y, xerr=sd, color=colour, marker=marker, ms=6.5, mec=PAPER, mew=0.6, capsize=2.5, elinewidth=1
        )
        if arm.n <= MOST_SEEDS:
            ax.plot(gains, np.full(arm.n, y + 0.26), color=colour, marker=".", ms=3.5, ls="none", alpha=0.8)
    ax.axvline(0, color=INK, lw=0.6)
    counts = [f"\n(n = {arm.n} of {len(arm.rows)})" if 0 < arm.n < len(arm.rows) else "" for arm in group.arms]
    ax.set_yticks(range(len(group.arms)), [arm.label + count for arm, count in zip(group.arms, counts, strict=True)])
    ax.set_ylim(len(group.arms) - 0.4, -0.6)
    ax.yaxis.grid(False)
    ax.margins(x=0.08)
    ax.set(title=group.title, xlabel=METRICS["improved"].label)


def _label_ends(ax: Axes, ends: Sequence[End]) -> None:
    """Names each end at the right edge beside its marker, moved apart so that no two names touch."""
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())
    ordered = sorted(ends, key=lambda end: end[1])
    points = ax.transAxes.inverted().transform(ax.transData.transform([end[:2] for end in ordered]))
    box = ax.get_window_extent()
    width, height = box.width / ax.figure.dpi, box.height / ax.figure.dpi
    x = 1 + 0.15 / width
    places = _apart(points[:, 1], 0.135 / height)
    leaders = [[point, (x, place)] for point, place in zip(points, places, strict=True)]
    ax.add_collection(
        LineCollection(leaders, transform=ax.transAxes, clip_on=False, lw=0.6, ls=":", colors=FAINT, zorder=1.5)
    )
    for (_, _, text, (colour, marker)), place in zip(ordered, places, strict=True):
        ax.plot(
            x, place, transform=ax.transAxes, color=colour, marker=marker, ms=4.5, mec=PAPER, mew=0.4, clip_on=False
        )
        ax.text(x + 0.07 / width, place, text, transform=ax.transAxes, va="center_baseline", fontsize=7.5)


def _apart(wanted: Any, gap: float) -> list[float]:
    """Rising places near the wanted ones, at least `gap` apart, between 0 and 1 as far as there is room."""
    clusters: list[tuple[float, int]] = []  # (centre, members)
    for place in wanted:
        clusters.append(_inside(float(place), 1, gap))
        while len(clusters) > 1:
            (low, n), (high, m) = clusters[-2:]
            if high - low >= gap * (n + m) / 2 - 1e-9:
                break
            clusters[-2:] = [_inside((low * n + high * m) / (n + m), n + m, gap)]
    return [centre + gap * (i - (n - 1) / 2) for centre, n in clusters for i in range(n)]


def _inside(centre: float, members: int, gap: float) -> tuple[float, int]:
    half = min(gap * (members - 1) / 2, 0.5)
    return min(max(centre, half), 1 - half), members


def _log_ticks(ax: Axes) -> None:
    """A logarithmic axis, with numbers at 1, 2 and 5, so that late differences show; linear where a value is 0."""
    if min(np.nanmin(np.asarray(line.get_ydata(), dtype=float)) for line in ax.lines) <= 0:
        return
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ticks = [m * 10.0**e for e in range(-6, 4) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    ax.yaxis.set_major_locator(FixedLocator(ticks) if len(ticks) > 1 else MaxNLocator(4))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _room(groups: Sequence[Group]) -> float:
    """Inches beside a panel that the longest name and its marker take."""
    return 0.38 + 0.062 * max(len(arm.label) for group in groups for arm in group.arms)


def _title(ax: Axes, group: Group) -> None:
    """The group's name, and below it the arms that have no result."""
    absent = [f"{arm.label} ({arm.note()})" for arm in group.arms if arm.n == 0]
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    ax.set_title(group.title, pad=15 if absent else 7)
    if absent:
        ax.annotate(f"no result: {', '.join(absent[:3])}{more}", (0, 1), (0, 5), xycoords="axes fraction",
                    textcoords="offset points", fontsize=7, color=FAINT)  # fmt: skip


def _look(arm: Arm) -> tuple[str, str]:
    """Colour and marker; arms that share a squeeze share the colour."""
    squeeze = str(arm.cell.get("model.squeeze", arm.label))
    return LOOKS.get(squeeze, OTHER_LOOK)


STYLE = str(Path(__file__).with_name("print.mplstyle"))
FORMATS: dict[str, Mapping[str, None]] = {
    "svg": {"Date": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}
LOOKS = {  # Okabe and Ito's colours without the yellow, which vanishes on paper
    "baseline": (INK, "s"),
    "gap": ("#0072B2", "o"),
    "gmp": ("#E69F00", "^"),
    "std": ("#009E73", "D"),
    "gapXstd": ("#56B4E9", "v"),
    "random": ("#888888", "X"),
    "SP": ("#D55E00", "P"),
    "RG": ("#CC79A7", "p"),
}
OTHER_LOOK = ("#7F6000", "*")
