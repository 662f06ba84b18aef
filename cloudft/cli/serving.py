"""Check that a job's backend can serve its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.backends.capabilities import SupportsServing
    from cloudft.storage.store import JobRecord


def require_serving(record: JobRecord, backend: Backend) -> SupportsServing:
    """Return the backend if it can serve models. Raise UsageError if it can't."""
    from cloudft.backends.capabilities import SupportsExport, SupportsServing

    if not isinstance(backend, SupportsServing):
        fix = f"`cloudft generate {record.id}` sends it prompts"
        if isinstance(backend, SupportsExport):
            fix += f"; `cloudft import {record.id}` imports it into Bedrock, which serves it"
        raise UsageError(
            f"the model of a job on {record.backend} is not served by a deployment", fix=f"{fix}."
        )
    return backend
