"""What the endpoint's state keeps of the OpenAI-compatible API: files and fine-tuning jobs."""

from __future__ import annotations

import secrets
import string
import time
from dataclasses import dataclass, field
from typing import Any

from cloudft.endpoint.protocols.messages import Parameters

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""Final statuses of a fine-tuning job."""
ID_LENGTH = 24
ID_CHARACTERS = string.ascii_lowercase + string.digits


def new_object_id(kind: str) -> str:
    """Return a new id such as `ftjob-1a2b...`, as OpenAI's API forms them."""
    return f"{kind}-{''.join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))}"


def now_s() -> int:
    """Return the time in seconds since 1970: the API knows no fractions."""
    return int(time.time())


@dataclass
class UploadedFile:
    """A file that was uploaded. Its content is in the endpoint's folder, under its id."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created: int = field(default_factory=now_s)


@dataclass
class FineTuningJob:
    """A fine-tuning job: its request, and its progress. `events` are in order of time.

    `local` is the id of the local backend's job that trains it. `steps` counts the steps whose
    metrics are in the events. `cancel_requested` is true from the call of cancel on.
    """

    id: str
    request: Parameters
    created: int = field(default_factory=now_s)
    finished: int | None = None
    status: str = "validating_files"
    failure: str | None = None
    fine_tuned_model: str | None = None
    local: str | None = None
    cancel_requested: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Return whether the status is final."""
        return self.status in ENDED

    def add_event(
        self, message: str, level: str = "info", metrics: dict[str, Any] | None = None
    ) -> None:
        """Append an event; with metrics, one of the type `metrics`."""
        self.events.append(
            {
                "id": new_object_id("ftevent"),
                "object": "fine_tuning.job.event",
                "created_at": now_s(),
                "level": level,
                "message": message,
                "type": "message" if metrics is None else "metrics",
                "data": metrics or {},
            }
        )
