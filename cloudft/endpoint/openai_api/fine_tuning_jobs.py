"""Fine-tuning jobs of the OpenAI-compatible API, trained by the endpoint's trainer.

Sources: Bedrock user guide, fine-tuning-openai-apis; OpenAI API reference, "Fine-tuning".
"""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloudft import catalogue
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.grader_functions import GraderFunction, GraderFunctions
from cloudft.endpoint.openai_api.files import Files
from cloudft.endpoint.openai_api.listing import list_page
from cloudft.endpoint.openai_api.records import FineTuningJob, new_object_id, now_s
from cloudft.endpoint.protocols.messages import Parameters, Response, ServiceError
from cloudft.endpoint.training.job_settings import STAND_IN_RATE
from cloudft.endpoint.training.run import FailedRun, RunStatus, TrainingRequest, TrainingRun
from cloudft.endpoint.training.trainers import PHASES, Trainer
from cloudft.storage.artifacts import TRAINING_CSV, validation_csv

if TYPE_CHECKING:
    from cloudft.endpoint.bedrock.shapes import CreateCustomizationJobRequest
    from cloudft.endpoint.state import State

KIND = "REINFORCEMENT_FINE_TUNING"
POLL_INTERVAL_S = 0.05
FIGURES = {
    "reward": "rewards_mean",
    "kl": "actor_kl_loss",
    "response_length": "response_length_mean",
    "entropy": "actor_entropy",
}
"""Names of a step's further figures in an event, by the field of a Metric. Source: AWS Machine
Learning Blog, 2026-03-25, "Reinforcement fine-tuning on Amazon Bedrock with OpenAI-Compatible
APIs"; that of `kl` follows its pattern."""
REWARD_PREFIXES = {"train": "critic_", "validation": "val_"}
ORGANIZATION = "org-endpoint"
EVENT_LIMIT, CHECKPOINT_LIMIT = 20, 10
"""Items of a page. Source: OpenAI API reference, "List fine-tuning events", "... checkpoints"."""


class FineTuningJobs:
    """Operations on fine-tuning jobs, which work in folders below `folder`."""

    def __init__(  # noqa: PLR0913  # the parts of the endpoint that jobs use
        self,
        state: State,
        files: Files,
        foundation: FoundationModels,
        trainer: Trainer,
        *,
        max_concurrent_jobs: int,
        folder: Path,
        faults: FaultInjector,
        functions: GraderFunctions,
    ) -> None:
        self.state = state
        self.files = files
        self.foundation = foundation
        self.trainer = trainer
        self.max_concurrent_jobs = max_concurrent_jobs
        self.folder = folder
        self.faults = faults
        self.functions = functions
        self.runs: dict[str, TrainingRun] = {}
        self.closing = threading.Event()

    def resume(self) -> None:
        """Resume the jobs that were running when the endpoint ended, and start to poll."""
        for job in self._running():
            threading.Thread(target=self._start_run, args=(job,), daemon=True).start()
        threading.Thread(target=self._poll_runs, daemon=True).start()

    def close(self, patience_s: float = 10.0) -> None:
        """Stop the trainings with a checkpoint, and wait up to `patience_s` seconds for it."""
        self.closing.set()
        with self.state.lock:
            runs = [self.runs[job.id] for job in self._running() if job.id in self.runs]
        for run in runs:
            run.stop()
        end = time.monotonic() + patience_s
        while time.monotonic() < end and any(run.poll().status == "InProgress" for run in runs):
            time.sleep(POLL_INTERVAL_S)

    def create_fine_tuning_job(self, request: Parameters) -> Response:
        """Create a job. Each call creates one: the API has no client token."""
        with self.state.lock:
            self._validate(request)
            job = FineTuningJob(new_object_id("ftjob"), dict(request))
            job.add_event(f"Created fine-tuning job: {job.id}")
            job.add_event(f"Validating training file: {request['training_file']}")
            # The job's own copies: its files may be deleted while it trains.
            folder = self._folder(job)
            folder.mkdir(parents=True, exist_ok=True)
            for role, file_id in _files_by_role(request).items():
                shutil.copyfile(self.files.path(file_id), folder / f"{role}.jsonl")
            self.state.fine_tuning_jobs[job.id] = job
            self.state.save()
            response = _to_response(job)
        threading.Thread(target=self._start_run, args=(job,), daemon=True).start()
        return response

    def _validate(self, request: Parameters) -> None:
        """Raise ServiceError for a request that Bedrock, or this endpoint, refuses."""
        if KIND not in self.trainer.customization_types:
            raise ServiceError("ValidationException", f"This endpoint does not train {KIND}.")
        if not self.foundation.is_offered(request["model"]):
            message = f"The model '{request['model']}' can't be fine-tuned or does not exist"
            raise ServiceError("ValidationException", message)
        for file_id in _files_by_role(request).values():
            self.files.require(file_id)
        if len(self._running()) >= self.max_concurrent_jobs:
            message = f"The quota of {self.max_concurrent_jobs} running fine-tuning jobs is used up"
            raise ServiceError("ServiceQuotaExceededException", message)

    def _running(self) -> list[FineTuningJob]:
        return [job for job in self.state.fine_tuning_jobs.values() if not job.has_ended]

    def _folder(self, job: FineTuningJob) -> Path:
        return self.folder / "jobs" / job.id

    def _start_run(self, job: FineTuningJob) -> None:
        """Start the training, or reattach to it after a restart."""
        run: TrainingRun
        folder = self._folder(job)
        try:
            data = {role: folder / f"{role}.jsonl" for role in _files_by_role(job.request)}
            stand_in = self.foundation.stand_in(job.request["model"])
            run = self.trainer.start(
                TrainingRequest(
                    f"job-{job.id}",
                    _as_customization_request(job),
                    data,
                    stand_in,
                    folder,
                    job.cancel_requested,
                    settings=_stand_in_settings(job),
                    grader=self._find_grader(job),
                )
            )
        except Exception as error:  # a thread has no caller: the job carries the failure
            run = FailedRun(getattr(error, "message", None) or f"{type(error).__name__}: {error}")
        with self.state.lock:
            self.runs[job.id] = run
        if job.cancel_requested or self.closing.is_set():
            run.stop()

    def _find_grader(self, job: FineTuningJob) -> GraderFunction | None:
        """Return the function that grades a job; None where none is trained."""
        if not self.trainer.runs_graders:
            return None
        method = job.request["method"]["reinforcement"]
        return self.functions.require_grader(method["grader"]["lambda"]["function"])

    def _poll_runs(self) -> None:
        """Poll every run until the endpoint closes."""
        while not self.closing.wait(POLL_INTERVAL_S):
            with self.state.lock:
                running = [(j, self.runs[j.id]) for j in self._running() if j.id in self.runs]
            for job, run in running:
                status = run.poll()
                points = _points(run, status)
                if not self.closing.is_set():
                    self._advance(job, run, status, points)

    def _advance(
        self,
        job: FineTuningJob,
        run: TrainingRun,
        status: RunStatus,
        points: Sequence[Mapping[str, Any]],
    ) -> None:
        """Record a run's status and new points, as events."""
        with self.state.lock:
            before = (job.status, job.local, len(job.events))
            job.local = run.local_job_id
            if status.status == "InProgress":
                is_training = status.status_details.get(PHASES[2]) == "InProgress"
                self._enter(job, "running" if is_training else "validating_files")
            fault = self.faults.take_due_fault(PHASES[2]) if job.status == "running" else None
            if fault is not None:
                run.stop()
                status = RunStatus("Failed", {}, fault.message)
            _add_figures(job, points)
            if status.status != "InProgress":
                self._finish(job, status, points)
            if before != (job.status, job.local, len(job.events)):
                self.state.save()
        if job.has_ended:
            shutil.rmtree(self._folder(job), ignore_errors=True)

    def _enter(self, job: FineTuningJob, status: str) -> None:
        if job.status != status:
            job.status = status
            job.add_event("Fine-tuning job started" if status == "running" else status)

    def _finish(
        self, job: FineTuningJob, status: RunStatus, points: Sequence[Mapping[str, Any]]
    ) -> None:
        job.finished = now_s()
        if status.status == "Completed":
            job.fine_tuned_model = f"ft:{job.request['model']}:{job.id.removeprefix('ftjob-')}"
            last = points[-1] if points else {"step": 0}
            job.checkpoints.append(
                {
                    "id": new_object_id("ftckpt"),
                    "object": "fine_tuning.job.checkpoint",
                    "created_at": now_s(),
                    "fine_tuned_model_checkpoint": job.fine_tuned_model,
                    "fine_tuning_job_id": job.id,
                    "metrics": dict(last),
                    "step_number": last["step"],
                }
            )
            job.add_event(f"New fine-tuned model created: {job.fine_tuned_model}")
            job.status = "succeeded"
        elif status.status == "Stopped":
            job.add_event("Fine-tuning job cancelled")
            job.status = "cancelled"
        else:
            job.failure = status.failure_message
            job.add_event(f"Fine-tuning job failed: {job.failure}", "error")
            job.status = "failed"

    def get_fine_tuning_job(self, request: Parameters) -> Response:
        """Return one job."""
        with self.state.lock:
            return _to_response(self._job(request))

    def list_fine_tuning_jobs(self, request: Parameters) -> Response:
        """Return the jobs, the newest first."""
        with self.state.lock:
            jobs = [_to_response(job) for job in self.state.fine_tuning_jobs.values()]
        return list_page(jobs[::-1], request)

    def cancel_fine_tuning_job(self, request: Parameters) -> Response:
        """Cancel a job that runs. Raises ServiceError for one that has ended."""
        with self.state.lock:
            job = self._job(request)
            if job.has_ended:
                message = f"Job has already completed: {job.id} is {job.status}"
                raise ServiceError("ValidationException", message)
            job.cancel_requested = True
            self.state.save()
            run = self.runs.get(job.id)
            response = _to_response(job)
        if run:
            run.stop()
        return response

    def list_fine_tuning_events(self, request: Parameters) -> Response:
        """Return a job's events, the newest first."""
        with self.state.lock:
            return list_page(self._job(request).events[::-1], request, EVENT_LIMIT)

    def list_fine_tuning_checkpoints(self, request: Parameters) -> Response:
        """Return a job's checkpoints, the newest first."""
        with self.state.lock:
            return list_page(self._job(request).checkpoints[::-1], request, CHECKPOINT_LIMIT)

    def _job(self, request: Parameters) -> FineTuningJob:
        identifier = request["fine_tuning_job_id"]
        job = self.state.fine_tuning_jobs.get(identifier)
        if job is None:
            message = f"Could not find fine tune: {identifier}"
            raise ServiceError("ResourceNotFoundException", message)
        return job


def _files_by_role(request: Parameters) -> dict[str, str]:
    """Return the ids of a request's files by role."""
    validation = request.get("validation_file")
    roles = {} if validation is None else {"validation": validation}
    return {"train": request["training_file"], **roles}


def _as_customization_request(job: FineTuningJob) -> CreateCustomizationJobRequest:
    """Return the request of CreateModelCustomizationJob that means the same, for the trainer."""
    request = job.request
    method = request["method"]["reinforcement"]
    given = method.get("hyperparameters", {})
    names = {"n_epochs": "epochCount", "batch_size": "batchSize"}
    values = {names[name]: value for name, value in given.items() if name in names}
    grader = {"lambdaGrader": {"lambdaArn": method["grader"]["lambda"]["function"]}}
    converted = {
        "baseModelIdentifier": request["model"],
        "customizationType": KIND,
        "customizationConfig": {"rftConfig": {"graderConfig": grader, "hyperParameters": values}},
        "trainingDataConfig": {"s3Uri": request["training_file"]},
    }
    if "validation_file" in request:
        validators = [{"s3Uri": request["validation_file"]}]
        converted["validationDataConfig"] = {"validators": validators}
    return cast("CreateCustomizationJobRequest", converted)


def _stand_in_settings(job: FineTuningJob) -> dict[str, object]:
    """Return the stand-in's own learning rate times the request's multiplier, if it has one.

    Which rate the multiplier multiplies on AWS is not documented.
    """
    given = job.request["method"]["reinforcement"].get("hyperparameters", {})
    if "learning_rate_multiplier" not in given:
        return {}
    own = catalogue.load_local_hyperparameters()["learningRate"]
    rate = min(max(own.default * given["learning_rate_multiplier"], own.min), own.max)
    return {STAND_IN_RATE: float(f"{rate:.3g}")}


def _points(run: TrainingRun, status: RunStatus) -> list[dict[str, Any]]:
    """Return the metrics of each step so far: as it trains, or from its output files at the end."""
    by_step: dict[int, dict[str, Any]] = {}
    for step, name, value in (*_live_points(run), *_written_points(status.artifacts)):
        by_step.setdefault(step, {"step": step})[name] = value
    return [by_step[step] for step in sorted(by_step)]


def _add_figures(job: FineTuningJob, points: Sequence[Mapping[str, Any]]) -> None:
    """Add an event for each step with figures that no event has: a validation's come later."""
    known = {
        (event["data"]["step"], name)
        for event in job.events
        if event["type"] == "metrics"
        for name in event["data"]
    }
    for point in points:
        step = point["step"]
        new = {name: value for name, value in point.items() if (step, name) not in known}
        if new:
            job.add_event(f"Step {step}", metrics={**new, "step": step})


def _live_points(run: TrainingRun) -> Iterator[tuple[int, str, float]]:
    for metric in run.losses():
        prefix = "train" if metric.split == "train" else "valid"
        yield metric.step, f"{prefix}_loss", metric.loss
        for field, name in FIGURES.items():
            value = vars(metric).get(field)
            if value is not None:
                yield metric.step, _figure_name(field, name, metric.split), value


def _figure_name(field: str, name: str, split: str) -> str:
    """Return a figure's name in an event. Those of validation have a prefix."""
    if field == "reward":
        return f"{REWARD_PREFIXES[split]}{name}"
    return name if split == "train" else f"val_{name}"


def _written_points(artifacts: Path | None) -> Iterator[tuple[int, str, float]]:
    if artifacts is None:
        return
    for file, column, name in (
        (TRAINING_CSV, "training_loss", "train_loss"),
        (validation_csv(None), "validation_loss", "valid_loss"),
    ):
        if (artifacts / file).is_file():
            with (artifacts / file).open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    yield int(row["step_number"]), name, float(row[column])


def _to_response(job: FineTuningJob) -> dict[str, Any]:
    request = job.request
    failure = None
    if job.failure is not None:
        failure = {"code": "training_failed", "message": job.failure, "param": None}
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "model": request["model"],
        "created_at": job.created,
        "finished_at": job.finished,
        "status": job.status,
        "fine_tuned_model": job.fine_tuned_model,
        "training_file": request["training_file"],
        "validation_file": request.get("validation_file"),
        "result_files": [],
        "trained_tokens": None,
        "estimated_finish": None,
        "seed": 0,
        "organization_id": ORGANIZATION,
        "error": failure,
        "hyperparameters": request["method"]["reinforcement"].get("hyperparameters", {}),
        "method": request["method"],
        "integrations": [],
        "metadata": None,
    }
