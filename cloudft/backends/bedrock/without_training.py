"""What jobs that make a model without training have in common: no curve, no stop, no artifacts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudft.errors import JobStateConflict
from cloudft.types import Metric


class WithoutTraining(ABC):
    """Part of a backend of imports, copies and other jobs whose result is a model in Bedrock."""

    @abstractmethod
    def bedrock_status(self, job_id: str) -> str:
        """Return the job's status as Bedrock names it. Raise JobNotFound."""

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """Yield nothing: nothing is trained."""
        self.bedrock_status(job_id)
        yield from ()

    def stop(self, job_id: str) -> None:
        """Do nothing for one that has ended; raise JobStateConflict for a running one."""
        if self.bedrock_status(job_id) == "InProgress":
            message = f"{job_id} can't be stopped: Bedrock has no operation for it"
            raise JobStateConflict(message, fix="wait for its end, then `cloudft gc`.")

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Raise JobStateConflict: the model stays in Bedrock."""
        self.bedrock_status(job_id)
        message = f"{job_id} has no artifacts: its model is in Bedrock"
        raise JobStateConflict(message, fix="download those of the trained job.")
