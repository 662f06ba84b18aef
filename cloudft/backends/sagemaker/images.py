"""The container image: the job file's, or what the SageMaker SDK says. It is never guessed.

The SDK's core (450 MB, seconds to import) is asked for this alone. Its ModelTrainer makes a name of
its own for each call, uploads while it builds the request and sends it by itself: a request that is
shown first and submitted once can't be had from it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from cloudft.errors import UsageError

FRAMEWORK, SCOPE = "pytorch", "training"


def sdk_is_here() -> bool:
    """True where the extra `sagemaker` is installed."""
    try:
        return importlib.util.find_spec("sagemaker.core") is not None
    except ModuleNotFoundError:
        return False


def stock(region: str, instance_type: str, version: str | None) -> str:
    """The SDK's PyTorch training image for that machine. Raises UsageError for no such version."""
    from sagemaker.core import image_uris

    known: dict[str, Any] = image_uris.config_for_framework(FRAMEWORK)[SCOPE]["versions"]
    chosen = version or max(known, key=_numbers)
    full = [name for name in known if name == chosen or name.startswith(f"{chosen}.")]
    if not full:
        raise UsageError(
            f"the SageMaker SDK knows no PyTorch image {chosen}",
            fix=f"take one of {', '.join(list(known)[-5:])}, or name sagemaker.image_uri.",
        )
    exact = max(full, key=_numbers)
    image: str = image_uris.retrieve(
        FRAMEWORK,
        region,
        version=exact,
        py_version=known[exact]["py_versions"][-1],
        instance_type=instance_type,
        image_scope=SCOPE,
    )
    return image


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
