"""Load the models that answer: those that local jobs tuned, and the open weights of stand-ins."""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Sequence
from pathlib import Path

from cloudft.backends.local.backend import LocalBackend
from cloudft.backends.local.job_folder import JOB
from cloudft.backends.local.model_process import ModelProcess
from cloudft.endpoint.bedrock.inference_request import ModelRef
from cloudft.endpoint.bedrock.local_inference import ModelLoader
from cloudft.serving.engine import Engine
from cloudft.serving.engine_process import (
    EngineProcess,
    describe_base_model,
    describe_local_job,
    open_engine,
)
from cloudft.spec.load import LoadedJob, load_spec


class LocalModels(ModelLoader):
    """Loads the models of one local backend. Jobs with adapters share the engine of their base."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        # What a job or a stand-in was tuned from never changes.
        self._base_of = functools.cache(self._read_base)

    def group_of(self, model: ModelRef) -> Hashable:
        """Return the base's name and files; of a job that has tuned all weights, the job."""
        return self._base_of(model.local_job_id, model.model)

    def _read_base(self, job_id: str | None, model: str) -> str:
        request = json.loads((self._folder(job_id, model) / JOB).read_bytes())
        own = job_id if request["method"] == "full" and job_id is not None else None
        return json.dumps([own, request["model"]])

    def _folder(self, job_id: str | None, model: str) -> Path:
        if job_id is not None:
            return self._backend.trained_folder(job_id)
        return self._backend.base_model_folder(_base_job(model))

    def open_engine(self, models: Sequence[ModelRef]) -> Engine:
        """Load the engine of models of one group, in float32 as `generate` does."""
        # A base first: where jobs have the base as well, it is that of the stand-in.
        jobs = [
            describe_base_model(self._backend.base_model_folder(_base_job(model.model)))
            for model in models
            if model.local_job_id is None
        ]
        jobs += [
            describe_local_job(self._backend, model.local_job_id)
            for model in models
            if model.local_job_id is not None
        ]
        environment = self._backend.program_environment(jobs[0].folder)
        return open_engine(jobs, environment, dtype="float32")

    def open_process(self, model: ModelRef) -> ModelProcess:
        """Load the process of a model, which scores texts."""
        if model.local_job_id is not None:
            return self._backend.start_model_process(model.local_job_id)
        return self._backend.open_base_session(_base_job(model.model))

    def is_alive(self, engine: Engine) -> bool:
        """Return whether an engine's process still runs."""
        return not isinstance(engine, EngineProcess) or engine.is_alive


def _base_job(model: str) -> LoadedJob:
    """Return a job that names a base model; its data is never read."""
    flags = {"name": "base", "base_model": model, "data.train": "none.jsonl"}
    return load_spec({}, flags=flags)
