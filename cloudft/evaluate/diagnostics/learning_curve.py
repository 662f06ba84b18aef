"""The same job on parts of its data, to see what more of it would buy. Trains on this machine.

Parts are nested (an eighth is part of the quarter) and drawn by the job's seed; each run is a job
like any other, so a second call, or one after Ctrl-C, finds what is trained already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import ProgressCallback, SupportsInference
from cloudft.errors import JobFailed, UsageError
from cloudft.evaluate.diagnostics.data_scaling import DATA_SHARES, diagnose_data_scaling
from cloudft.evaluate.diagnostics.diagnostic import Diagnostic
from cloudft.evaluate.diagnostics.learning_curve_jobs import part_folder, part_job_name
from cloudft.evaluate.held_out import HeldOutData, find_staged_file
from cloudft.evaluate.inference.cached_inference import TUNED, open_cached_inference
from cloudft.inference import ScoringRequest
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import load_job
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store

MIN_PART_RECORDS = 8
"""Records of the smallest part at least."""


def run_learning_curve(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held: HeldOutData,
    *,
    progress: ProgressCallback,
    wait: Callable[[lifecycle.Job], lifecycle.Job],
) -> Diagnostic:
    """Train on each part, and hold the losses of the held-out records together.

    Raises UsageError for a job of another backend, or with too few records; JobFailed.
    """
    train = find_staged_file(record, home, "train")
    if backend.training_is_billed or not isinstance(backend, SupportsInference) or train is None:
        raise UsageError(
            "a learning curve is made of local jobs whose training data is still there",
            fix="submit the same job file with --backend local, and evaluate that job.",
        )
    lines = train.read_bytes().splitlines(keepends=True)
    if len(lines) * DATA_SHARES[0] < MIN_PART_RECORDS:
        raise UsageError(
            f"{len(lines)} training records are too few for parts of an eighth",
            fix=f"a learning curve takes {math.ceil(MIN_PART_RECORDS / DATA_SHARES[0])} records or more.",
        )
    order = np.random.default_rng(int(record.spec.get("seed", 7))).permutation(len(lines))
    points = []
    for part in DATA_SHARES:
        count = round(len(lines) * part)
        run = record
        if part < 1:
            chosen = b"".join(lines[i] for i in sorted(order[:count]))
            run = _train_part(record, backend, home, part, chosen, wait).record
        points.append(
            (count, _held_out_loss(run, backend, home, held, f"{count} records", progress))
        )
    return diagnose_data_scaling(points)


def _train_part(
    record: JobRecord,
    backend: Backend,
    home: Home,
    part: float,
    chosen: bytes,
    follow: Callable[[lifecycle.Job], lifecycle.Job],
) -> lifecycle.Job:
    """The job on a part of its data, trained; its file stands beside the evaluations."""
    folder = part_folder(record, part)
    spec: dict[str, Any] = {**record.spec, "name": part_job_name(record, folder)}
    data: dict[str, Any] = {"train": "train.jsonl"}
    validation = find_staged_file(record, home, "validation")
    if validation is not None:
        data["validation"] = str(validation)
    with as_store_error("the part can't be written down", folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "train.jsonl", chosen)
        atomic_write(folder / "cloudft.yaml", yaml.safe_dump(spec | {"data": data}).encode())
    staged, _ = prepare.prepare(load_job(folder / "cloudft.yaml"), backend, home)
    job = follow(lifecycle.submit(staged, backend, Store(home.jobs)))
    if job.state.status != "Completed":
        raise JobFailed(
            f"{job.record.id} is {job.state.status}: {job.state.failure_message or 'no reason'}",
            fix=f"cloudft logs {job.record.id}",
        )
    return job


def _held_out_loss(
    record: JobRecord,
    backend: SupportsInference,
    home: Home,
    held: HeldOutData,
    what: str,
    progress: ProgressCallback,
) -> float:
    """Nats a token of the held-out references, or of the held-out text."""
    session = backend.open_session(record.backend_job_id or record.id)
    with open_cached_inference(session, home, progress, variants=(TUNED,)) as tuned:
        if record.customization_type == "CONTINUED_PRE_TRAINING":
            found = tuned.score_texts(what, [item.reference for item in held.examples], TUNED)
        else:
            wanted = [ScoringRequest(item.prompt, item.reference) for item in held.examples]
            found = tuned.score_continuations(what, wanted, TUNED)
    return -math.fsum(f.log_likelihood for f in found) / max(1, sum(f.tokens for f in found))
