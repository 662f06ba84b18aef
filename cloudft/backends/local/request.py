"""Build the trainer's request (job.json) as a value. No side effects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from cloudft import catalogue
from cloudft.backends.base import StagedJob
from cloudft.backends.job_section import runtimes_of
from cloudft.backends.local.job_folder import GRADER, START
from cloudft.backends.local.job_section import Lora, Preference
from cloudft.backends.local.reinforcement import (
    build_settings,
    given_hyperparameters,
    is_reinforcement,
)
from cloudft.backends.teacher import find_teacher, response_length
from cloudft.backends.trained_model import trained_model
from cloudft.errors import UsageError
from cloudft.spec.load import LoadedJob
from cloudft.spec.model import JobSpec
from cloudft.types import Manifest

VERSION = 1
"""Format version of job.json; the trainer refuses another one."""
FULL_LEARNING_RATE = 2e-5
"""Default when all weights are trained: a LoRA's rate would wreck them."""
PREFERENCE_LEARNING_RATES = {"full": 1e-6, "lora": 5e-5, "qlora": 5e-5}
"""Defaults for pairs of answers, by method: TRL's for all weights (DPOConfig), and for an adapter
some ten times that of its examples. Pairs move a model faster than answers do."""
SIMPO_GAMMA = 0.5
"""TRL's default (CPOConfig.simpo_gamma)."""


def resolve_hyperparameters(job: LoadedJob) -> dict[str, int | float]:
    """Return the trainer's hyperparameters: local, the job's, the model's, our defaults."""
    table = catalogue.load_local_hyperparameters(job.spec.customization_type)
    values: dict[str, int | float] = {name: parameter.default for name, parameter in table.items()}
    if job.spec.local.method == "full":
        values["learningRate"] = FULL_LEARNING_RATE
    if job.spec.customization_type == "PREFERENCE_OPTIMIZATION":
        values["learningRate"] = PREFERENCE_LEARNING_RATES[job.spec.local.method]
    if is_reinforcement(job):
        values |= given_hyperparameters(job)
    else:
        if not job.model.is_open_weight:
            values |= {name: p.default for name, p in job.model.hyperparameters.items()}
        values |= job.spec.hyperparameters
    values |= job.spec.local.hyperparameters
    return {name: values[name] for name in table}


def find_unsupported_hyperparameters(job: LoadedJob) -> list[str]:
    """Return hyperparameters that the job sets and the trainer does not support."""
    set_names = {**job.spec.hyperparameters, **job.spec.local.hyperparameters}
    table = catalogue.load_local_hyperparameters(job.spec.customization_type)
    return [name for name in set_names if name not in table]


def resolve_eval_steps(job: LoadedJob) -> int | None:
    """Return the steps between two evaluations; None for one at the end of each epoch alone."""
    interval = resolve_hyperparameters(job).get("evalInterval")
    named = job.spec.local.eval_steps
    return named if named is not None or interval is None else int(interval)


def build_request(staged: StagedJob) -> dict[str, Any]:
    """Return job.json without its id, which follows from it."""
    spec, model = staged.job.spec, trained_model(staged.job)
    assert model is not None, "preflight refuses a job without a model to train"
    stopping = spec.local.early_stopping or spec.early_stopping
    return {
        "version": VERSION,
        "name": spec.name,
        "attempt": staged.attempt,
        "customizationType": spec.customization_type,
        "baseModel": spec.base_model,
        "format": staged.manifest.format,
        "model": {"name": model.alias, "weights": [_in_job_folder(w) for w in model.weights]},
        "method": spec.local.method,
        "lora": _lora(spec.local.lora),
        "hyperParameters": resolve_hyperparameters(staged.job),
        "earlyStopping": stopping.model_dump() if stopping else None,
        "seed": spec.seed,
        "device": spec.local.device,
        "dtype": spec.local.dtype,
        "maxLength": spec.local.max_length,
        "microBatchSize": spec.local.micro_batch_size,
        "evalSteps": resolve_eval_steps(staged.job),
        "maxTruncatedShare": spec.local.max_truncated_share,
        "processes": spec.local.processes,
        "fsdp": spec.local.fsdp,
        # Omitted when it is the default: such a job keeps the token it had before this key.
        **({} if spec.local.packed == "auto" else {"packed": spec.local.packed}),
        **_distillation(staged.job),
        **_objective_settings(spec),
        **build_settings(staged.job),
        **({"grader": _grader(staged)} if staged.grader else {}),
        "data": _data(staged.manifest),
    }


def _objective_settings(spec: JobSpec) -> dict[str, Any]:
    """Return what only some customization types have; the token of another job has none of it."""
    if spec.customization_type != "PREFERENCE_OPTIMIZATION":
        return {}
    preference = spec.preference or Preference()
    return {
        "preference": {
            "method": preference.method,
            "beta": preference.beta,
            "label_smoothing": preference.label_smoothing or 0.0,
            "simpo_gamma": SIMPO_GAMMA
            if preference.simpo_gamma is None
            else preference.simpo_gamma,
        }
    }


def _grader(staged: StagedJob) -> dict[str, Any]:
    section, grader = staged.job.spec.reinforcement, staged.grader
    assert section is not None and grader is not None
    return {
        "path": GRADER,
        "sha256": grader.sha256,
        "timeoutSeconds": section.timeout_seconds,
        "memoryMb": section.memory_mb,
    }


def build_base_model_request(job: LoadedJob) -> dict[str, Any]:
    """Return the job.json of a job that is never trained, to prompt its base model."""
    kind = job.spec.customization_type
    nothing = Manifest("", kind, job.model.formats[kind], job.spec.seed, {}, (), "")
    request = build_request(StagedJob(job, nothing, Path()))
    request.pop("distillation", None)
    return request | {"model": build_tokenize_request(job, preview=False)["model"]}


def build_tokenize_request(job: LoadedJob, *, preview: bool) -> dict[str, Any]:
    """Return the request of the tokenizer program. Raise UsageError when no model is trained."""
    model = trained_model(job)
    if model is None:
        raise UsageError(
            f"the tokenizer of {job.spec.base_model} is not available",
            fix="set an open model to train: `local: {model: smollm2-135m}`"
            " (`cloudft models` lists them).",
        )
    kind = job.spec.customization_type
    return {
        "model": {"name": model.alias, "weights": [w.to_json() for w in model.weights]},
        "customizationType": kind,
        "format": job.model.formats[kind],
        "preview": preview,
    }


def build_targets_request(job: LoadedJob) -> dict[str, Any]:
    """Return the request of the program that checks target_modules."""
    model = trained_model(job)
    assert model is not None, "the caller has a model to train"
    return {
        "model": {"name": model.alias, "weights": [w.to_json() for w in model.weights]},
        "lora": _lora(job.spec.local.lora),
        "method": job.spec.local.method,
    }


def build_exports_request(job: LoadedJob) -> dict[str, Any] | None:
    """Return the request of the program that checks exports; None for a job that names none."""
    exports = runtimes_of(job.spec.export)
    return None if exports is None else {**build_targets_request(job), **exports}


def _lora(lora: Lora) -> dict[str, Any]:
    targets = lora.target_modules
    return {
        "r": lora.r,
        "alpha": lora.alpha,
        "dropout": lora.dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets),
    }


def _distillation(job: LoadedJob) -> dict[str, Any]:
    """Return the teacher that the trainer lets answer: a model on this machine, or none."""
    teacher, section = find_teacher(job), job.spec.distillation
    if teacher is None or section is None or not teacher.is_open_weight:
        return {}
    weights = [_in_job_folder(one) for one in teacher.weights]
    return {
        "distillation": {
            "teacher": {"name": teacher.alias, "weights": weights},
            "maxResponseLength": response_length(job),
            "temperature": section.temperature,
        }
    }


def _in_job_folder(weights: catalogue.Weights) -> dict[str, object]:
    """Return a location of weights; a job's model lies in the folder of the job that starts from
    it.
    """
    if weights.kind != "job":
        return weights.to_json()
    base = [_in_job_folder(one) for one in weights.base]
    return {**weights.to_json(), "path": f"{START}/{weights.job}", "base": base}


def _data(manifest: Manifest) -> dict[str, Any]:
    return {
        role: {"path": f"data/{file.name}", "sha256": file.sha256, "records": file.records}
        for role, file in manifest.files.items()
    }


def request_token(request: Mapping[str, object]) -> str:
    """Return the name of a request: 32 hex digits that follow from all of it."""
    content = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]
