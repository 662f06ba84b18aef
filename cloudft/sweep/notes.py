"""What a reader has to know of a sweep's result, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.sweep.result import SweepResult
from cloudft.sweep.table import format_value, trial_name


def notes(result: SweepResult) -> Iterator[str]:
    """Yield what a reader has to know of the best and of the trials."""
    for edge in result.edges:
        way = "lower" if edge.side == "low" else "higher"
        yield (
            f"the best {edge.name} ({format_value(edge.value)}) lies on the edge of the space:"
            f" a {way} one may be better; widen it"
        )
    pruning = result.pruning
    if pruning.trials:
        yield (
            f"{pruning.trials} trials were stopped early, which saved about"
            f" {format_seconds(pruning.saved_seconds)}"
        )
    diverged = [trial_name(one.number) for one in result.trials if one.outcome == "diverged"]
    if diverged:
        yield f"the loss became no number in trial {', '.join(diverged)}: ended, and worst"
    same = sum(one.same_as is not None for one in result.trials)
    if same:
        yield f"{same} points were drawn twice; they have the score of the first"
    unstable = {trial_name(one.number) for one in result.repeats if one.outcome == "diverged"}
    if unstable:
        yield f"trial {', '.join(sorted(unstable))} diverged with another seed: it is no choice"


def importance_text(result: SweepResult) -> str:
    """Return what moves the score, with the method and the trials that it rests on."""
    importance = result.importance
    if importance.reason is not None:
        return f"what moves the score: {importance.reason}"
    shares = ", ".join(f"{one.name} {one.share:.0%}" for one in importance.parameters)
    return (
        f"what moves the score: {shares} of its variance ({importance.method} over"
        f" {importance.trials} complete trials)"
    )


def format_seconds(seconds: float) -> str:
    """Return a duration in seconds, or in minutes from two on."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
