"""Run SageMaker's serverless customization on this machine: SFT, by the endpoint's trainer.

A stand-in is trained in place of the hub's model, as it is for Bedrock's closed models. What is
written of the training is what Amazon Nova's containers write: step, loss, learning rate.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudft.backends.aws_base.requests import split_prefix
from cloudft.endpoint.protocols.messages import Parameters, ServiceError
from cloudft.endpoint.sagemaker.model_registry import (
    SEQUENCE_LENGTH,
    ModelRegistry,
    find_hub_model,
    is_gated,
)
from cloudft.endpoint.state import State, TrainingJob
from cloudft.endpoint.training.run import RunStatus, TrainingRequest, TrainingRun
from cloudft.endpoint.training.trainers import Trainer

if TYPE_CHECKING:
    from botocore.client import BaseClient

POLL_INTERVAL_S = 0.1
HYPERPARAMETERS = {
    "max_epochs": "epochCount",
    "global_batch_size": "batchSize",
    "learning_rate": "learningRate",
}
"""Hyperparameter of the recipes -> the job file's."""
LORA_SETTINGS = {"lora_rank": "local.lora.r", "lora_alpha": "local.lora.alpha"}
MERGE = "merge_weights"
CONFLICTING_MEMBERS = (
    *("AlgorithmSpecification", "ResourceConfig", "EnableManagedSpotTraining"),
    *("CheckpointConfig", "RetryStrategy", "EnableNetworkIsolation"),
)
"""Members that say something of machines or code, of which a serverless job has none."""
NO_RECIPE = "No valid recipes found for the given request"
"""SageMaker's answer (its SDK's integration tests, test_sft_trainer_submission.py, 2026)."""


def require_supported(request: Parameters, state: State) -> None:
    """Raise ServiceError (ValidationException) for a job that is not run here."""
    config = request["ServerlessJobConfig"]
    for refused, why in (
        (_conflicts(request), "have no meaning beside ServerlessJobConfig"),
        (_untrained(config), "is not run by this endpoint: it trains SFT alone"),
        (_unknown(request), "is no hyperparameter of the recipes here"),
    ):
        if refused:
            raise ServiceError("ValidationException", f"{refused} {why}")
    model = find_hub_model(config["BaseModelArn"])
    length = config.get("SequenceLength", SEQUENCE_LENGTH)
    able = () if model is None else model.lora if config.get("Peft") == "LORA" else model.full
    if "SFT" not in able or length != SEQUENCE_LENGTH:
        raise ServiceError("ValidationException", NO_RECIPE)
    if model is not None and is_gated(model.hub) and not config.get("AcceptEula"):
        what = "The model's end-user license agreement must be accepted: AcceptEula"
        raise ServiceError("ValidationException", what)
    group = group_of(request)
    if group not in state.model_package_groups:
        raise ServiceError("ValidationException", f"ModelPackageGroup {group} does not exist.")


def group_of(request: Parameters) -> str:
    """Return the name of the model package group, which a serverless job must have here."""
    arn = request.get("ModelPackageConfig", {}).get("ModelPackageGroupArn", "")
    return str(arn).rpartition("/")[2]


def _conflicts(request: Parameters) -> str:
    return " and ".join(name for name in CONFLICTING_MEMBERS if request.get(name))


def _untrained(config: Mapping[str, Any]) -> str:
    if config["JobType"] != "FineTuning":
        return f"The job type {config['JobType']}"
    technique = config.get("CustomizationTechnique")
    return "" if technique == "SFT" else f"The technique {technique}"


def _unknown(request: Parameters) -> str:
    known = {*HYPERPARAMETERS, *LORA_SETTINGS, MERGE}
    return ", ".join(sorted(set(request.get("HyperParameters", {})) - known))


@dataclass
class ServerlessRun:
    """One job's run: what it reads and writes, and its training."""

    job: TrainingJob
    s3: BaseClient
    trainer: Trainer
    stand_in: str
    folder: Path
    write_line: Callable[[str], None]
    written: int = 0

    def start(self) -> TrainingRun:
        """Download the data and start the training, or reattach to it. Raise ClientError of S3."""
        data, uris = {}, {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for channel in self.job.request["InputDataConfig"]:
            role = channel["ChannelName"]
            path = self.folder / f"{role}.jsonl"
            self._download(channel["DataSource"]["S3DataSource"]["S3Uri"], path)
            data[role] = path
            uris[role] = channel["DataSource"]["S3DataSource"]["S3Uri"]
        given = self.job.request.get("HyperParameters", {})
        created: Any = {
            "baseModelIdentifier": self.stand_in,
            "customizationType": "FINE_TUNING",
            "trainingDataConfig": {"s3Uri": uris.get("train", "")},
            "hyperParameters": {
                HYPERPARAMETERS[n]: v for n, v in given.items() if n in HYPERPARAMETERS
            },
        }
        settings: dict[str, object] = {
            LORA_SETTINGS[name]: value for name, value in given.items() if name in LORA_SETTINGS
        }
        if self.job.request["ServerlessJobConfig"].get("Peft") != "LORA":
            settings["local.method"] = "full"
        return self.trainer.start(
            TrainingRequest(
                self.job.name,
                created,
                data,
                self.stand_in,
                self.folder,
                stop_requested=self.job.status == "Stopping",
                settings=settings,
                record_forms=self._record_forms(),
            )
        )

    def _record_forms(self) -> tuple[str, ...]:
        """Return the formats of records that the hub's model is tuned with.

        Source: SageMaker developer guide, "SFT", and for Amazon Nova sagemaker-train 1.27.0.
        """
        model = find_hub_model(self.job.request["ServerlessJobConfig"]["BaseModelArn"])
        return ("converse",) if model and model.is_nova else ("messages", "prompt-completion")

    def _download(self, uri: str, path: Path) -> None:
        """Download the object, or all below the prefix, as one file of lines."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        listed = self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        if not listed:
            raise ServiceError("ValidationException", f"No S3 objects found under {uri}")
        path.write_bytes(
            b"".join(
                self.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in listed
            )
        )

    def follow(self, run: TrainingRun, closing: threading.Event) -> RunStatus | None:
        """Poll the training to its end and write its curve; None when the endpoint closes."""
        while True:
            status = run.poll()
            self._write_curve(run)
            if status.status != "InProgress":
                return None if closing.is_set() else status
            if self.job.status == "Stopping" or closing.wait(POLL_INTERVAL_S):
                run.stop()

    def _write_curve(self, run: TrainingRun) -> None:
        points = [point for point in run.losses() if point.split == "train"]
        for point in points[self.written :]:
            rate = "" if point.learning_rate is None else f" lr={point.learning_rate}"
            self.write_line(f"global_step={point.step} reduced_train_loss={point.loss}{rate}")
        self.written = max(self.written, len(points))

    def publish(self, run: TrainingRun, status: RunStatus) -> str:
        """Upload the model to S3 as SageMaker lays it out; return its prefix."""
        config = self.job.request["OutputDataConfig"]
        bucket, prefix = split_prefix(config["S3OutputPath"])
        root = f"{prefix}{self.job.name}/output/model/"
        key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config.get("KmsKeyId")}
        settings = key if config.get("KmsKeyId") else {}
        for name, path in self._model_files(run, status).items():
            self.s3.put_object(
                Bucket=bucket, Key=f"{root}{name}", Body=path.read_bytes(), **settings
            )
        return f"s3://{bucket}/{root}"

    def _model_files(self, run: TrainingRun, status: RunStatus) -> dict[str, Path]:
        """Return the files of the model by their names: merged weights, and the adapter."""
        files: dict[str, Path] = {}
        artifacts, given = status.artifacts, self.job.request.get("HyperParameters", {})
        is_adapter = self.job.request["ServerlessJobConfig"].get("Peft") == "LORA"
        if artifacts is not None and is_adapter and (artifacts / "model").is_dir():
            files |= _files_below(artifacts / "model", "checkpoints/hf/")
        if run.local_job_id is not None and (not is_adapter or given.get(MERGE) == "true"):
            merged = self.trainer.export_merged(run.local_job_id, self.folder / "merged")
            if merged is not None:
                files |= _files_below(Path(merged), "checkpoints/hf_merged/")
        return files

    def remove(self) -> None:
        """Remove what was downloaded and merged."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _files_below(folder: Path, prefix: str) -> dict[str, Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f"{prefix}{path.relative_to(folder).as_posix()}": path for path in found}


@dataclass(frozen=True)
class ServerlessService:
    """What serverless jobs of the endpoint need: the trainer, its stand-in, the registry."""

    trainer: Trainer
    stand_in: str
    registry: ModelRegistry
