"""The backends by name, each imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cloudft.backends.base import Backend
from cloudft.errors import UsageError
from cloudft.storage.home import Home

TRAINING_BACKENDS: dict[str, str] = {
    "local": "cloudft.backends.local.backend:LocalBackend",
    "bedrock": "cloudft.backends.bedrock.backend:BedrockBackend",
    "sagemaker": "cloudft.backends.sagemaker.backend:SageMakerBackend",
}
"""Name -> `module:class` of what trains. The class is made with a Home."""
FOLLOW_UP_BACKENDS: dict[str, str] = {
    "import": "cloudft.backends.bedrock.model_import.backend:ImportBackend",
}
"""What takes a trained job further: its own jobs, in the same life."""


def make_backend(name: str, home: Home) -> Backend:
    """The backend called `name`. Raises UsageError that lists the known ones."""
    made: Backend = backend_class(name)(home)
    return made


def backend_class(name: str) -> Any:
    """The class of the backend called `name`. Raises UsageError."""
    try:
        module, _, attribute = (TRAINING_BACKENDS | FOLLOW_UP_BACKENDS)[name].partition(":")
    except KeyError:
        raise UsageError(
            f"there is no backend {name}",
            fix=f"use one of: {', '.join(sorted(TRAINING_BACKENDS))}.",
        ) from None
    return getattr(import_module(module), attribute)
