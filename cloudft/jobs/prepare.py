"""Check a job, estimate its price, stage its data: everything before its submission.

`check` and `prepare` share one pass of findings: the job file's, the data's and the backend's.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.backends import TRAINING_BACKENDS, backends_supporting, make_backend
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import (
    SupportsAdapters,
    SupportsChatTemplate,
    SupportsExport,
    SupportsInvocationLogs,
    SupportsMedia,
    SupportsPricing,
    SupportsProbe,
    SupportsRecordsQuota,
)
from cloudft.backends.findings import FindingFactory
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.trained_model import trained_model
from cloudft.catalogue import cost, owned_weights_route
from cloudft.data.checks.check import DataReport, check_data
from cloudft.data.checks.content_limits import MediaUse
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.template_limits import TemplateLimits
from cloudft.errors import (
    CheckFailed,
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    NoSuchProfile,
    OverBudget,
    TrainerError,
)
from cloudft.jobs import teacher_answers
from cloudft.jobs.rendering import Rendering, render_data, unrendered_finding
from cloudft.jobs.trackers import check_trackers
from cloudft.spec.grader_file import GraderFile, check_grader, read_grader
from cloudft.spec.load import LoadedJob
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.storage.home import Home
from cloudft.types import (
    COULD_NOT_REACH,
    AdapterReach,
    DataVolume,
    Estimate,
    Finding,
    ManifestSource,
    Plan,
)

if TYPE_CHECKING:
    from cloudft.data.staging.stage import StagedData


@dataclass(frozen=True)
class CheckReport:
    """The findings of a check. `volumes` is the data by role, None when the data has errors."""

    findings: tuple[Finding, ...]
    volumes: Mapping[str, DataVolume] | None
    estimate: Estimate | None
    sources: tuple[ManifestSource, ...] = ()
    """What each data file was read as."""
    is_counted: bool = False
    """Whether the tokens of `volumes` were counted by the trained model's tokenizer."""

    @property
    def exit_code(self) -> int:
        """Return 3 with errors, 5 where a part of the account could not be reached, else 0."""
        if not self.ok:
            return CheckFailed.exit_code
        unreached = any(finding.code == COULD_NOT_REACH for finding in self.findings)
        return CloudUnreachable.exit_code if unreached else 0

    @property
    def ok(self) -> bool:
        """Return whether no finding is an error."""
        return not _has_errors(self.findings)


ROLE_FIELD = "bedrock.role_arn"
"""The field of findings about the role that the job has, not the caller."""


@dataclass(frozen=True)
class _BackendReport:
    """The job with its stack's values, and the backend's findings.

    `job` is None when the stack could not be read; `error` is the reason where that is no finding
    of the job file.
    """

    job: LoadedJob | None
    findings: tuple[Finding, ...]
    error: CloudftError | None = None


def check(job: LoadedJob, backend: Backend, observer: RunObserver = SILENT) -> CheckReport:
    """Return all findings of a job at once. Nothing is sent and nothing is written.

    `backend` is bound to the job's location.
    """
    limits = _dataset_limits(job, backend)
    report = _check_backend(job, backend)
    _apply_records_quota(report, backend, limits)
    data = _check_data(job, observer, limits)
    data = _with_logs(data, _try_logs(report, job, backend, observer, limits))
    media = _check_media(report, backend, limits.media)
    rendering, volumes = Rendering((), {}), data.volumes
    if volumes and not _has_errors(report.findings):
        rendering = _render_data(job, backend, observer)
        volumes = rendering.count(volumes)
    given = teacher_answers.check_given_answers(job)
    findings = (*job.findings, *check_trackers(job), *data.findings, *given)
    findings = (*findings, *rendering.findings, *report.findings, *media)
    estimate = None
    if volumes:
        estimate = _counted_estimate(job, backend, volumes, bool(rendering.tokens))
        findings = (*findings, *_budget_findings(job, estimate))
    return CheckReport(findings, volumes, estimate, data.sources, bool(rendering.tokens))


def describe_adapters(job: LoadedJob, backend: Backend) -> AdapterReach | None:
    """Return what the adapters of a job without errors reach, where the backend knows it."""
    return backend.describe_adapters(job) if isinstance(backend, SupportsAdapters) else None


def _counted_estimate(
    job: LoadedJob, backend: Backend, volumes: Mapping[str, DataVolume], is_counted: bool
) -> Estimate:
    """Return the estimate of a check; at current prices where a budget depends on it."""
    # Which records a share of the training data holds out is known once they are staged.
    is_split = isinstance(job.spec.data.validation, float)
    quoted = replace(backend.estimate(job, volumes), tokens_counted=is_counted and not is_split)
    if job.spec.budget_usd is not None and isinstance(backend, SupportsPricing):
        return backend.with_current_prices(job, quoted)
    return quoted


def _budget_findings(job: LoadedJob, estimate: Estimate) -> Sequence[Finding]:
    """Return what `submit` refuses of the budget, as a finding."""
    try:
        enforce_budget(job, estimate)
    except OverBudget as error:
        place = (error.file, error.line, error.field)
        return [Finding("error", error.code, error.message, error.fix, *place)]
    return []


def _render_data(job: LoadedJob, backend: Backend, observer: RunObserver) -> Rendering:
    """Render the records with the trained model's template, if it is here."""
    try:
        rendering = render_data(job, backend, observer)
    except TrainerError as error:
        return Rendering((unrendered_finding(error),), {})
    return rendering or Rendering((), {})


def prepare(
    job: LoadedJob, backend: Backend, home: Home, observer: RunObserver = SILENT
) -> tuple[StagedJob, tuple[Finding, ...]]:
    """Check the job, then stage its data; return the staged job and the warnings.

    `backend` is bound to the job's location. The staged job has its stack's values. Raise
    CheckFailed with every finding that `check` reports; CloudRefused and CloudUnreachable where
    the stack can't be read and nothing else is wrong. Nothing is staged in these cases.
    """
    report = _check_backend(job, backend)
    findings = (*job.findings, *report.findings)
    if report.job is None or _has_errors(findings):
        # The data is read all the same, so that one error names every fault of the job.
        try:
            limits = _dataset_limits(job, backend)
            logs = _try_logs(report, job, backend, observer, limits)
            data = _with_logs(_check_data(job, observer, limits), logs).findings
        except (CloudRefused, CloudUnreachable):  # data in S3, with the same broken credentials
            data = ()
        findings = (*job.findings, *data, *report.findings)
        if report.error is not None and not _has_errors(findings):
            raise report.error
        raise _check_failed(findings)
    limits = _dataset_limits(report.job, backend)
    _apply_records_quota(report, backend, limits)
    logs = _read_logs(report.job, backend, observer, limits)
    if logs is not None and _has_errors(logs.findings):
        raise _check_failed((*job.findings, *logs.findings, *report.findings))
    rendered = _render_data(report.job, backend, observer).findings
    try:
        staged = _stage_data(report.job, home, observer, limits)
    except CheckFailed as error:
        located = _with_locations(job, error.findings)
        raise _check_failed((*job.findings, *located, *report.findings)) from error
    media = _check_media(report, backend, limits.media)
    read = () if logs is None else logs.findings
    findings = (*job.findings, *check_trackers(job))
    warnings = (*findings, *staged.findings, *read, *rendered, *report.findings, *media)
    if _has_errors(media) or _has_errors(rendered):
        raise _check_failed(warnings)
    logged = logs.volumes["train"] if logs is not None and logs.volumes else None
    grader = _stage_grader(report.job, staged.folder)
    staged_job = StagedJob(report.job, staged.manifest, staged.folder, logged=logged, grader=grader)
    staged_job = teacher_answers.use_given_answers(staged_job, home)
    return teacher_answers.use_cached_answers(staged_job, backend, home), warnings


def _stage_grader(job: LoadedJob, folder: Path) -> GraderFile | None:
    """Copy the grader's file beside the staged data, by its digest."""
    grader = read_grader(job)
    if grader is None:
        return None
    copy = folder / f"grader-{grader.sha256[:32]}.py"
    with as_store_error("the grader can't be staged", copy):
        atomic_write(copy, grader.content)
    return replace(grader, path=copy)


def _read_logs(
    job: LoadedJob, backend: Backend, observer: RunObserver, limits: DatasetLimits
) -> DataReport | None:
    """Return what the job trains on of invocation logs; None for a job with other training data.

    Raise CloudRefused and CloudUnreachable where they can't be read.
    """
    if job.spec.data.invocation_logs is None:
        return None
    if isinstance(backend, SupportsInvocationLogs):
        return backend.read_invocation_logs(job, limits, observer.on_records_read)
    uri = shlex.quote(job.spec.data.invocation_logs.s3_uri)
    message = f"the backend {backend.name} does not read invocation logs where they are"
    fix = (
        f"bring them here: `aws s3 cp --recursive {uri} logs`, and write `train: logs` in place of"
        " invocation_logs; or use --backend bedrock."
    )
    field = "data.invocation_logs"
    return DataReport((FindingFactory(job)("LogsNotSupported", field, message, fix),), None)


def _try_logs(
    report: _BackendReport,
    job: LoadedJob,
    backend: Backend,
    observer: RunObserver,
    limits: DatasetLimits,
) -> DataReport | None:
    """Return the same; that the logs can't be read is a warning.

    None also where an error names what would keep them from being read. What the job's role lacks
    does not: the logs are read as the caller.
    """
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if isinstance(backend, SupportsInvocationLogs) and any(e.field != ROLE_FIELD for e in errors):
        return None
    try:
        return _read_logs(report.job or job, backend, observer, limits)
    except (CloudRefused, CloudUnreachable) as error:
        code = COULD_NOT_REACH if isinstance(error, CloudUnreachable) else "CouldNotCheck"
        finding = FindingFactory(job)
        field, fix = "data.invocation_logs", error.fix or "grant it to see what they hold"
        return DataReport((finding(code, field, error.message, fix, "warning"),), None)


def _with_logs(data: DataReport, logs: DataReport | None) -> DataReport:
    """Return a report on the held-out files with that on the logs."""
    if logs is None:
        return data
    findings = (*data.findings, *logs.findings)
    if data.volumes is None or logs.volumes is None:
        return replace(data, findings=findings, volumes=None)
    return replace(data, findings=findings, volumes={**logs.volumes, **data.volumes})


def _check_failed(findings: Sequence[Finding]) -> CheckFailed:
    errors = [finding for finding in findings if finding.severity == "error"]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return CheckFailed(f"{errors[0].message}{more}", findings)


def _has_errors(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _check_backend(job: LoadedJob, backend: Backend) -> _BackendReport:
    """Return the backend's findings and the grader's.

    Of the backend, where its stack can't be read, those that need no stack.
    """
    report = _check_with_stack(job, backend)
    more = (*check_grader(job), *_check_export(job, backend))
    return replace(report, findings=(*more, *report.findings))


def _check_export(job: LoadedJob, backend: Backend) -> Sequence[Finding]:
    """Return an error for runtimes that shall run a model whose weights nobody gets."""
    if job.spec.export is None or isinstance(backend, SupportsExport):
        return ()
    message = f"a job on {backend.name} leaves no weights that a runtime could run"
    fix = owned_weights_route(job.spec.base_model) or "use --backend local or sagemaker."
    return (FindingFactory(job)("NotExported", "export", message, f"remove it, or: {fix}"),)


def _check_with_stack(job: LoadedJob, backend: Backend) -> _BackendReport:
    try:
        complete = backend.with_stack_defaults(job)
        return _BackendReport(complete, tuple(backend.check(complete)))
    except NoSuchProfile as error:  # the backend's check finds it too, and names the field
        return _BackendReport(None, _without_missing_values(job, backend), error)
    except CheckFailed as error:
        rest = _without_missing_values(job, backend)
        return _BackendReport(None, (*error.findings, *rest))
    except (CloudRefused, CloudUnreachable) as error:
        place = (error.file, error.line, error.field)
        code = COULD_NOT_REACH if isinstance(error, CloudUnreachable) else "CouldNotCheck"
        finding = Finding("warning", code, error.message, error.fix or "", *place)
        return _BackendReport(None, (finding,), error)


def _without_missing_values(job: LoadedJob, backend: Backend) -> tuple[Finding, ...]:
    """Return the findings of a job whose stack is missing, without those that it would fill."""
    return tuple(finding for finding in backend.check(job) if finding.code != "MissingValue")


def _record_format(job: LoadedJob) -> str:
    """Return the record format that the base model accepts."""
    return job.model.formats[job.spec.customization_type]


def _dataset_limits(job: LoadedJob, backend: Backend | None = None) -> DatasetLimits:
    """Return the base model's limits for a dataset, the same for every backend.

    With a backend, also those of the chat template with which its trainer renders records.
    """
    batch = job.spec.hyperparameters.get("batchSize")
    if batch is None:
        default = job.model.hyperparameters.get("batchSize")
        batch = default.default if default else 1
    limits = DatasetLimits.for_model(job.model, job.spec.customization_type, int(batch))
    limits.template = None if backend is None else _template_limits(job, backend)
    return limits


def _apply_records_quota(report: _BackendReport, backend: Backend, limits: DatasetLimits) -> None:
    """Use the account's own limit on records, where the backend's checks have found no error."""
    if report.job is None or _has_errors(report.findings):
        return
    if any(finding.code == COULD_NOT_REACH for finding in report.findings):
        return  # each further call would wait for its deadline
    quota = backend.records_quota(report.job) if isinstance(backend, SupportsRecordsQuota) else None
    if quota is not None:
        limits.set_account_quota(quota.limit, quota.source, quota.remedy)


def _template_limits(job: LoadedJob, backend: Backend) -> TemplateLimits | None:
    model = trained_model(job)
    if model is None or not isinstance(backend, SupportsChatTemplate):
        return None
    return TemplateLimits(model.alias, partial(backend.load_template_features, job))


def _check_media(report: _BackendReport, backend: Backend, media: MediaUse) -> tuple[Finding, ...]:
    """Return the findings about objects that records name, where the backend's own are no error."""
    if report.job is None or _has_errors(report.findings) or not media.objects:
        return ()
    if not isinstance(backend, SupportsMedia):
        return ()
    return tuple(backend.check_media(report.job, media))


def _check_data(job: LoadedJob, observer: RunObserver, limits: DatasetLimits) -> DataReport:
    report = check_data(
        job.spec.data,
        format=_record_format(job),
        base_dir=job.base_dir,
        progress=observer.on_records_read,
        limits=limits,
    )
    return replace(report, findings=_with_locations(job, report.findings))


def _stage_data(
    job: LoadedJob, home: Home, observer: RunObserver, limits: DatasetLimits
) -> StagedData:
    from cloudft.data.staging.stage import stage_data  # a check stages nothing

    return stage_data(
        job.spec.data,
        customization_type=job.spec.customization_type,
        format=_record_format(job),
        seed=job.spec.seed,
        base_dir=job.base_dir,
        root=home.staged,
        progress=observer.on_records_read,
        limits=limits,
    )


def _with_locations(job: LoadedJob, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings; those about a field of the job file get its file and line."""
    return tuple(
        replace(f, file=str(job.path), line=job.line_of(f.field))
        if job.path and f.file is None and f.field is not None
        else f
        for f in findings
    )


def check_records(job: LoadedJob, observer: RunObserver = SILENT) -> DataReport:
    """Check the data alone, against the limits of the base model: no backend and no weights."""
    return _check_data(job, observer, _dataset_limits(job))


def probe_estimates(
    job: LoadedJob, home: Home, steps: int, observer: RunObserver = SILENT
) -> list[Estimate]:
    """Measure the job with `steps` of its own steps on every backend that can.

    Raise CheckFailed where the job could not be submitted, TrainerError.
    """
    estimates = []
    for name in backends_supporting(SupportsProbe):
        backend = make_backend(name, home).for_job(job)
        assert isinstance(backend, SupportsProbe)
        staged, _ = prepare(job, backend, home, observer)
        estimates.append(backend.probe(staged, steps, observer.on_progress))
    return estimates


def estimate_all(
    job: LoadedJob,
    home: Home,
    observer: RunObserver = SILENT,
    backend_name: str | None = None,
) -> list[Estimate]:
    """Estimate the job on every backend, or on one. Raise CheckFailed for data with errors."""
    limits = _dataset_limits(job)
    data = _check_data(job, observer, limits)
    names = TRAINING_BACKENDS if backend_name is None else [backend_name]
    backends = [make_backend(name, home).for_job(job) for name in names]
    if job.spec.data.invocation_logs is not None:
        able = [backend for backend in backends if isinstance(backend, SupportsInvocationLogs)]
        backends = list(able) or backends
        data = _with_logs(data, _read_logs(job, backends[0], observer, limits))
    if data.volumes is None:
        errors = [f for f in data.findings if f.severity == "error"]
        raise CheckFailed(errors[0].message, data.findings)
    # The backends that render records train the same model: once is enough.
    rendering = next(filter(None, (_try_rendering(job, b, observer) for b in backends)), None)
    return [_estimate(job, backend, data.volumes, rendering) for backend in backends]


def _try_rendering(job: LoadedJob, backend: Backend, observer: RunObserver) -> Rendering | None:
    try:
        return render_data(job, backend, observer)
    except TrainerError:  # the tokens are estimated, as where the tokenizer is not here
        return None


def _estimate(
    job: LoadedJob,
    backend: Backend,
    volumes: Mapping[str, DataVolume],
    rendering: Rendering | None,
) -> Estimate:
    """Return the estimate at current prices, by counted tokens where the backend renders them."""
    is_rendered = rendering is not None and isinstance(backend, SupportsChatTemplate)
    if rendering is not None and is_rendered:
        volumes = rendering.count(volumes)
    estimate = backend.estimate(job, volumes)
    # Which records a share of the training data holds out is known once they are staged.
    is_split = isinstance(job.spec.data.validation, float)
    estimate = replace(estimate, tokens_counted=is_rendered and not is_split)
    if isinstance(backend, SupportsPricing):
        return backend.with_current_prices(job, estimate)
    return estimate


def check_budget(job: LoadedJob, plan: Plan) -> None:
    """Raise OverBudget when the plan costs more than the job file allows."""
    enforce_budget(job, plan.estimate)


def enforce_budget(job: LoadedJob, estimate: Estimate) -> None:
    """Raise OverBudget when the estimate is above budget_usd, or when it is not known."""
    budget, usd = job.spec.budget_usd, estimate.usd["training"]
    if budget is None or (usd is not None and usd <= budget):
        return
    place = {
        "field": "budget_usd",
        "line": job.line_of("budget_usd"),
        "file": str(job.path) if job.path else None,
    }
    if usd is None:
        raise OverBudget(
            f"{_unknown_cost(estimate)}, so the budget of {cost.format_usd(budget)} can't be"
            " enforced",
            fix=_unknown_cost_remedy(estimate, budget),
            **place,  # type: ignore[arg-type]
        )
    about, at_most = cost.format_distinct_usd(usd, budget)
    raise OverBudget(
        f"the estimate is {about}, above the budget of {at_most}",
        fix=f"{_cheaper(job, estimate)}, or raise budget_usd.",
        **place,  # type: ignore[arg-type]
    )


def _cheaper(job: LoadedJob, estimate: Estimate) -> str:
    """Return what makes a job cost less."""
    if any(part.price_name == "instance_hour" for part in estimate.parts):
        return (
            f"lower {estimate.backend}.max_runtime_seconds (without it the job may run as long as"
            " the budget pays)"
        )
    if job.spec.customization_type == "REINFORCEMENT_FINE_TUNING":
        return "lower reinforcement.max_hours"
    if job.spec.customization_type == "DISTILLATION":
        return "lower distillation.max_response_length or the epochs"
    return "train on less data or fewer epochs"


def _unknown_cost(estimate: Estimate) -> str:
    if estimate.unpriced is None and estimate.unknown is not None:
        return f"{estimate.unknown.what}"
    what = estimate.unpriced.what if estimate.unpriced else f"the job on {estimate.backend}"
    return f"{cost.NO_PRICE_KNOWN} for {what}"


def _unknown_cost_remedy(estimate: Estimate, budget: float) -> str:
    unknown = estimate.unknown
    if estimate.unpriced is not None or unknown is None:
        return price_remedy(estimate, "or submit without a budget")
    hours = [p.price for p in estimate.parts if p.unit == "hour" and p.price is not None]
    most = f" ({budget / hours[0].usd:.3g} of them are within the budget)" if hours else ""
    return f"set {unknown.field}, such as {unknown.example}{most}, or submit without a budget."


def price_remedy(estimate: Estimate, otherwise: str) -> str:
    """Return how to state the price that an estimate lacks, with the line for the job file.

    `otherwise` ends the sentence: what to do instead, or what it is good for.
    """
    unpriced = estimate.unpriced
    if unpriced is None:
        return f"{otherwise.removeprefix('or ')}."
    line = cost.price_line(unpriced, datetime.now(timezone.utc).date())
    place = "the job file" if unpriced.model is None else f"{Home.from_environ().prices}"
    return (
        f"read the price at {unpriced.listed_at} and put it in place of USD into this line of"
        f" {place}: `{line}`, {otherwise}."
    )
