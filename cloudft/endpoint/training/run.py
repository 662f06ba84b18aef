"""A training run: what is requested, how it goes, and the interface of what runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.types import VALIDATION, validation_role

if TYPE_CHECKING:
    from cloudft.endpoint.bedrock.shapes import CreateCustomizationJobRequest
    from cloudft.endpoint.grader_functions import GraderFunction
    from cloudft.types import Metric


@dataclass(frozen=True)
class TrainingRequest:
    """A training run to start.

    `name` identifies the run: the same name after a restart is the same run. `request` is that of
    CreateModelCustomizationJob. `data` maps a role to its file: `train`, and those of
    `validator_uris`. `stand_in` is the open model that is trained. `folder` is the run's own.
    `stop_requested` is true if the job was being stopped when the endpoint ended. `settings` are
    values of a job file, by dotted name, that no hyperparameter of Bedrock has. `record_forms` are
    the record formats that the service takes; those of the model's customization type if there are
    none. `records_max` is the account's quota of records, None where the model has none. `grader`
    is the function that grades a reinforcement job.
    """

    name: str
    request: CreateCustomizationJobRequest
    data: Mapping[str, Path]
    stand_in: str
    folder: Path
    stop_requested: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    record_forms: tuple[str, ...] = ()
    records_max: int | None = None
    grader: GraderFunction | None = None

    @property
    def customization_type(self) -> str:
        """Return the customization type: FINE_TUNING unless the request names another."""
        return self.request.get("customizationType", "FINE_TUNING")


def training_uri(request: CreateCustomizationJobRequest) -> str:
    """Return where a request's training data is in S3: the file, or the invocation logs."""
    config = request["trainingDataConfig"]
    if "s3Uri" in config:
        return config["s3Uri"]
    return config["invocationLogsConfig"]["invocationLogSource"]["s3Uri"]


def validator_uris(request: CreateCustomizationJobRequest) -> dict[str, str]:
    """Return a request's validation files in S3 by role, in the request's order.

    One has the role `validation`; each of several has one of its own, by its number.
    """
    validators = request.get("validationDataConfig", {}).get("validators", ())
    if len(validators) == 1:
        return {VALIDATION: validators[0]["s3Uri"]}
    return {validation_role(f"{n:02}"): one["s3Uri"] for n, one in enumerate(validators, 1)}


@dataclass(frozen=True)
class RunStatus:
    """The status of a run at one moment, in Bedrock's words.

    `status_details` maps a phase of `PHASES` to its status. `artifacts` is the folder with the
    output files of a completed run.
    """

    status: str
    status_details: Mapping[str, str]
    failure_message: str | None = None
    artifacts: Path | None = None


class TrainingRun(ABC):
    """A training that was started."""

    @property
    def local_job_id(self) -> str | None:
        """Return the id of the local job whose model answers; None if there is none."""
        return None

    def losses(self) -> Iterator[Metric]:
        """Yield the points of the loss curves so far; none where nothing is trained."""
        return iter(())

    @abstractmethod
    def poll(self) -> RunStatus:
        """Return the current status."""

    @abstractmethod
    def stop(self) -> None:
        """Request a stop. The run ends in Stopped at a later poll."""


class FailedRun(TrainingRun):
    """A run that never started: its data or its settings were refused."""

    def __init__(self, failure_message: str) -> None:
        self.failure_message = failure_message

    def poll(self) -> RunStatus:
        """Return Failed in validation."""
        details = {"validationDetails": "Failed"}
        return RunStatus("Failed", details, failure_message=self.failure_message)

    def stop(self) -> None:
        """Do nothing: it has ended."""
