"""Prepare a sweep: its space, its folder, and what a dry run shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudft.backends.local.jobs_at_once import jobs_at_once
from cloudft.errors import UsageError
from cloudft.jobs import teacher_answers
from cloudft.spec.checks import CheckContext
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.spec.validation_errors import SourceMap
from cloudft.storage.home import Home
from cloudft.sweep.folder import SweepFolder, sweep_id
from cloudft.sweep.job_section import SweepSpec
from cloudft.sweep.records import TrialRecord, Value
from cloudft.sweep.result import SweepResult, describe_space, estimate_seconds_left
from cloudft.sweep.space import SpaceParameter, read_space, space_size
from cloudft.sweep.trial_job import TrialFactory, own_values
from cloudft.types import is_validation_role

if TYPE_CHECKING:
    from cloudft.backends.base import StagedJob
    from cloudft.backends.local.backend import LocalBackend

EXAMPLE = "sweep: {space: {learningRate: {low: 1e-5, high: 1e-3, log: true}}}"


def require_space(job: LoadedJob) -> None:
    """Raise UsageError for a job file without a section `sweep`."""
    if job.spec.sweep is None:
        raise UsageError(
            "the job file has no section `sweep`",
            file=str(job.path) if job.path else None,
            field="sweep",
            fix=f"add what is to be searched: `{EXAMPLE}`",
        )


def plan_sweep(
    staged: StagedJob, backend: LocalBackend, home: Home
) -> tuple[TrialFactory, SweepFolder]:
    """Return what builds the trials of a staged job, and the sweep's folder.

    Raise UsageError for a job without validation data, without a teacher's answers, or with a
    parameter that does not change the training; SpecError for bounds that no job can have together.
    """
    job = staged.job
    assert job.spec.sweep is not None
    _require_validation(staged)
    if teacher_answers.count_missing(staged, backend):
        raise UsageError(
            "the teacher has not answered the prompts yet",
            fix="`cloudft submit` collects the answers, once and with their price; then sweep.",
        )
    context = CheckContext(
        job.base_dir,
        SourceMap(None, {}, {}),
        job.spec.customization_type,
        to_portable_values(job),
        job.model,
    )
    space = read_space(job.spec.sweep.model_dump()["space"], context)
    name = sweep_id(staged)
    factory = TrialFactory(staged, space, name)
    for parameter in space:
        _require_effect(factory, parameter, backend)
    return factory, SweepFolder(home.sweeps / name)


def _require_validation(staged: StagedJob) -> None:
    """Raise UsageError for a job without validation data: there is nothing to compare by."""
    if not any(is_validation_role(role) for role in staged.manifest.files):
        raise UsageError(
            "a sweep compares trials by their validation loss, and the job has no validation data",
            field="data.validation",
            file=str(staged.job.path) if staged.job.path else None,
            fix="hold out a share: `data: {validation: 0.1}`. Test data are never used.",
        )


def _require_effect(
    factory: TrialFactory, parameter: SpaceParameter, backend: LocalBackend
) -> None:
    """Raise UsageError for a parameter that leaves the trainer's request as it is."""
    first, last = _extremes(parameter)
    tokens = set()
    for value in (first, last):
        record = TrialRecord(0, {parameter.name: value}, factory.staged.job.spec.seed)
        tokens.add(backend.plan(factory.build(record)).token)
    if len(tokens) == 1:
        raise UsageError(
            f"{parameter.name} does not change the training of this job",
            field=f"sweep.space.{parameter.name}",
            fix="remove it from sweep.space: all of its values would have the same score.",
        )


def _extremes(parameter: SpaceParameter) -> tuple[Value, Value]:
    if parameter.values:
        return parameter.values[0], parameter.values[-1]
    assert parameter.low is not None and parameter.high is not None
    if parameter.kind == "int":
        return int(parameter.low), int(parameter.high)
    return parameter.low, parameter.high


def _seconds_left(done: SweepResult, options: SweepSpec) -> float | None:
    return estimate_seconds_left(
        done,
        trials=options.trials,
        # The job file's own values are repeated too, unless they are among the best.
        repeats=options.seeds * (options.repeat_best + 1),
        budget_minutes=options.budget_minutes,
    )


def trials_at_once(factory: TrialFactory) -> int:
    """Return how many trials run at once: what the job file says, else what is known to pay.

    Where one of them may be trained in another way than the job file's own, one after another.
    """
    spec = factory.staged.job.spec.sweep
    assert spec is not None
    if spec.parallel_trials is not None:
        return spec.parallel_trials
    is_same_way = all(one.field != ("local", "method") for one in factory.space)
    return jobs_at_once(factory.staged.job) if is_same_way else 1


def describe_plan(factory: TrialFactory, folder: SweepFolder) -> dict[str, Any]:
    """Return what a sweep would do, as JSON data."""
    spec = factory.staged.job.spec
    assert spec.sweep is not None
    own = own_values(factory.staged, factory.space)
    size = space_size(factory.space)
    done = folder.read_result()
    files = factory.staged.manifest.files
    return {
        "id": folder.path.name,
        "folder": str(folder.path),
        "space": [
            {
                "name": view.name,
                "field": view.field,
                "low": view.low,
                "high": view.high,
                "log": view.log,
                "values": view.values,
                "own": own[view.name],
                "isOwnInside": own[view.name] is not None and parameter.contains(own[view.name]),
            }
            for view, parameter in zip(describe_space(factory.space), factory.space, strict=True)
        ],
        "points": None if size == float("inf") else int(size),
        "trials": spec.sweep.trials,
        "trialsDone": 0 if done is None else done.trials_done,
        "budgetMinutes": spec.sweep.budget_minutes,
        "parallelTrials": trials_at_once(factory),
        "pruning": spec.sweep.pruning,
        "seeds": spec.sweep.seeds,
        "repeatBest": spec.sweep.repeat_best,
        "metric": "validation loss",
        "records": {role: file.records for role, file in files.items()},
        "secondsSoFar": None if done is None else done.seconds,
        "secondsLeft": None if done is None else _seconds_left(done, spec.sweep),
    }
