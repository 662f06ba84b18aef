"""The folder of a sweep: `CLOUDFT_HOME/sweeps/ID/`.

    study.jsonl     the trials, as Optuna keeps them: the truth (study.py)
    result.json     what they amount to so far; rewritten after each event, for pages and people
    trials.csv      the trials as a table
    sweep.png       score by trial, and by each parameter
    best.yaml       the job file with the best values, once there are any
    lock            held by the `cloudft sweep` that works on it

The id follows from the job, its data and the space: the same sweep continues, with more trials or
minutes too. A trial is a job of its own in `jobs/`, with the tags `sweep` and `trial`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from cloudft.backends.base import StagedJob
from cloudft.errors import BadDocument, JobNotFound, JobStateConflict, StoreError
from cloudft.spec.serialize import to_portable_values
from cloudft.storage.atomic_files import as_store_error, is_locked, make_private_folder, try_lock
from cloudft.storage.documents import decode
from cloudft.storage.home import Home
from cloudft.sweep.result import SweepResult
from cloudft.types import job_id

STUDY_FILE, RESULT_FILE, LOCK_FILE = "study.jsonl", "result.json", "lock"
CSV_FILE, PICTURE_FILE, BEST_FILE = "trials.csv", "sweep.png", "best.yaml"


def sweep_id(staged: StagedJob) -> str:
    """Return the id of the sweep of a staged job, by all that a trial's score follows from."""
    spec = staged.job.spec
    assert spec.sweep is not None
    content = {
        "job": to_portable_values(staged.job),
        "space": spec.sweep.model_dump()["space"],
        "pruning": spec.sweep.pruning,
        "data": staged.manifest.sha256,
    }
    digest = hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return job_id(spec.name, digest)


@dataclass(frozen=True)
class SweepFolder:
    """One sweep's folder."""

    path: Path

    @property
    def is_running(self) -> bool:
        """Return whether a `cloudft sweep` works on it now."""
        return is_locked(self.path / LOCK_FILE)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder, and hold it. Raise JobStateConflict while another process does."""
        with as_store_error("the sweep can't be saved", self.path):
            make_private_folder(self.path)
            descriptor = try_lock(self.path / LOCK_FILE)
        if descriptor is None:
            raise JobStateConflict(
                f"the sweep {self.path.name} is running in another process",
                fix="wait for it, or end that one with Ctrl-C.",
            )
        try:
            yield
        finally:
            os.close(descriptor)

    def read_result(self) -> SweepResult | None:
        """Return the result so far; None before the first trial. Raise BadDocument, StoreError."""
        path = self.path / RESULT_FILE
        with as_store_error("the sweep can't be read", path):
            try:
                content = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):  # such as a file of the file manager
                return None
        return decode(content, SweepResult, file=path, versions=(1,))


def list_sweeps(home: Home) -> Iterator[SweepResult | BadDocument | StoreError]:
    """Yield the results of all sweeps, newest first; of one that can't be read, the error."""
    found: list[SweepResult] = []
    for folder in sorted(home.sweeps.glob("*")) if home.sweeps.is_dir() else ():
        try:
            result = SweepFolder(folder).read_result()
        except (BadDocument, StoreError) as error:
            yield error
            continue
        if result is not None:
            found.append(result)
    yield from sorted(found, key=lambda one: one.created_at, reverse=True)


def open_sweep(home: Home, name: str) -> SweepFolder:
    """Return a sweep's folder by its id. Raise JobNotFound."""
    known = {path.name: path for path in home.sweeps.iterdir()} if home.sweeps.is_dir() else {}
    if name not in known:
        raise JobNotFound(f"there is no sweep {name[:100]}", fix="`cloudft sweep` starts one.")
    return SweepFolder(known[name])
