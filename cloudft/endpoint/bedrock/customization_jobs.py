"""Customization jobs, and the custom models that they create."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloudft.aws.s3 import split_s3_uri
from cloudft.backends.aws_base.requests import split_prefix
from cloudft.catalogue.quotas import find_quota
from cloudft.endpoint.bedrock.foundation_models import FoundationModel, FoundationModels
from cloudft.endpoint.bedrock.inference_request import ModelRef
from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.shapes import (
    CreateCustomizationJobRequest,
    JobIdentifier,
    ListCustomModelsRequest,
    ListRequest,
    ModelIdentifier,
)
from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.grader_functions import FUNCTION_ARN, GraderFunction, GraderFunctions
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.iam.policies import AccessRequest
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.service_quotas import applied_value, require_quota_for
from cloudft.endpoint.state import (
    RUNNING,
    Job,
    Model,
    State,
    find_by_arn_or_name,
    now,
    require_resource,
    require_unused_job_name,
)
from cloudft.endpoint.training.logged_data import require_one_data_source, write_selected_logs
from cloudft.endpoint.training.loss_trend import describe_flat_loss
from cloudft.endpoint.training.run import (
    FailedRun,
    RunStatus,
    TrainingRequest,
    TrainingRun,
    training_uri,
    validator_uris,
)
from cloudft.endpoint.training.trainers import PHASES, Trainer
from cloudft.storage.artifacts import TRAINING_CSV, validation_csv
from cloudft.types import validation_set_of

if TYPE_CHECKING:
    from botocore.client import BaseClient

POLL_INTERVAL_S = 0.05
IMPORTED = "IMPORTED"
"""The customization type of a model that CreateCustomModel made."""
WRITE_CHECK_KEY = ".write_access_check_file.tmp"
"""Object that Bedrock writes to check its permission (user guide, troubleshooting)."""


class CustomizationJobs:
    """Operations on customization jobs and custom models.

    Each job works in a folder of its own below `folder`. At most `max_concurrent_jobs` run at a
    time, as with Bedrock's quota. `warn` gets a sentence about a job that learned nothing.
    `functions` has the graders of reinforcement jobs.
    """

    def __init__(  # noqa: PLR0913  # the parts of the endpoint that jobs use
        self,
        state: State,
        foundation: FoundationModels,
        trainer: Trainer,
        s3: RoleClientFactory,
        *,
        max_concurrent_jobs: int,
        invoke_requests: Callable[[str], Iterable[AccessRequest]],
        folder: Path,
        faults: FaultInjector,
        warn: Callable[[str], object],
        functions: GraderFunctions,
    ) -> None:
        self.warn = warn
        self.functions = functions
        self.state = state
        self.foundation = foundation
        self.trainer = trainer
        self.s3 = s3
        self.max_concurrent_jobs = max_concurrent_jobs
        self.invoke_requests = invoke_requests
        self.folder = folder
        self.faults = faults
        self.runs: dict[str, TrainingRun] = {}
        self.closing = threading.Event()

    def resume(self) -> None:
        """Resume the jobs that were running when the endpoint ended, and start to poll."""
        # The state file knows which jobs were running. Starting one again reattaches it to its
        # training: the trainer derives the run from the job's id (`Trainer.start`).
        for job in self.state.running_jobs():
            threading.Thread(target=self._start_run, args=(job,), daemon=True).start()
        threading.Thread(target=self._poll_runs, daemon=True).start()

    def close(self, patience_s: float = 10.0) -> None:
        """Stop the trainings with a checkpoint, and wait up to `patience_s` seconds for it.

        The jobs keep their status: `resume` continues them after the next start.
        """
        # Set first: from now on no poll may record the end of a run that only pauses.
        self.closing.set()
        with self.state.lock:
            runs = [self.runs[job.arn] for job in self.state.running_jobs() if job.arn in self.runs]
        for run in runs:
            run.stop()
        end = time.monotonic() + patience_s
        while time.monotonic() < end and any(run.poll().status == "InProgress" for run in runs):
            time.sleep(POLL_INTERVAL_S)

    def model_ref_of(self, job: Job) -> ModelRef:
        """Return the model that answers for a job: the one it trained, else the base's stand-in."""
        if job.local is not None:
            return ModelRef(job.local)
        # The id alone: the job of a model that was copied here ran in another Region.
        base = job.base_model_arn.rpartition("/")[2]
        return ModelRef(None, self.foundation.stand_in(base), "base")

    def create_model_customization_job(self, request: CreateCustomizationJobRequest) -> Response:
        """Create the job, or return the one that the same client token created."""

        def make() -> Job:
            self._validate_request(request)
            kind = request.get("customizationType", "FINE_TUNING")
            base = self._base(request["baseModelIdentifier"], kind)
            arn = self.state.arn("model-customization-job", base.identifier)
            return Job(arn, dict(request), self.foundation.arn(base))

        arn, job = self.state.create("job", self.state.jobs, request, make, "jobTags")
        # None for a known token: the job of the first request has its thread already.
        if job is not None:
            threading.Thread(target=self._start_run, args=(job,), daemon=True).start()
        return {"jobArn": arn}

    def _base(self, identifier: str, kind: str) -> FoundationModel:
        """Return the foundation model: the named one, or that of the named custom model."""
        if ":custom-model/" in identifier:
            identifier = self._model(identifier).base_model_arn
        return self.foundation.require_customizable(identifier, kind)

    def _validate_request(self, request: CreateCustomizationJobRequest) -> None:
        """Raise ServiceError for a request that Bedrock, or this endpoint, refuses."""
        state = self.state
        model = request["customModelName"]
        kind = request.get("customizationType", "FINE_TUNING")
        if kind not in self.trainer.customization_types:
            raise ServiceError("ValidationException", f"This endpoint does not train {kind}.")
        _require_grader(request, kind)
        require_one_data_source(request["trainingDataConfig"], kind)
        # Before the quota: a retry of a job that exists must not be answered with a used-up quota.
        require_unused_job_name(state.jobs, request["jobName"])
        busy = [job.request["customModelName"] for job in state.running_jobs()]
        if find_by_arn_or_name(state.models, model) or model in busy:
            raise ServiceError("ConflictException", f"The model name {model} is already in use")
        if len(busy) >= self.max_concurrent_jobs:
            raise ServiceError(
                "ServiceQuotaExceededException",
                f"You have {len(busy)} customization jobs in progress; the quota is"
                f" {self.max_concurrent_jobs}.",
            )
        # Each running job will make a model, too.
        require_quota_for(state, "custom-models", len(state.models) + len(busy))

    def _start_run(self, job: Job) -> None:
        """Download the job's data as its role and start the training, or reattach to it."""
        run: TrainingRun
        try:
            folder = self._folder(job)
            folder.mkdir(parents=True, exist_ok=True)
            s3, given = self._s3(job), cast(CreateCustomizationJobRequest, job.request)
            config, data = given["trainingDataConfig"], validator_uris(given)
            files: dict[str, Path] = {}
            if "s3Uri" in config:
                data = {"train": config["s3Uri"], **data}
            else:
                files["train"] = write_selected_logs(s3, given, folder / "train.jsonl")
            files |= {
                role: self._download(s3, uri, folder / f"{role}.jsonl")
                for role, uri in data.items()
            }
            # Bedrock checks its write permission before it trains, not when the job is done.
            bucket, prefix = split_prefix(job.request["outputDataConfig"]["s3Uri"])
            s3.put_object(Bucket=bucket, Key=f"{prefix}{WRITE_CHECK_KEY}", Body=b"")
            self._require_teacher(job)
            grader = self._find_grader(job)
            stand_in = self._stand_in(job)
            stopping = job.status == "Stopping"
            request = cast(CreateCustomizationJobRequest, job.request)
            # The run is named after the job's id: after a restart the same name finds it again.
            records_max = self._records_quota(job)
            run = self.trainer.start(
                TrainingRequest(
                    f"job-{job.id}",
                    request,
                    files,
                    stand_in,
                    folder,
                    stopping,
                    records_max=records_max,
                    grader=grader,
                )
            )
        except Exception as error:  # a thread has no caller: the job carries the failure
            run = FailedRun(s3_failure_message(job, error))
        with self.state.lock:
            self.runs[job.arn] = run
        # A stop, or the endpoint's end, may have come while the run was being started.
        if job.status == "Stopping" or self.closing.is_set():
            run.stop()

    def _records_quota(self, job: Job) -> int | None:
        """Return how many records the job may have; None where its model has no such quota."""
        alias = self.foundation.find_model(job.base_model_arn).model.alias
        quota = find_quota("records", alias, job.request.get("customizationType", "FINE_TUNING"))
        return None if quota is None else int(applied_value(self.state, quota))

    def _stand_in(self, job: Job) -> str:
        """Return what is trained: the base's stand-in, or the model that an earlier job created."""
        identifier = job.request["baseModelIdentifier"]
        if ":custom-model/" in identifier:
            earlier = self.state.jobs[str(self._model(identifier).job_arn)].local
            if earlier is not None:
                merged = self.trainer.export_merged(earlier, self.folder / "merged" / earlier)
                if merged is not None:
                    return merged
        return self.foundation.stand_in(job.base_model_arn)

    def _require_teacher(self, job: Job) -> None:
        """Raise ClientError unless the job's role may invoke its teacher by a profile.

        Source: Bedrock user guide, "Model customization access and security".
        """
        config = job.request.get("customizationConfig", {}).get("distillationConfig")
        if config is not None:
            teacher = config["teacherModelConfig"]["teacherModelIdentifier"]
            self.s3.require_allowed(job.request["roleArn"], self.invoke_requests(teacher))

    def _find_grader(self, job: Job) -> GraderFunction | None:
        """Return the function that grades a job; None for other jobs, and where none is trained.

        Raise ClientError unless the job's role may invoke it, and ServiceError unless it exists.
        """
        arn = grader_arn(job.request)
        if arn is None:
            return None
        invoke = AccessRequest("lambda:InvokeFunction", arn, {})
        self.s3.require_allowed(job.request["roleArn"], [invoke])
        return self.functions.require_grader(arn) if self.trainer.runs_graders else None

    def _folder(self, job: Job) -> Path:
        return self.folder / "jobs" / job.id

    def _s3(self, job: Job) -> BaseClient:
        return self.s3(job.request["roleArn"], job.arn)

    def _download(self, s3: BaseClient, uri: str, to: Path) -> Path:
        bucket, key = split_s3_uri(uri)
        with to.open("wb") as stream:
            s3.download_fileobj(bucket, key, stream)
        return to

    def _poll_runs(self) -> None:
        """Poll every run until the endpoint closes."""
        while not self.closing.wait(POLL_INTERVAL_S):
            with self.state.lock:
                running = [
                    (j, self.runs[j.arn]) for j in self.state.running_jobs() if j.arn in self.runs
                ]
            for job, run in running:
                # Outside the lock: a poll reads files, and requests must not wait for it.
                status = run.poll()
                if not self.closing.is_set():
                    self._advance(job, run, status)

    def _advance(self, job: Job, run: TrainingRun, status: RunStatus) -> None:
        """Record a run's status, and publish the output of a completed run."""
        # Published first: a job is Completed only when its files are in S3.
        try:
            curves = self._publish(job, status.artifacts) if status.artifacts else {}
        except Exception as error:  # the bucket was deleted, or may no longer be written
            message = s3_failure_message(job, error)
            status, curves = RunStatus("Failed", status.status_details, message), {}
        with self.state.lock:
            new = job.update_phases(status.status_details)
            fault = self._injected_failure(job) if new else None
            if fault is not None:
                run.stop()
                status = RunStatus("Failed", {}, fault)
            changed = new or job.local != run.local_job_id
            job.local = run.local_job_id
            if status.status != "InProgress":
                self._finish_job(job, status, curves)
            # Saved once, with the custom model and the final status together: after a crash there
            # is either both or neither.
            if changed or status.status != "InProgress":
                self.state.save()
        if job.note is not None and status.status != "InProgress":
            self.warn(f"job {job.name}: {job.note}")
        if status.status != "InProgress":
            shutil.rmtree(self._folder(job), ignore_errors=True)

    def _injected_failure(self, job: Job) -> str | None:
        """Return the message of a failure that was injected into a phase the job has entered."""
        for phase, details in job.details.items():
            fault = self.faults.take_due_fault(phase)
            if fault is not None:
                details.status, details.modified = "Failed", now()
                return fault.message
        return None

    def _finish_job(
        self, job: Job, status: RunStatus, curves: Mapping[str, Sequence[float]]
    ) -> None:
        job.failure, job.ended, job.modified = status.failure_message, now(), now()
        if status.status == "Completed":
            job.training_loss = curves["train"][-1]
            job.note = describe_flat_loss(curves["train"])
            # In the order of the validators, by which the caller tells them apart.
            job.validation_losses = tuple(c[-1] for role, c in curves.items() if role != "train")
            self._create_model(job)
        # Last: whoever reads Completed without the lock finds the model's ARN.
        job.status = status.status

    def _create_model(self, job: Job) -> None:
        state = self.state
        arn = state.arn("custom-model", job.base_model_arn.rpartition("/")[2])
        name = job.request["customModelName"]
        state.models[arn] = Model(arn, name, job.base_model_arn, job.arn)
        state.tag(arn, job.request.get("customModelTags", ()))
        job.model_arn = arn

    def _publish(self, job: Job, artifacts: Path) -> dict[str, list[float]]:
        """Write the output files to S3. Return the loss curves, by role."""
        bucket, prefix = split_prefix(job.request["outputDataConfig"]["s3Uri"])
        curves, s3 = {}, self._s3(job)
        roles = validator_uris(cast(CreateCustomizationJobRequest, job.request))
        files = {"train": TRAINING_CSV}
        files |= {role: validation_csv(validation_set_of(role)) for role in roles}
        for role, name in files.items():
            path = artifacts / name
            if not path.is_file():
                continue
            key = f"{prefix}model-customization-job-{job.id}/{name}"
            s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
            with path.open(encoding="utf-8", newline="") as stream:
                column = "training_loss" if role == "train" else "validation_loss"
                curves[role] = [float(row[column]) for row in csv.DictReader(stream)]
        return curves

    def get_model_customization_job(self, request: JobIdentifier) -> Response:
        """Return one job, by ARN or name."""
        with self.state.lock:
            return self._job_response(self._job(request))

    def _job(self, request: JobIdentifier) -> Job:
        job: Job = require_resource(self.state.jobs, request["jobIdentifier"], "customization job")
        return job

    def _job_response(self, job: Job) -> Response:
        request = job.request
        losses = [{"validationLoss": loss} for loss in job.validation_losses]
        training = job.training_loss
        return {
            **{k: v for k, v in request.items() if k not in ("jobTags", "customModelTags")},
            "jobArn": job.arn,
            "outputModelName": request["customModelName"],
            "outputModelArn": job.model_arn,
            "status": job.status,
            "statusDetails": self._status_details(job),
            "failureMessage": job.failure,
            "creationTime": job.created,
            "lastModifiedTime": job.modified,
            "endTime": job.ended,
            "baseModelArn": job.base_model_arn,
            "customizationType": request.get("customizationType", "FINE_TUNING"),
            "validationDataConfig": request.get("validationDataConfig", {"validators": []}),
            "outputModelKmsKeyArn": request.get("customModelKmsKeyId"),
            "trainingMetrics": None if training is None else {"trainingLoss": training},
            "validationMetrics": losses or None,
        }

    def _status_details(self, job: Job) -> Response:
        details: Response = {}
        for name in PHASES:
            phase = job.details.get(name)
            details[name] = {"status": "NotStarted"}
            if phase is not None:
                times = {"creationTime": phase.created, "lastModifiedTime": phase.modified}
                details[name] = {"status": phase.status, **times}
        return details

    def list_model_customization_jobs(self, request: ListRequest) -> Response:
        """Return summaries of the jobs, paginated."""
        with self.state.lock:
            jobs = [
                job
                for job in filter_by_name_and_time(self.state.jobs.values(), request)
                if request.get("statusEquals", job.status) == job.status
            ]
        shown, next_page = paginate(jobs, request)
        summaries = [self._summary(job) for job in shown]
        return {"modelCustomizationJobSummaries": summaries, **next_page}

    def _summary(self, job: Job) -> Response:
        return {
            "jobArn": job.arn,
            "baseModelArn": job.base_model_arn,
            "jobName": job.name,
            "status": job.status,
            "statusDetails": self._status_details(job),
            "creationTime": job.created,
            "lastModifiedTime": job.modified,
            "endTime": job.ended,
            "customModelArn": job.model_arn,
            "customModelName": job.request["customModelName"],
            "customizationType": job.request.get("customizationType", "FINE_TUNING"),
        }

    def stop_model_customization_job(self, request: JobIdentifier) -> Response:
        """Stop a running job. Raises ConflictException for a job that has ended."""
        with self.state.lock:
            job = self._job(request)
            if job.status not in RUNNING:
                raise ServiceError("ConflictException", f"The job is {job.status}")
            job.status, job.modified = "Stopping", now()
            # None while the run is being started: `_start_run` sees the status and stops it.
            run = self.runs.get(job.arn)
        if run:
            run.stop()
        return {}

    def get_custom_model(self, request: ModelIdentifier) -> Response:
        """Return one model, by ARN or name."""
        model = self._model(request["modelIdentifier"])
        job: Response = {"customizationType": IMPORTED}
        if model.job_arn is not None:
            job = self._job_response(self.state.job_of(model))
        names = (
            *("customizationType", "hyperParameters", "trainingDataConfig", "outputDataConfig"),
            *("validationDataConfig", "trainingMetrics", "validationMetrics", "baseModelArn"),
            *("customizationConfig", "jobArn", "jobName"),
        )
        return {
            **{name: job.get(name) for name in names},
            "modelArn": model.arn,
            "modelName": model.name,
            "creationTime": model.created,
            "modelStatus": model.status,
            "failureMessage": model.failure,
            "modelKmsKeyArn": job.get("outputModelKmsKeyArn"),
        }

    def _model(self, identifier: str) -> Model:
        model: Model = require_resource(self.state.models, identifier, "custom model")
        return model

    def list_custom_models(self, request: ListCustomModelsRequest) -> Response:
        """Return summaries of the custom models, paginated."""
        with self.state.lock:
            models = [
                m
                for m in filter_by_name_and_time(self.state.models.values(), request)
                if _matches_filters(m, request)
            ]
        shown, next_page = paginate(models, request)
        summaries = [
            {
                "modelArn": model.arn,
                "modelName": model.name,
                "creationTime": model.created,
                "baseModelArn": model.base_model_arn,
                "baseModelName": model.base_model_arn.rpartition("/")[2],
                "customizationType": self._customization_type_of(model),
                "ownerAccountId": model.arn.split(":")[4],
                "modelStatus": model.status,
            }
            for model in shown
        ]
        return {"modelSummaries": summaries, **next_page}

    def _customization_type_of(self, model: Model) -> str:
        if model.job_arn is None:
            return IMPORTED
        request = self.state.job_of(model).request
        return str(request.get("customizationType", "FINE_TUNING"))

    def delete_custom_model(self, request: ModelIdentifier) -> Response:
        """Delete a custom model. Raises ConflictException while something serves it."""
        with self.state.lock:
            model = self._model(request["modelIdentifier"])
            deployments = [*self.state.deployments.values(), *self.state.throughputs.values()]
            if any(model.arn in deployment.used_model_arns for deployment in deployments):
                raise ServiceError("ConflictException", "The model is in use")
            del self.state.models[model.arn]
            self.state.tags.pop(model.arn, None)
        if model.folder is not None:
            shutil.rmtree(model.folder, ignore_errors=True)
        return {}


def _matches_filters(model: Model, request: ListCustomModelsRequest) -> bool:
    base = request.get("foundationModelArnEquals") or request.get("baseModelArnEquals")
    return (
        base in (None, model.base_model_arn)
        and request.get("isOwned", True)
        and request.get("modelStatus", model.status) == model.status
    )


def grader_arn(request: Mapping[str, Any]) -> str | None:
    """Return the grader's function in a request; None for a job without one."""
    config = request.get("customizationConfig", {}).get("rftConfig", {})
    arn = config.get("graderConfig", {}).get("lambdaGrader", {}).get("lambdaArn")
    return None if arn is None else str(arn)


def _require_grader(request: CreateCustomizationJobRequest, kind: str) -> None:
    """Raise ServiceError for a reinforcement job without a grader, or another job with one."""
    arn, is_reinforcement = grader_arn(request), kind == "REINFORCEMENT_FINE_TUNING"
    member = "customizationConfig.rftConfig.graderConfig.lambdaGrader.lambdaArn"
    message = None
    if is_reinforcement and arn is None:
        message = f"{kind} requires {member}"
    elif not is_reinforcement and arn is not None:
        message = f"{member} is not supported for {kind}"
    elif arn is not None and FUNCTION_ARN.fullmatch(arn) is None:
        message = f"{member} failed to satisfy the pattern of a Lambda function's ARN"
    elif is_reinforcement and request.get("hyperParameters"):
        message = f"hyperParameters is not supported for {kind}: use rftConfig.hyperParameters"
    if message is not None:
        raise ServiceError("ValidationException", message)


def s3_failure_message(job: Job, error: Exception) -> str:
    """Return Bedrock's own failure message for a job that could not read or write in S3.

    Of a teacher that may not be invoked, the message of the refusal: Bedrock's own is not known.
    """
    if isinstance(error, ServiceError):
        return error.message
    response = getattr(error, "response", None)
    if not response:
        return f"Encountered an unexpected error when processing the request: {error}"
    if getattr(error, "operation_name", "") == "InvokeModel":
        return str(response["Error"].get("Message"))
    if getattr(error, "operation_name", "") == "PutObject":
        uri = job.request["outputDataConfig"]["s3Uri"]
        return f"Amazon S3 perms missing (PutObject): {uri} {WRITE_CHECK_KEY}"
    bucket, key = split_s3_uri(training_uri(cast(CreateCustomizationJobRequest, job.request)))
    return (
        "Could not validate GetObject permissions to access Amazon S3 bucket:"
        f" {bucket} at key {key}: {response['Error'].get('Code')}"
    )
