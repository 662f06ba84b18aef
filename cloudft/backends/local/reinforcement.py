"""What a reinforcement job is to the local trainer: its hyperparameters, and what is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudft import catalogue
from cloudft.backends.trained_model import trained_model
from cloudft.catalogue import Hyperparameter
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity

REINFORCEMENT = "REINFORCEMENT_FINE_TUNING"
NOT_LOCAL = ("reasoningEffort",)
"""Hyperparameters of Bedrock that no open-weight model has: without effect here, and no error, so
that the same job file runs on both."""


def is_reinforcement(job: LoadedJob) -> bool:
    """Return whether the job learns from rewards."""
    return job.spec.customization_type == REINFORCEMENT


def given_hyperparameters(job: LoadedJob) -> dict[str, int | float]:
    """Return what `reinforcement.hyperparameters` sets of the trainer's, as numbers."""
    section = job.spec.reinforcement
    given = {} if section is None else section.hyperparameters
    return {
        name: value
        for name, value in given.items()
        if not isinstance(value, str) and name in table()
    }


def table() -> Mapping[str, Hyperparameter]:
    """Return the hyperparameters of the trainer for such jobs."""
    return catalogue.load_local_hyperparameters(REINFORCEMENT)


def build_settings(job: LoadedJob) -> dict[str, Any]:
    """Return the part of job.json that only such a job has. Defaults are left out."""
    if not is_reinforcement(job):
        return {}
    return {"reinforcement": job.spec.local.reinforcement.model_dump(exclude_defaults=True)}


def check_reinforcement(job: LoadedJob) -> Iterator[Finding]:
    """Yield what prevents a reinforcement job from running here, with its field."""
    if not is_reinforcement(job):
        yield from _check_unused(job)
        return
    local, section = job.spec.local, job.spec.reinforcement
    if section is None or section.grader is None:
        message, fix = "the job has no grader", "name its file: `reinforcement: {grader: FILE.py}`."
        if section is not None and section.lambda_arn is not None:
            message = "the job names no grader's file, and lambda_arn is a function on AWS"
        field = "reinforcement" if section is None else "reinforcement.grader"
        yield _finding(job, "error", "MissingValue", field, message, fix)
    if section is None:
        return
    yield from _check_hyperparameters(job, section.hyperparameters)
    yield from _check_length(job)
    if local.processes not in (1, "auto") or local.fsdp is True:
        field = "local.fsdp" if local.fsdp is True else "local.processes"
        message = f"{REINFORCEMENT} trains in one process here: it samples answers and learns"
        fix = "set local.processes: 1, and leave local.fsdp out."
        yield _finding(job, "error", "OneProcess", field, f"{message} from them in turn", fix)
    if local.method == "full" and local.reinforcement.beta > 0:
        message = (
            "local.reinforcement.beta compares with the base model, which local.method: full does"
            " not keep"
        )
        fix = "set beta: 0, or use `method: lora`, whose base is the model without adapters."
        field = "local.reinforcement.beta"
        yield _finding(job, "error", "NoReference", field, message, fix)


def _check_unused(job: LoadedJob) -> Iterator[Finding]:
    """Yield a warning for settings of such jobs where the job is none."""
    if job.spec.local.reinforcement.model_fields_set:
        message = f"local.reinforcement has no effect on {job.spec.customization_type}"
        fix = f"remove it, or set customization_type: {REINFORCEMENT}."
        yield _finding(job, "warning", "UnusedValue", "local.reinforcement", message, fix)


def _check_hyperparameters(job: LoadedJob, given: Mapping[str, object]) -> Iterator[Finding]:
    for name, value in given.items():
        field, row = f"reinforcement.hyperparameters.{name}", table().get(name)
        if name in NOT_LOCAL:
            message = f"{name} has no effect here: open-weight models have no such setting"
            yield _finding(
                job, "warning", "UnusedValue", field, message, "remove it for a local job."
            )
        elif row is None:
            known = ", ".join(table())
            message = f"the local trainer has no hyperparameter {name!r} (it has {known})"
            yield _finding(job, "error", "HyperparameterNotLocal", field, message, "remove it.")
        elif not _fits(value, row):
            whole = "a whole number" if row.type == "int" else "a number"
            message = f"{name} is {value}; the local trainer takes {whole} from {row.min:g} to"
            fix = f"give a value of {row.min:g} to {row.max:g}."
            yield _finding(job, "error", "OutOfRange", field, f"{message} {row.max:g}", fix)


def _check_length(job: LoadedJob) -> Iterator[Finding]:
    """Yield an error where an answer alone may be longer than prompt and answer together."""
    model, name = trained_model(job), "inferenceMaxTokens"
    limits = [job.spec.local.max_length, model.context if model else None]
    room = min((limit for limit in limits if limit is not None), default=None)
    overrides = job.spec.local.hyperparameters
    value = {**given_hyperparameters(job), **overrides}.get(name)
    if room is None or value is None or value < room:
        return
    section = "local" if name in overrides else "reinforcement"
    message = f"{name} is {value}, and prompt and answer have {room} tokens together"
    fix = f"set it below {room}, with room for the prompt."
    yield _finding(job, "error", "OutOfRange", f"{section}.hyperparameters.{name}", message, fix)


def _fits(value: object, row: Hyperparameter) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (row.type != "int" or isinstance(value, int)) and row.min <= value <= row.max


def _finding(
    job: LoadedJob, severity: Severity, code: str, field: str, message: str, fix: str
) -> Finding:
    path = str(job.path) if job.path else None
    return Finding(severity, code, message, fix, path, job.line_of(field), field)
