"""Choose what answers for the tuned model of an evaluation, and open it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudft.backends.export_options import ExportOptions, choose_export
from cloudft.errors import UsageError
from cloudft.inference import InferenceSession
from cloudft.runtimes.launch import (
    LLAMA_CPP,
    MODEL_NAME,
    STARTABLE,
    VLLM,
    find_gguf,
    started_server,
)
from cloudft.runtimes.openai_client import OpenAIClient, normalize_url
from cloudft.runtimes.served_model import ServedModel, find_served_model
from cloudft.runtimes.session import RuntimeSession
from cloudft.storage.atomic_files import as_store_error, scratch_folder
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

OPENAI = "openai"
SCRATCH_PREFIX = ".engine-"
EXPORTS = {VLLM: choose_export("vllm", None), LLAMA_CPP: choose_export("llama.cpp", None)}
"""Engine -> how the job's model is exported for it: as `cloudft export --for` does."""
BLOCK = 1 << 20

Exporter = Callable[[Path, ExportOptions], object]
"""Writes the job's model to a new folder."""


@dataclass(frozen=True)
class EngineChoice:
    """What answers for the tuned model: a server at `url`, or one that is started.

    `model` and `base_model` are names on the server; without `base_model` the job's own backend
    answers for the base. `folder` is an exported model to start the server on, without one the
    job's is exported.
    """

    engine: str
    url: str | None = None
    model: str | None = None
    base_model: str | None = None
    folder: Path | None = None


def parse_engine(
    text: str, model: str | None, base_model: str | None, folder: Path | None
) -> EngineChoice:
    """Return the choice that the options name. Raise UsageError for options that don't fit."""
    name, colon, url = text.partition(":")
    if name == OPENAI and colon:
        if folder is not None:
            raise UsageError(
                f"{text} is served already, so there is nothing to start on {folder}",
                fix="omit --engine-dir.",
            )
        return EngineChoice(OPENAI, normalize_url(url), model, base_model)
    if text not in STARTABLE:
        raise UsageError(
            f"there is no engine {text[:80]!r}",
            fix="name vllm, llama.cpp, or a server: openai:http://HOST:PORT/v1",
        )
    if model is not None or base_model is not None:
        raise UsageError(
            f"{text} is started on one model, which has no other name",
            fix="omit --engine-model and --engine-base.",
        )
    return EngineChoice(text, folder=folder)


def open_engine_session(
    choice: EngineChoice,
    record: JobRecord,
    home: Home,
    open_rest: Callable[[], InferenceSession],
    export: Exporter,
) -> RuntimeSession:
    """Open the chosen engine; `open_rest` opens the job's own models.

    Raise UsageError for a model that it has not, TrainerError for an engine that does not start.
    """
    if choice.url is not None:
        return _open_server(choice, choice.url, record, open_rest)
    with contextlib.ExitStack() as stack:
        folder = choice.folder
        if folder is None:
            with as_store_error("the model can't be exported", home.path):
                scratch = stack.enter_context(scratch_folder(home.path, SCRATCH_PREFIX))
            folder = scratch / "model"
            export(folder, EXPORTS[choice.engine])
        server, version = stack.enter_context(started_server(choice.engine, folder))
        found = find_served_model(server, MODEL_NAME)
        files = [find_gguf(folder)] if choice.engine == LLAMA_CPP else _model_files(folder)
        model = dataclasses.replace(
            found,
            title=files[0].name if choice.engine == LLAMA_CPP else "exported model",
            place=f"{choice.engine}, sha256 {hash_files(files)}",
            version=_name_version(version, found.version),
        )
        started = stack.pop_all()
    return RuntimeSession(choice.engine, {"tuned": model}, open_rest, started.close)


def _name_version(program: str, stated: str | None) -> str:
    """Return name and version of a program; the version that it states, if it is known by that."""
    has_version = any(character.isdigit() for character in program)
    return program if has_version or stated is None else f"{program} {stated}"


def _open_server(
    choice: EngineChoice,
    url: str,
    record: JobRecord,
    open_rest: Callable[[], InferenceSession],
) -> RuntimeSession:
    server = OpenAIClient(url)
    served: dict[str, ServedModel] = {
        "tuned": find_served_model(server, choice.model, (record.id, record.name))
    }
    if choice.base_model is not None:
        served["base"] = find_served_model(server, choice.base_model, option="--engine-base")
        _check_different(served)
    return RuntimeSession(OPENAI, served, open_rest)


def _check_different(served: Mapping[str, ServedModel]) -> None:
    """Raise UsageError where a server answers for base and tuned model with one of them."""
    base, tuned = served["base"], served["tuned"]
    if base.name == tuned.name:
        raise UsageError(
            f"{tuned.name} is named as base and as tuned model",
            fix="name two models of the server, by --engine-model and --engine-base.",
        )


def _model_files(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not found:
        raise UsageError(f"{folder} has no model", fix="name an exported model: --engine-dir DIR")
    return found


def hash_files(files: list[Path]) -> str:
    """Return the sha256 of files, by name and content. Raise StoreError."""
    whole = hashlib.sha256()
    for path in files:
        with as_store_error("the model can't be read", path), path.open("rb") as stream:
            part = hashlib.sha256()
            while block := stream.read(BLOCK):
                part.update(block)
        whole.update(f"{path.name}\0{part.hexdigest()}\n".encode())
    return whole.hexdigest()
