"""Check that a job's backend can serve its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.storage.store import JobRecord


def require_serving(record: JobRecord, backend: Any) -> Any:
    """The backend as one that serves. Raises UsageError for one that does not."""
    from cloudft.backends.capabilities import SupportsExport, SupportsServing

    if not isinstance(backend, SupportsServing):
        fix = f"`cloudft generate {record.id}` asks its model"
        if isinstance(backend, SupportsExport):
            fix += f"; `cloudft import {record.id}` has Bedrock serve it"
        raise UsageError(f"a job on {record.backend} needs nothing that serves it", fix=f"{fix}.")
    return backend
