"""The file that an evaluation leaves in the job's folder, and the newest of them.

CLOUDFT_HOME/jobs/ID/evaluations/TIME-DIGEST.json
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from cloudft.errors import JobStateConflict, StoreError
from cloudft.files import as_store_error, write_whole

FOLDER = "evaluations"
VERSION = 1


def keep(job_folder: Path, value: Mapping[str, Any]) -> Path:
    """Write an evaluation down; returns its file. Raises StoreError."""
    time = str(value["createdAt"]).replace(":", "").replace("+0000", "Z")
    path = job_folder / FOLDER / f"{time}-{value['data']['sha256'][:8]}.json"
    with as_store_error("the evaluation can't be written down", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, orjson.dumps(value, option=orjson.OPT_INDENT_2))
    return path


def newest(job_folder: Path) -> dict[str, Any]:
    """The job's last evaluation, its records included.

    Raises JobStateConflict when there is none, StoreError for one that can't be read.
    """
    files = sorted((job_folder / FOLDER).glob("*.json"))
    if not files:
        raise JobStateConflict(
            f"{job_folder.name} was not evaluated yet",
            fix=f"cloudft evaluate {job_folder.name}",
        )
    return read(files[-1])


def read(path: Path) -> dict[str, Any]:
    """One evaluation. Raises StoreError when it can't be read, or is of another version."""
    try:
        value: dict[str, Any] = orjson.loads(path.read_bytes())
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']}, this cloudft reads {VERSION}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the evaluation can't be read: {error}",
            file=str(path),
            fix="remove it and run `cloudft evaluate JOB` again.",
        ) from error
    return value
