"""Inference with a job's models on this machine, by the local backend."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudft.backends import make_backend as backend_by_name
from cloudft.backends.base import Backend
from cloudft.backends.capabilities import (
    SupportsChatTemplate,
    SupportsExport,
    SupportsGenerate,
    SupportsInference,
    SupportsRuntimeCheck,
)
from cloudft.backends.export_options import ExportOptions
from cloudft.errors import JobStateConflict
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.types import JobState


class LocalInferenceMixin(
    SupportsGenerate,
    SupportsExport,
    SupportsRuntimeCheck,
    SupportsInference,
    SupportsChatTemplate,
):
    """Runs the models of jobs on this machine, once their artifacts are downloaded."""

    home: Home

    @abstractmethod
    def describe(self, job_id: str) -> JobState:
        """Return the job's state; the artifacts of a completed job are on this machine."""

    @property
    def local_backend(self) -> Backend:
        """Return the local backend: it builds the trainer's request, and runs its models."""
        return backend_by_name("local", self.home)

    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Yield answers in order of completion."""
        local = self.local_backend
        assert isinstance(local, SupportsGenerate)
        return local.generate(self._downloaded_job(job_id), prompts, variants, decoding)

    def export(self, job_id: str, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the tuned model and prove the result."""
        local = self.local_backend
        assert isinstance(local, SupportsExport)
        return local.export(self._downloaded_job(job_id), out, options)

    def check_runtime(
        self, job_id: str, folder: Path, runtime: str, python: str, request: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """Run an export in another runtime beside the tuned model."""
        local = self.local_backend
        assert isinstance(local, SupportsRuntimeCheck)
        return local.check_runtime(self._downloaded_job(job_id), folder, runtime, python, request)

    def load_template_features(self, job: LoadedJob) -> Mapping[str, Sequence[str]] | None:
        """Return what the template renders, if the tokenizer is on this machine too."""
        local = self.local_backend
        assert isinstance(local, SupportsChatTemplate)
        return local.load_template_features(job)

    def has_template(self, job: LoadedJob) -> bool:
        """Return whether the tokenizer is on this machine too."""
        local = self.local_backend
        assert isinstance(local, SupportsChatTemplate)
        return local.has_template(job)

    def render(self, job: LoadedJob, lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
        """Render and tokenize as the container will."""
        local = self.local_backend
        assert isinstance(local, SupportsChatTemplate)
        return local.render(job, lines)

    def open_session(self, job_id: str) -> InferenceSession:
        """Open the job's models."""
        local = self.local_backend
        assert isinstance(local, SupportsInference)
        return local.open_session(self._downloaded_job(job_id))

    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """Open the base model."""
        local = self.local_backend
        assert isinstance(local, SupportsInference)
        return local.open_base_session(job)

    def _downloaded_job(self, job_id: str) -> str:
        """Return the job's id in the local backend. Raise JobStateConflict before its end."""
        state = self.describe(job_id)
        if state.artifacts is None:
            raise JobStateConflict(
                f"{job_id} is {state.status}: it has left no model",
                fix=f"`cloudft watch {job_id}` waits for its end;"
                f" `cloudft resume {job_id}` goes on with it.",
            )
        return state.id
