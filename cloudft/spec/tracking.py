"""The section `tracking` of the job file: which experiment trackers get the job's curves.

A tracker's credentials come from its own environment variables or login, never from the job file,
which is committed and copied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from cloudft.spec.fields import field_error
from cloudft.spec.sections import Section

_SECRET = re.compile(r"(?i)api_?key|token|password|secret|credential")
Name = Annotated[str, Field(min_length=1, max_length=256)]


def _check_address(value: str) -> str:
    """Refuse an address that has credentials in it."""
    parts = urlsplit(value)
    has_user = parts.username is not None and parts.scheme.startswith("http")
    if parts.password is None and not has_user and not _SECRET.search(parts.query):
        return value
    # The value is not repeated: it holds a secret.
    raise field_error(
        "SecretInJobFile",
        "the address has credentials in it",
        "remove them from the address; for MLflow set MLFLOW_TRACKING_USERNAME and"
        " MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, for Trackio TRACKIO_WRITE_TOKEN",
    )


def _check_server(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        fix = "write its URL, such as http://127.0.0.1:7860"
        raise field_error("BadValue", "a server's address begins with http:// or https://", fix)
    return _check_address(value)


class Tracker(Section):
    """The settings of one tracker."""

    secret_variable: ClassVar[str] = ""
    """What to set in place of a key in the job file."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_secrets(cls, values: object) -> object:
        """Refuse keys and tokens, whatever they are called; none is repeated."""
        if isinstance(values, Mapping):
            for key in values:
                if isinstance(key, str) and _SECRET.search(key) and cls.secret_variable:
                    raise field_error(
                        "SecretInJobFile",
                        f"{key[:40]!r} is a secret, and a job file holds none",
                        f"remove it and set the environment variable {cls.secret_variable}",
                    )
        return values


class MlflowTracker(Tracker):
    """Runs on an MLflow server, or in its files."""

    secret_variable: ClassVar[str] = "MLFLOW_TRACKING_TOKEN"
    tracking_uri: Annotated[Name, AfterValidator(_check_address)] | None = Field(
        default=None,
        description="http://HOST:5000, sqlite:////ABSOLUTE/mlflow.db, databricks, or a SageMaker"
        " ARN; MLFLOW_TRACKING_URI if unset.",
    )
    experiment: Name = Field(default="cloudft", description="Experiment; created if missing.")
    run_name: Name | None = Field(default=None, description="Name of the run; the job's id.")


class TensorboardTracker(Tracker):
    """Event files for TensorBoard."""

    secret_variable: ClassVar[str] = "of the storage"
    dir: Annotated[str, Field(min_length=1, max_length=2048)] = Field(
        description="Folder, relative to the job file's; each job has a folder of its id in it."
    )


class WandbTracker(Tracker):
    """Runs on Weights & Biases."""

    secret_variable: ClassVar[str] = "WANDB_API_KEY"
    project: Name = Field(description="Project; created if missing.")
    entity: Name | None = Field(default=None, description="User or team; your default if unset.")
    mode: Literal["online", "offline"] = Field(
        default="online", description="offline writes into the job's folder, for `wandb sync`."
    )


class TrackioTracker(Tracker):
    """Runs of Trackio, on this machine or on a server."""

    secret_variable: ClassVar[str] = "TRACKIO_WRITE_TOKEN"
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,127}$")] = Field(
        description="Project; created if missing."
    )
    server_url: Annotated[Name, AfterValidator(_check_server)] | None = Field(
        default=None, description="A Trackio server; the files on this machine if unset."
    )


class TrackingSpec(Section):
    """The trackers of a job; any number of them at once."""

    mlflow: MlflowTracker | None = Field(default=None, description="An MLflow server.")
    tensorboard: TensorboardTracker | None = Field(
        default=None, description="Event files for TensorBoard."
    )
    wandb: WandbTracker | None = Field(default=None, description="Weights & Biases.")
    trackio: TrackioTracker | None = Field(default=None, description="Trackio.")
