"""Errors that the trainer raises on purpose."""

from __future__ import annotations


class TrainerError(Exception):
    """A refusal with a remedy. It ends the job in Failed, and its text is the failure message."""

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message} Fix: {fix}")
        self.message = message
        self.fix = fix


class StopRequested(Exception):
    """Raised when a stop was requested. A checkpoint has been written if a step was taken."""
