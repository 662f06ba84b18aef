"""What comes before a job: its data and settings are checked, its price told, its data staged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from cloudft.backends import TRAINING_BACKENDS
from cloudft.backends import make_backend as backend_by_name
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import SupportsPricing, SupportsProbe
from cloudft.catalogue import cost
from cloudft.data.checks.check import DataReport, check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.staging.stage import StagedData, stage_data
from cloudft.errors import CheckFailed, CloudRefused, CloudUnreachable, NoSuchProfile, OverBudget
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.types import COULD_NOT_REACH, DataVolume, Estimate, Finding, Plan


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. `volumes` is the data by role, None when there are errors in it."""

    findings: tuple[Finding, ...]
    volumes: Mapping[str, DataVolume] | None
    estimate: Estimate | None

    @property
    def exit_code(self) -> int:
        """3 with errors; 5 where something could not be reached, and may be at fault; else 0."""
        if not self.ok:
            return CheckFailed.exit_code
        unreached = any(finding.code == COULD_NOT_REACH for finding in self.findings)
        return CloudUnreachable.exit_code if unreached else 0

    @property
    def ok(self) -> bool:
        """True when no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def _record_format(job: LoadedJob) -> str:
    """The form of record that the base model takes."""
    return job.model.formats[job.spec.customization_type]


def _dataset_limits(job: LoadedJob) -> DatasetLimits:
    """What the base model asks of the data, whatever the backend."""
    batch = job.spec.hyperparameters.get("batchSize")
    if batch is None:
        default = job.model.hyperparameters.get("batchSize")
        batch = default.default if default else 1
    return DatasetLimits.for_model(job.model, job.spec.customization_type, int(batch))


def _check_data(job: LoadedJob, progress: Callable[[int], None] | None) -> DataReport:
    examined = check_data(
        job.spec.data,
        format=_record_format(job),
        base_dir=job.base_dir,
        progress=progress,
        limits=_dataset_limits(job),
    )
    return replace(examined, findings=_with_locations(job, examined.findings))


def _with_locations(job: LoadedJob, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings about a field of the job file and no file of data, with their place in it."""
    return tuple(
        replace(f, file=str(job.path), line=job.line_of(f.field))
        if job.path and f.file is None and f.field is not None
        else f
        for f in findings
    )


def check(
    job: LoadedJob, backend: Backend, progress: Callable[[int], None] | None = None
) -> CheckReport:
    """Everything that is wrong with a job, at once. Nothing is sent and nothing is kept."""
    examined = _check_data(job, progress)
    findings = (*job.findings, *examined.findings, *_backend_findings(job, backend))
    volumes = examined.volumes
    return CheckReport(findings, volumes, backend.estimate(job, volumes) if volumes else None)


def _backend_findings(job: LoadedJob, backend: Backend) -> Sequence[Finding]:
    """What the backend finds. Where the account may not be asked for what is unsaid: that."""
    try:
        return backend.check(backend.with_stack_defaults(job))
    except NoSuchProfile:  # the check names its field; the stack would have said the rest
        return [finding for finding in backend.check(job) if finding.code != "MissingValue"]
    except CheckFailed as error:  # and what can be said without what is missing
        rest = [finding for finding in backend.check(job) if finding.code != "MissingValue"]
        return [*error.findings, *rest]
    except (CloudRefused, CloudUnreachable) as error:
        place = (error.file, error.line, error.field)
        code = COULD_NOT_REACH if isinstance(error, CloudUnreachable) else "CouldNotCheck"
        return [Finding("warning", code, error.message, error.fix or "", *place)]


def probe_estimates(
    job: LoadedJob,
    home: Home,
    steps: int,
    progress: Callable[[int], None] | None = None,
    on_probe: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Estimate]:
    """What the job takes on every backend that can begin with it, from so many of its steps.

    Raises CheckFailed when it could not be submitted there, TrainerError.
    """
    found = []
    for backend in (backend_by_name(name, home) for name in TRAINING_BACKENDS):
        if isinstance(backend, SupportsProbe):
            staged, _ = prepare(job, backend, home, progress)
            found.append(backend.probe(staged, steps, on_probe))
    return found


def estimate_all(
    job: LoadedJob,
    home: Home,
    progress: Callable[[int], None] | None = None,
    backend_name: str | None = None,
) -> list[Estimate]:
    """What the job would take on every backend, or on one. Raises CheckFailed for wrong data."""
    examined = _check_data(job, progress)
    if examined.volumes is None:
        errors = [f for f in examined.findings if f.severity == "error"]
        raise CheckFailed(errors[0].message, examined.findings)
    volumes = examined.volumes
    names = TRAINING_BACKENDS if backend_name is None else [backend_name]
    return [
        _estimate_at_current_prices(job, backend_by_name(name, home), volumes) for name in names
    ]


def _estimate_at_current_prices(
    job: LoadedJob, backend: Backend, volumes: Mapping[str, DataVolume]
) -> Estimate:
    found = backend.estimate(job, volumes)
    return (
        backend.with_current_prices(job, found) if isinstance(backend, SupportsPricing) else found
    )


def prepare(
    job: LoadedJob, backend: Backend, home: Home, progress: Callable[[int], None] | None = None
) -> tuple[StagedJob, tuple[Finding, ...]]:
    """Stage the data, check with the backend. Raises CheckFailed; returns the warnings too.

    The staged job is the completed one; AwsRefused and AwsUnreachable where that can't be had.
    """
    job = backend.with_stack_defaults(job)
    findings = [*job.findings, *backend.check(job)]
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, findings)
    try:
        staged = _stage_data(job, home, progress)
    except CheckFailed as error:
        raise CheckFailed(error.message, _with_locations(job, error.findings)) from error
    return StagedJob(job, staged.manifest, staged.folder), (*findings, *staged.findings)


def _stage_data(job: LoadedJob, home: Home, progress: Callable[[int], None] | None) -> StagedData:
    return stage_data(
        job.spec.data,
        customization_type=job.spec.customization_type,
        format=_record_format(job),
        seed=job.spec.seed,
        base_dir=job.base_dir,
        root=home.staged,
        progress=progress,
        limits=_dataset_limits(job),
    )


def check_budget(job: LoadedJob, plan: Plan) -> None:
    """Raise OverBudget when the plan costs more than the job file allows."""
    budget, usd = job.spec.budget_usd, plan.estimate.usd["training"]
    if budget is None:
        return
    place = {
        "field": "budget_usd",
        "line": job.line_of("budget_usd"),
        "file": str(job.path) if job.path else None,
    }
    if usd is None:
        raise OverBudget(
            f"{cost.NO_PRICE_KNOWN} for {_missing_price(plan)}, so the budget of {cost.format_usd(budget)}"
            " can't be held",
            fix=price_remedy(plan.estimate, "or submit without a budget"),
            **place,  # type: ignore[arg-type]
        )
    if usd > budget:
        about, at_most = cost.format_distinct_usd(usd, budget)
        less = "train on less data or fewer epochs"
        if plan.estimate.at_most:
            less = f"lower {plan.backend}.max_runtime_seconds (without it the job may run as long"
            less += " as the budget pays)"
        raise OverBudget(
            f"the estimate is {about}, above the budget of {at_most}",
            **place,  # type: ignore[arg-type]
            fix=f"{less}, or raise budget_usd.",
        )


def _missing_price(plan: Plan) -> str:
    return plan.estimate.unpriced.what if plan.estimate.unpriced else f"the job on {plan.backend}"


def price_remedy(estimate: Estimate, otherwise: str) -> str:
    """Return how to state the price that an estimate lacks, with the line for the job file."""
    unpriced = estimate.unpriced
    if unpriced is None:
        return f"{otherwise.removeprefix('or ')}."
    line = cost.price_line(unpriced, datetime.now(timezone.utc).date())
    return (
        f"read the price at {unpriced.listed_at} and put it for USD into this line of the job file:"
        f" `{line}`, {otherwise}."
    )
