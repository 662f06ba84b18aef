"""Progress of a run, from reading its data to the created job, as one object of callbacks."""

from __future__ import annotations

from cloudft.errors import QuotaExceeded
from cloudft.types import Estimate


class RunObserver:
    """Receives what happens while a job is checked, staged and submitted.

    Every method does nothing unless a subclass overrides it, except `on_quota_exceeded`.
    """

    def on_records_read(self, count: int) -> None:
        """Take the number of records read so far."""

    def on_records_rendered(self, count: int) -> None:
        """Take the number of records rendered so far, as the trained model will see them."""

    def on_activity(self, message: str) -> None:
        """Take a sentence about the long operation that begins now."""

    def on_progress(self, activity: str, done: int, total: int) -> None:
        """Take how much of an activity is done, such as the steps of a probe."""

    def on_estimate(self, estimate: Estimate) -> None:
        """Take the estimate of a job before anything of it is sent."""

    def on_upload(self, size: int) -> None:
        """Take the number of bytes that were sent since the last call."""

    def on_quota_exceeded(self, error: QuotaExceeded) -> None:
        """Raise `error`; an override that returns keeps the job queued for the quota."""
        raise error


SILENT = RunObserver()
"""The observer of callers that show nothing."""
