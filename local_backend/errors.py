"""Errors that the trainer raises on purpose."""

from __future__ import annotations


class TrainerError(Exception):
    """A refusal with a remedy. It ends the job in Failed, and its text is the failure message."""

    code: str | None = None
    """What is at fault, for programs: set where a caller acts on it."""

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message} Fix: {fix}")
        self.message = message
        self.fix = fix


class PromptError(TrainerError):
    """A prompt that the model can't take."""

    code = "prompt"


class PromptTooLong(PromptError):
    """A prompt that fills the model's context."""

    code = "promptTooLong"


class SchemaError(TrainerError):
    """A JSON schema that an answer can't be kept to."""

    code = "schema"


class ModelFailed(TrainerError):
    """An error that no request is at fault for."""

    code = "modelFailed"


class StopRequested(Exception):
    """Raised when a stop was requested. A checkpoint has been written if a step was taken."""
