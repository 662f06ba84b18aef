"""Print what a test of a grader has measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudft.evaluate.rewards.run import RewardReport
    from cloudft.spec.load import LoadedJob


def report_json(job: LoadedJob, report: RewardReport, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report as JSON data."""
    from cloudft.evaluate.rewards.figures import HOPELESS
    from cloudft.types import to_json

    model = report.answers.model
    return {
        "ok": report.verdict not in HOPELESS,
        "verdict": report.verdict,
        "sentence": report.sentence,
        "model": model,
        "baseModel": job.spec.base_model,
        "isStandIn": model is not None and not job.model.is_open_weight,
        "figures": to_json(report.figures),
        "warnings": [{"message": message, "fix": fix} for message, fix in report.warnings],
        "grader": {
            "medianMilliseconds": 1000 * report.median_call_seconds,
            "maxMilliseconds": 1000 * max(report.call_seconds),
            "millisecondsPerAnswer": 1000 * report.seconds_per_answer,
        },
        "run": dict(run),
        "groups": [
            {
                "file": group.file,
                "line": group.line,
                "rewards": group.rewards,
                "lengths": [answer.length for answer in group.answers],
                "answers": [one.text for one in texts],
            }
            for group, (_, texts) in zip(report.groups, report.answers.groups, strict=True)
        ],
    }


def report_text(value: Mapping[str, Any]) -> str:
    """Return the report for people: the sentence first."""
    return "\n".join([value["sentence"], "", *_figure_lines(value), *_run_lines(value["run"])])


def _figure_lines(value: Mapping[str, Any]) -> Iterator[str]:
    from cloudft.cli.number_format import format_number

    figures, grader = value["figures"], value["grader"]
    whose = f" of {value['model']}" if value["model"] else ""
    instead = f", in place of {value['baseModel']}" if value["isStandIn"] else ""
    yield f"answers   {figures['answers']} to {figures['prompts']} prompts{whose}{instead}"
    yield (
        f"rewards   mean {format_number(figures['mean'])}, from {format_number(figures['lowest'])}"
        f" to {format_number(figures['highest'])}; {_percent(figures['zeroShare'])} zero,"
        f" {_percent(figures['fullShare'])} full ({figures['fullReward']:g})"
    )
    yield (
        f"groups    {figures['equalGroups']} of {figures['groups']} have equal rewards;"
        f" spread inside a group {format_number(figures['spread'])}"
    )
    correlation = figures["lengthCorrelation"]
    shown = "too few answers differ" if correlation is None else f"{correlation:+.2f} (Spearman)"
    yield f"length    correlation with the reward inside groups: {shown}"
    yield (
        f"grader    {_milliseconds(grader['medianMilliseconds'])} a call (median),"
        f" {_milliseconds(grader['maxMilliseconds'])} at most;"
        f" {_milliseconds(grader['millisecondsPerAnswer'])} an answer"
    )
    for warning in value["warnings"]:
        yield f"warning: {warning['message']}"
        yield f"  fix: {warning['fix']}"


def _run_lines(run: Mapping[str, Any]) -> Iterator[str]:
    from cloudft.cli.number_format import format_duration, format_usd

    if run["answers"] is not None:
        yield (
            f"a run     {run['epochs']} epochs x {run['prompts']:,} prompts x"
            f" {run['samplesPerPrompt']} answers = {run['answers']:,} answers:"
            f" {format_duration(run['graderSeconds'])} of the grader"
        )
        if run["samplingSecondsHere"] is not None:
            time = format_duration(run["samplingSecondsHere"])
            yield f"          sampling them here takes {time}"
    for price in run["prices"]:
        hours = run["maxHours"]
        bound = (
            f"; {hours:g} hours at most (reinforcement.max_hours):"
            f" {format_usd(hours * price['usdPerHour'])}"
            if hours is not None
            else "; how many hours is not known before it runs: set reinforcement.max_hours"
        )
        source, date = price["source"], price["date"]
        origin = source if date in source else f"{source}, {date}"
        per_hour = format_usd(price["usdPerHour"])
        yield f"cost      {price['backend']}: {per_hour} an hour ({origin}){bound}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.2g} ms"
