"""Records of jobs as the store keeps them, without a submit."""

from __future__ import annotations

from typing import Any

from cloudft.storage.store import JobRecord, Store


def make_record(store: Store, job_id: str, **changes: Any) -> JobRecord:
    """Return a record of that id."""
    values: dict[str, Any] = {
        "id": job_id,
        "name": job_id.rpartition("-")[0],
        "backend": "local",
        "token": "0" * 32,
        "created_at": "2026-01-02T03:04:05.678+00:00",
        "customization_type": "FINE_TUNING",
        "base_model": "nova-lite",
        "hyper_parameters": {"epochCount": 2, "learningRate": 1e-5},
        "request": {"id": job_id},
        "manifest": {"sha256": "0" * 64, "files": {}},
        "estimate": {"usd": {"training": 0.0}},
        "tags": {"team": "support"},
        "spec": {"name": job_id},
        "folder": store.jobs / job_id,
    }
    return JobRecord(**values | changes)
