"""Train the same job on parts of its data, to see what more data would gain. Runs on this machine.

Parts are nested (the eighth is part of the quarter) and drawn with the job's seed. Each run is an
ordinary job, so a second call, or one after Ctrl-C, finds the jobs that are already trained.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import numpy as np
import yaml

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import ProgressCallback, SupportsInference, warm_start
from cloudft.catalogue import is_text_only
from cloudft.errors import JobFailed, UsageError
from cloudft.evaluate.diagnostics.data_scaling import DATA_SHARES, diagnose_data_scaling
from cloudft.evaluate.diagnostics.diagnostic import Diagnostic
from cloudft.evaluate.held_out import HeldOutData, find_staged_file, find_validation_files
from cloudft.evaluate.inference.cached_inference import TUNED, open_cached_inference
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.storage.home import Home
from cloudft.storage.side_jobs import part_folder, part_job_name
from cloudft.storage.store import JobRecord, Store
from cloudft.types import validation_set_of

MIN_PART_RECORDS = 8
"""Fewest records of the smallest part."""

WaitForJob = Callable[[lifecycle.Job], lifecycle.Job]
"""A function that waits until a job has ended and returns it."""


def run_learning_curve(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held_out: HeldOutData,
    *,
    progress: ProgressCallback,
    wait: WaitForJob,
) -> Diagnostic:
    """Train on each part, and compare the losses of the held-out records.

    Raises UsageError for a job of another backend, or with too few records; JobFailed.
    """
    train = find_staged_file(record, home, "train")
    if backend.training_is_billed or not isinstance(backend, SupportsInference) or train is None:
        raise UsageError(
            "a learning curve needs a local job whose training data still exists",
            fix="submit the same job file with --backend local, and evaluate that job.",
        )
    lines = train.read_bytes().splitlines(keepends=True)
    if len(lines) * DATA_SHARES[0] < MIN_PART_RECORDS:
        needed = math.ceil(MIN_PART_RECORDS / DATA_SHARES[0])
        raise UsageError(
            f"{len(lines)} training records are too few for a learning curve",
            fix=f"a learning curve needs {needed} records or more.",
        )
    order = np.random.default_rng(int(record.spec.get("seed", 7))).permutation(len(lines))
    points = []
    with contextlib.ExitStack() as stack:
        for share in DATA_SHARES:
            count = round(len(lines) * share)
            run = record
            if share < 1:
                # Sorted, so that a part has the records in the order of the whole file.
                content = b"".join(lines[i] for i in sorted(order[:count]))
                part = _write_part(record, home, share, content)
                stack.enter_context(warm_start(backend, part))  # of the first part, for all
                run = _train_part(part, backend, home, wait).record
            label = f"{count} records"
            points.append((count, _held_out_loss(run, backend, home, held_out, label, progress)))
    return diagnose_data_scaling(points)


def _write_part(record: JobRecord, home: Home, share: float, content: bytes) -> LoadedJob:
    """Write the job file of a part of a job's data into the job's folder, and return that job."""
    folder = part_folder(record, share)
    data: dict[str, object] = {"train": "train.jsonl"}
    validation = find_validation_files(record, home)
    if validation:
        sets = {validation_set_of(role): str(path) for role, path in validation.items()}
        data["validation"] = sets.pop(None) if None in sets else sets
    spec = {**record.spec, "name": part_job_name(record, folder), "data": data}
    with as_store_error("can't write the part's job file", folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "train.jsonl", content)
        atomic_write(folder / "cloudft.yaml", yaml.safe_dump(spec).encode())
    return load_job(folder / "cloudft.yaml")


def _train_part(part: LoadedJob, backend: Backend, home: Home, wait: WaitForJob) -> lifecycle.Job:
    """Train the job on a part of its data."""
    staged, _ = prepare.prepare(part, backend, home)
    return require_completed(wait(lifecycle.submit(staged, backend, Store(home.jobs))))


def require_completed(job: lifecycle.Job) -> lifecycle.Job:
    """Return the job. Raises JobFailed when it ended in another state."""
    if job.state.status != "Completed":
        reason = job.state.failure_message or "no reason was reported"
        raise JobFailed(
            f"{job.record.id} is {job.state.status}: {reason}", fix=f"cloudft logs {job.record.id}"
        )
    return job


def _held_out_loss(
    record: JobRecord,
    backend: SupportsInference,
    home: Home,
    held_out: HeldOutData,
    label: str,
    progress: ProgressCallback,
) -> float:
    """Return the loss of the held-out references, or of the held-out text, in nats per token."""
    session = backend.open_session(record.backend_job_id or record.id)
    with open_cached_inference(session, home, progress, variants=(TUNED,)) as tuned:
        if is_text_only(record.customization_type):
            texts = [example.reference for example in held_out.examples]
            likelihoods = tuned.score_texts(label, texts, TUNED)
        else:
            requests = [example.scoring_request for example in held_out.examples]
            likelihoods = tuned.score_continuations(label, requests, TUNED)
    tokens = max(1, sum(x.tokens for x in likelihoods))
    return -math.fsum(x.log_likelihood for x in likelihoods) / tokens
