"""The backends by name. Each is imported when it is first used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.storage.home import Home

DEFAULT_BACKEND = "local"
TRAINING_BACKENDS: dict[str, str] = {
    "local": "cloudft.backends.local.backend:LocalBackend",
    "bedrock": "cloudft.backends.bedrock.backend:BedrockBackend",
    "sagemaker": "cloudft.backends.sagemaker.backend:SageMakerBackend",
}
"""Name -> `module:class` of each backend that trains. The class is called with a Home."""
EARLY_STARTS = {"local": "cloudft.backends.local.warm_process:start_early"}
"""Name -> `module:function` that returns a context in which something slow begins already."""
FOLLOW_UP_BACKENDS: dict[str, str] = {
    "import": "cloudft.backends.bedrock.model_import.backend:ImportBackend",
    "copy": "cloudft.backends.bedrock.derived_models.backend:CopyBackend",
    "custom-model": "cloudft.backends.bedrock.derived_models.backend:CustomModelBackend",
}
"""Backends that process a trained job further, as jobs of their own."""


def make_backend(name: str, home: Home) -> Backend:
    """Return the backend of that name, not bound to a job's location yet. Raise UsageError.

    Commands call `for_job` or `bind` on it once.
    """
    return backend_class(name)(home)  # type: ignore[call-arg]


def start_early(name: str) -> AbstractContextManager[None]:
    """Return a context for a command that will submit to that backend, before anything is known.

    What the backend's jobs need in any case may start at once; `warm_start` takes it.
    """
    if name not in EARLY_STARTS:
        return nullcontext()
    module, _, attribute = EARLY_STARTS[name].partition(":")
    found: AbstractContextManager[None] = getattr(import_module(module), attribute)()
    return found


def backend_class(name: str) -> type[Backend]:
    """Return the class of the backend of that name. Raise UsageError that lists the known ones."""
    known = TRAINING_BACKENDS | FOLLOW_UP_BACKENDS
    if name not in known:
        raise UsageError(
            f"there is no backend {name}",
            fix=f"use one of: {', '.join(sorted(TRAINING_BACKENDS))}.",
        )
    module, _, attribute = known[name].partition(":")
    found: type[Backend] = getattr(import_module(module), attribute)
    return found


def backends_supporting(capability: type, *, follow_up: bool = False) -> list[str]:
    """Return the names of the backends that have a capability, in the order of registration."""
    names = [*TRAINING_BACKENDS, *(FOLLOW_UP_BACKENDS if follow_up else ())]
    return [name for name in names if issubclass(backend_class(name), capability)]


def running_here(folder: Path) -> bool | None:
    """Return whether a job's process on this machine is alive, by what lies in the job's folder.

    None where no backend recognizes the folder as that of a job on this machine.
    """
    for name in TRAINING_BACKENDS:
        is_running = backend_class(name).is_running_in(folder)
        if is_running is not None:
            return is_running
    return None


@contextmanager
def registered_backend(name: str, path: str) -> Iterator[None]:
    """Register a backend that trains, by its `module:class`, for the duration of a block."""
    TRAINING_BACKENDS[name] = path
    try:
        yield
    finally:
        del TRAINING_BACKENDS[name]
