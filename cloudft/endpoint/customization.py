"""Customization jobs and the custom models that they make."""

from __future__ import annotations

import csv
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cloudft.artifacts import TRAINING_CSV, VALIDATION_CSV
from cloudft.endpoint.foundation import Base, Foundation
from cloudft.endpoint.pages import page
from cloudft.endpoint.state import Job, Model, State, found, now
from cloudft.endpoint.training import PHASES, FailedRun, Look, Run, Trainer
from cloudft.endpoint.wire import WireError

TICK_S = 0.05
WRITE_CHECK = ".write_access_check_file.tmp"
"""What the service writes to prove that it may write (user guide, troubleshooting)."""


class Customization:
    """The operations of jobs and custom models."""

    def __init__(
        self, state: State, foundation: Foundation, trainer: Trainer, s3: Any, at_once: int
    ) -> None:
        self.state = state
        self.foundation = foundation
        self.trainer = trainer
        self.s3 = s3
        self.at_once = at_once
        threading.Thread(target=self._tick, daemon=True).start()

    def create_model_customization_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take the job, or give the one of the same token."""
        state = self.state
        with state.lock:
            token = given.get("clientRequestToken")
            known = state.tokens.get(("job", token or ""))
            if known:
                if dict(known[0]) != dict(given):
                    raise WireError(
                        "ValidationException", "The token was used with other parameters"
                    )
                return {"jobArn": known[1]}
            self._refuse(given)
            base = self._base(
                given["baseModelIdentifier"], given.get("customizationType", "FINE_TUNING")
            )
            arn = state.arn("model-customization-job", base.identifier)
            job = Job(arn, given, self.foundation.arn(base))
            state.jobs[arn] = job
            state.tag(arn, given.get("jobTags", ()))
            if token:
                state.tokens["job", token] = (given, arn)
        threading.Thread(target=self._start, args=(job,), daemon=True).start()
        return {"jobArn": arn}

    def _base(self, identifier: str, kind: str) -> Base:
        """The foundation model: the one that is named, or that a custom model was made from."""
        if ":custom-model/" in identifier:
            identifier = self._model(identifier).job.base_model_arn
        return self.foundation.customizable(identifier, kind)

    def _refuse(self, given: Mapping[str, Any]) -> None:
        state = self.state
        name, model = given["jobName"], given["customModelName"]
        if found(state.jobs, name):
            raise WireError("ConflictException", f"A job with the name {name} already exists")
        busy = [job.request["customModelName"] for job in state.running()]
        if found(state.models, model) or model in busy:
            raise WireError("ConflictException", f"The model name {model} is already in use")
        if len(busy) >= self.at_once:
            raise WireError(
                "ServiceQuotaExceededException",
                f"You have {len(busy)} customization jobs in progress; the quota is"
                f" {self.at_once}.",
            )

    def _start(self, job: Job) -> None:
        run: Run
        try:
            folder = Path(tempfile.mkdtemp(prefix="cloudft-endpoint-"))
            data = {"train": job.request["trainingDataConfig"]["s3Uri"]}
            validators = job.request.get("validationDataConfig", {}).get("validators", ())
            if validators:
                data["validation"] = validators[0]["s3Uri"]
            files = {role: self._fetch(uri, folder / f"{role}.jsonl") for role, uri in data.items()}
            bucket, prefix = split(job.request["outputDataConfig"]["s3Uri"])
            self.s3.put_object(Bucket=bucket, Key=f"{prefix}{WRITE_CHECK}", Body=b"")
            run = self.trainer.start(f"job-{job.id}", job.request, files)
        except Exception as error:  # whatever it is, the job says so
            run = FailedRun(failure_of(job, error))
        with self.state.lock:
            job.run = run
        if job.status == "Stopping":
            run.stop()

    def _fetch(self, uri: str, to: Path) -> Path:
        bucket, key = split(uri, folder=False)
        with to.open("wb") as stream:
            self.s3.download_fileobj(bucket, key, stream)
        return to

    def _tick(self) -> None:
        while True:
            with self.state.lock:
                running = [job for job in self.state.running() if job.run]
            for job in running:
                assert job.run is not None
                self._advance(job, job.run.look())
            time.sleep(TICK_S)

    def _advance(self, job: Job, look: Look) -> None:
        losses = self._publish(job, look.artifacts) if look.artifacts else {}
        with self.state.lock:
            job.enter(look.details)
            if look.status == "InProgress":
                return
            job.failure, job.ended, job.modified = look.failure, now(), now()
            if look.status == "Completed":
                job.training_loss = losses["train"]
                job.validation_losses = tuple(losses[r] for r in ("validation",) if r in losses)
                self._make_model(job)
            job.status = look.status

    def _make_model(self, job: Job) -> None:
        state = self.state
        base = job.base_model_arn.rpartition("/")[2]
        arn = state.arn("custom-model", base)
        state.models[arn] = Model(arn, job.request["customModelName"], job)
        state.tag(arn, job.request.get("customModelTags", ()))
        job.model_arn = arn

    def _publish(self, job: Job, artifacts: Path) -> dict[str, float]:
        """Write the output files to S3; the last loss of each curve."""
        bucket, prefix = split(job.request["outputDataConfig"]["s3Uri"])
        losses = {}
        for role, name in (("train", TRAINING_CSV), ("validation", VALIDATION_CSV)):
            path = artifacts / name
            if not path.is_file():
                continue
            key = f"{prefix}model-customization-job-{job.id}/{name}"
            self.s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
            with path.open(encoding="utf-8", newline="") as stream:
                column = "training_loss" if role == "train" else "validation_loss"
                losses[role] = [float(row[column]) for row in csv.DictReader(stream)][-1]
        return losses

    def get_model_customization_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One job, by ARN or name."""
        with self.state.lock:
            return self._told(self._job(given))

    def _job(self, given: Mapping[str, Any]) -> Job:
        job = found(self.state.jobs, given["jobIdentifier"])
        if job is None:
            raise WireError("ResourceNotFoundException", "Could not find the customization job")
        return job  # type: ignore[no-any-return]

    def _told(self, job: Job) -> dict[str, Any]:
        request = job.request
        losses = [{"validationLoss": loss} for loss in job.validation_losses]
        training = job.training_loss
        return {
            **{k: v for k, v in request.items() if k not in ("jobTags", "customModelTags")},
            "jobArn": job.arn,
            "outputModelName": request["customModelName"],
            "outputModelArn": job.model_arn,
            "status": job.status,
            "statusDetails": self._details(job),
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

    def _details(self, job: Job) -> dict[str, Any]:
        waiting = {"status": "NotStarted"}
        return {name: job.details.get(name, waiting) for name in PHASES}

    def list_model_customization_jobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        with self.state.lock:
            jobs = [
                job
                for job in self.state.jobs.values()
                if given.get("statusEquals", job.status) == job.status
                and given.get("nameContains", "") in job.name
            ]
        shown, more = page(jobs, given)
        summaries = [self._summary(job) for job in shown]
        return {"modelCustomizationJobSummaries": summaries, **more}

    def _summary(self, job: Job) -> dict[str, Any]:
        return {
            "jobArn": job.arn,
            "baseModelArn": job.base_model_arn,
            "jobName": job.name,
            "status": job.status,
            "statusDetails": self._details(job),
            "creationTime": job.created,
            "lastModifiedTime": job.modified,
            "endTime": job.ended,
            "customModelArn": job.model_arn,
            "customModelName": job.request["customModelName"],
            "customizationType": job.request.get("customizationType", "FINE_TUNING"),
        }

    def stop_model_customization_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the run to end. Raises ConflictException for a job that has ended."""
        with self.state.lock:
            job = self._job(given)
            if job.ended:
                raise WireError("ConflictException", f"The job is {job.status}")
            job.status, job.modified = "Stopping", now()
            run = job.run
        if run:
            run.stop()
        return {}

    def get_custom_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One model, by ARN or name."""
        model = self._model(given["modelIdentifier"])
        told = self._told(model.job)
        kept = ("customizationType", "hyperParameters", "trainingDataConfig", "outputDataConfig")
        more = ("validationDataConfig", "trainingMetrics", "validationMetrics", "baseModelArn")
        return {
            **{name: told.get(name) for name in (*kept, *more, "jobArn", "jobName")},
            "modelArn": model.arn,
            "modelName": model.name,
            "creationTime": model.created,
            "modelStatus": "Active",
        }

    def _model(self, identifier: str) -> Model:
        model = found(self.state.models, identifier)
        if model is None:
            raise WireError("ResourceNotFoundException", "Could not find the custom model")
        return model  # type: ignore[no-any-return]

    def list_custom_models(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        with self.state.lock:
            models = [
                m for m in self.state.models.values() if given.get("nameContains", "") in m.name
            ]
        shown, more = page(models, given)
        summaries = [
            {
                "modelArn": model.arn,
                "modelName": model.name,
                "creationTime": model.created,
                "baseModelArn": model.job.base_model_arn,
                "baseModelName": model.job.base_model_arn.rpartition("/")[2],
                "customizationType": model.job.request.get("customizationType", "FINE_TUNING"),
                "ownerAccountId": model.arn.split(":")[4],
                "modelStatus": "Active",
            }
            for model in shown
        ]
        return {"modelSummaries": summaries, **more}

    def delete_custom_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Remove a model that nothing serves. Raises ConflictException."""
        with self.state.lock:
            model = self._model(given["modelIdentifier"])
            servings = [*self.state.deployments.values(), *self.state.throughputs.values()]
            if any(serving.model_arn == model.arn for serving in servings):
                raise WireError("ConflictException", "The model is in use")
            del self.state.models[model.arn]
            self.state.tags.pop(model.arn, None)
        return {}


def split(uri: str, *, folder: bool = True) -> tuple[str, str]:
    """Bucket and key of an S3 URI; as a folder, the key ends with a slash unless it is empty."""
    parts = urlsplit(uri)
    key = parts.path.lstrip("/")
    return parts.netloc, key.rstrip("/") + "/" if folder and key else key


def failure_of(job: Job, error: Exception) -> str:
    """The service's own words for a job that could not read or write in S3."""
    response = getattr(error, "response", None)
    if not response:
        return f"Encountered an unexpected error when processing the request: {error}"
    if getattr(error, "operation_name", "") == "PutObject":
        uri = job.request["outputDataConfig"]["s3Uri"]
        return f"Amazon S3 perms missing (PutObject): {uri} {WRITE_CHECK}"
    bucket, key = split(job.request["trainingDataConfig"]["s3Uri"], folder=False)
    return (
        "Could not validate GetObject permissions to access Amazon S3 bucket:"
        f" {bucket} at key {key}: {response['Error'].get('Code')}"
    )
