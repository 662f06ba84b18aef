"""Draw rewards by prompt and by length as an image file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.evaluate.rewards.run import RewardReport

SPREAD_COLOR, EQUAL_COLOR = "#0072b2", "#7f7f7f"
"""Of groups whose rewards differ, and of those that teach nothing."""
JITTER = 0.3
"""Half the width over which the answers to one prompt are spread."""


def draw_rewards(report: RewardReport, to: Path) -> None:
    """Draw a grader's report into `to` (.png, .svg).

    Raise UsageError without matplotlib, and for a file that can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib, which is not installed", fix="pip install 'cloudft[plot]'"
        ) from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_prompt, by_length = figure.subplots(1, 2, sharey=True)
    _draw_groups(by_prompt, report)
    _draw_lengths(by_length, report)
    figure.suptitle(report.sentence, fontsize=11)
    try:
        figure.savefig(to, dpi=150)
    except (OSError, ValueError) as error:
        fix = "name a .png or .svg file."
        raise UsageError(f"{to} can't be written: {error}", fix=fix) from error


def _draw_groups(axes: Any, report: RewardReport) -> None:
    groups = sorted(report.groups, key=lambda group: sum(group.rewards) / len(group.rewards))
    for position, group in enumerate(groups):
        count = len(group.rewards)
        shift = [JITTER * (2 * n + 1 - count) / count for n in range(count)]
        color = EQUAL_COLOR if group.is_equal else SPREAD_COLOR
        axes.plot([position + x for x in shift], group.rewards, "o", color=color, ms=4, alpha=0.7)
        mean = sum(group.rewards) / count
        axes.plot([position - JITTER, position + JITTER], [mean, mean], color=color, lw=1.5)
    axes.set(title="answers to each prompt (gray: equal)", xlabel="prompt, by mean reward")
    axes.set_ylabel("reward")
    axes.set_xticks([])
    axes.grid(axis="y", alpha=0.3)


def _draw_lengths(axes: Any, report: RewardReport) -> None:
    answers = [answer for group in report.groups for answer in group.answers]
    for is_cut, marker, label in ((False, "o", None), (True, "x", "cut at the limit")):
        points = [(a.length, a.reward) for a in answers if a.is_cut is is_cut]
        if points:
            axes.plot(
                *zip(*points, strict=True), marker, color=SPREAD_COLOR, ms=4, alpha=0.7, label=label
            )
            if label:
                axes.legend()
    correlation = report.figures.length_correlation
    shown = "" if correlation is None else f": Spearman {correlation:+.2f} inside groups"
    unit = "characters" if report.answers.model is None else "tokens"
    axes.set(title=f"reward and length{shown}", xlabel=f"length of the answer ({unit})")
    axes.grid(alpha=0.3)
