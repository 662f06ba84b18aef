"""Start trainers of a job warm, where that is possible."""

from __future__ import annotations

import sys

from cloudft.backends.local import environment
from cloudft.backends.local.preflight import has_tokenizer
from cloudft.backends.local.request import build_tokenize_request
from cloudft.backends.local.warm_process import WarmProcess, take_early
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home


def can_start_warm(job: LoadedJob) -> bool:
    """Return whether a job's trainer can be forked: one process, on Linux, nothing to fetch."""
    return sys.platform == "linux" and job.spec.local.processes == 1 and has_tokenizer(job)


def open_warm_trainer(job: LoadedJob, home: Home) -> WarmProcess:
    """Return the process that imports what trainers of the job need, to be closed."""
    process = take_early() or WarmProcess(environment.trainer_environment(home, hub=False))
    weights = build_tokenize_request(job, preview=False)["model"]["weights"]
    local = job.spec.local
    process.describe({"method": local.method, "fsdp": local.fsdp, "models": [weights]})
    return process
