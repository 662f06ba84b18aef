"""Jobs on this machine. A job's folder is the interface to the trainer, and the only state."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from cloudft import artifacts as layout
from cloudft.backends.base import (
    Answer,
    Asks,
    Backend,
    Benchmarks,
    Decoding,
    Exports,
    Generates,
    Opens,
    Probes,
    Progress,
    Prompt,
    Resumes,
    StagedJob,
    TaskFigure,
    Tokenises,
)
from cloudft.backends.local import folder as names
from cloudft.backends.local import harness, preflight, probing, request, serve, tokenizer
from cloudft.backends.local.folder import JobFolder
from cloudft.errors import JobNotFound, JobStateConflict
from cloudft.files import as_store_error, scratch_folder, try_lock, write_whole
from cloudft.home import Home
from cloudft.spec.load import LoadedJob
from cloudft.spec.portable import portable
from cloudft.types import (
    Estimate,
    Finding,
    JobState,
    LogLine,
    Metric,
    Plan,
    Status,
    Volume,
)
from cloudft.types import (
    job_id as id_of,
)

PROBE = ".probe-"
SECRET_WORDS = ("AWS_", "SECRET", "PASSWORD", "API_KEY")
"""Environment variables with these in their name are not the trainer's business."""


SHARING = {"GOMP_SPINCOUNT": "1000", "MALLOC_ARENA_MAX": "1"}
"""How long a thread of GNU OpenMP spins before it sleeps. By default it spins so long that two
trainers on one machine come to a tenth of their speed; see benchmarks/RESULTS.md. And one arena of
glibc's malloc instead of one a thread: a tenth less memory, at the same speed."""
LEAVING_S = 10.0
"""How long processes may take to leave once the ending is written."""


class LocalBackend(Backend, Resumes, Generates, Exports, Tokenises, Opens, Benchmarks, Probes):
    """Trains with the `local_backend` program, one detached process a job."""

    name = "local"
    poll_seconds = 0.5

    def __init__(self, home: Home) -> None:
        self.home = home

    def check(self, job: LoadedJob) -> list[Finding]:
        """Trainer, weights, hyperparameters and device."""
        return list(preflight.findings(job))

    def estimate(self, job: LoadedJob, volumes: Mapping[str, Volume]) -> Estimate:
        """Nothing is paid for this machine; how long it takes is not known before it has run."""
        epochs = int(request.hyper_parameters(job)["epochCount"])
        return Estimate(
            backend=self.name,
            train_tokens=volumes["train"].tokens,
            epochs=epochs,
            usd={"training": 0.0, "storagePerMonth": 0.0, "servingPerHour": 0.0},
            seconds=None,
            price_source="this machine: no price",
            price_date="",
        )

    def probe(self, staged: StagedJob, steps: int, progress: Progress) -> Estimate:
        """In a child process, on a copy of the job's folder that is thrown away."""
        plan = self.plan(staged)
        with (
            as_store_error("the job can't be tried", self.home.path),
            scratch_folder(self.home.path, PROBE) as folder,
        ):
            job = JobFolder(folder)
            (job.path / names.DATA).mkdir()
            self._fill(job, plan)
            found = probing.probe(job.path, self._environment(), steps, progress)
        return replace(
            plan.estimate,
            train_tokens=found.tokens,
            steps=found.steps,
            seconds=found.seconds,
            memory=found.memory,
        )

    def plan(self, staged: StagedJob) -> Plan:
        """job.json, and the staged files that go beside it."""
        wanted = request.build(staged)
        token = request.token(wanted)
        name = staged.job.spec.name
        files = {role: staged.folder / file.name for role, file in staged.manifest.files.items()}
        return Plan(
            backend=self.name,
            token=token,
            name=name,
            request={"id": id_of(name, token), **wanted},
            files=files | {"manifest": staged.folder / "manifest.json"},
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, staged.manifest.files),
            spec=portable(staged.job),
        )

    def submit(self, plan: Plan, progress: Callable[[int], None] | None = None) -> str:
        """Fill the job's folder and start the trainer, unless that was done before."""
        job_id = plan.job_id
        job = self._folder(job_id)
        with as_store_error(f"job {job_id} can't be written down", job.path):
            (job.path / names.DATA).mkdir(parents=True, exist_ok=True)
            lock = try_lock(job.path / names.LOCK)
            if lock is None:
                return job_id
            try:
                if not job.was_started():
                    self._fill(job, plan)
                    self._start(job, lock)
            finally:
                os.close(lock)
        return job_id

    def describe(self, job_id: str) -> JobState:
        """What the folder says; a trainer that is gone without an ending is Failed."""
        return self._known(job_id).state(job_id)

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """From metrics.jsonl, point by point as the trainer wrote them."""
        return self._known(job_id).metrics()

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """The trainer's log. The cursor is a byte offset."""
        return self._known(job_id).log_lines(after)

    def stop(self, job_id: str) -> None:
        """Leave the stop mark; the trainer sees it before its next step."""
        job = self._known(job_id)
        if not job.state(job_id).ended:
            with as_store_error(f"job {job_id} can't be asked to stop", job.path):
                write_whole(job.path / names.STOP, b"")

    def resume(self, job_id: str) -> None:
        """Start the trainer again; it finds its newest checkpoint by itself."""
        job = self._known(job_id)
        if job.state(job_id).status == "Completed":
            raise JobStateConflict(
                f"{job_id} is Completed: there is nothing to resume",
                fix="submit another job with more epochs.",
            )
        with as_store_error(f"job {job_id} can't be resumed", job.path):
            lock = self._lock_of_ended(job)
            if lock is None:
                raise JobStateConflict(
                    f"{job_id} is running", fix=f"`cloudft watch {job_id}` follows it."
                )
            try:
                job.put_ending_aside()
                self._start(job, lock)
            finally:
                os.close(lock)

    def artifacts(self, job_id: str, to: Path) -> Path:
        """Copy the job's artifacts to `to`, which must not exist."""
        source = self._known(job_id).path / names.ARTIFACTS
        return layout.copy(job_id, str(source) if layout.is_complete(source) else None, to)

    def generate(
        self, job_id: str, prompts: Sequence[Prompt], variants: Sequence[str], decoding: Decoding
    ) -> Iterator[Answer]:
        """Ask the job's models in a child process of their own."""
        job = self._known(job_id)
        self._require_artifacts(job, job_id)
        return serve.answers(job.path, prompts, variants, decoding, self._environment())

    def open(self, job_id: str) -> Asks:
        """The job's models, in a process of their own. Raises TrainerError too."""
        self._require_artifacts(self._known(job_id), job_id)
        return self.child(job_id)

    def open_base(self, job: LoadedJob) -> Asks:
        """The base model, in a process of its own. Raises TrainerError."""
        return serve.Child(self._untrained(job), self._environment())

    def benchmark(
        self,
        job_id: str,
        tasks: Sequence[str],
        *,
        include: Path | None,
        limit: int | None,
        progress: Progress,
    ) -> Iterator[TaskFigure]:
        """lm-eval in a child process."""
        job = self._known(job_id)
        self._require_artifacts(job, job_id)
        return harness.benchmark(job.path, self._environment(), tasks, include, limit, progress)

    def child(self, job_id: str) -> serve.Child:
        """A process that answers for the job's models until it is closed. Raises TrainerError."""
        return serve.Child(self._known(job_id).path, self._environment())

    def _untrained(self, job: LoadedJob) -> Path:
        """The folder of a job of that base model which is never trained, only asked: no job."""
        wanted = request.untrained(job)
        job_id = id_of(job.spec.name, request.token(wanted))
        folder = self.home.bases / job_id
        with as_store_error(f"the base model of {job_id} can't be written down", folder):
            folder.mkdir(parents=True, exist_ok=True)
            content = orjson.dumps({"id": job_id, **wanted}, option=orjson.OPT_INDENT_2)
            write_whole(folder / names.JOB, content)
        return folder

    def was_cut_off(self, job_id: str) -> bool:
        """True of a job whose processes are gone without an ending: `resume` goes on with it."""
        job = self._known(job_id)
        return not (job.path / names.ENDED).exists() and job.state(job_id).status == "Failed"

    def export(self, job_id: str, out: Path, dtype: str) -> Mapping[str, Any]:
        """Merge and prove, in a child process."""
        job = self._known(job_id)
        self._require_artifacts(job, job_id)
        return serve.export(job.path, out, dtype, self._environment())

    def tokenise(
        self, job: LoadedJob, lines: Iterable[bytes], *, preview: bool
    ) -> Iterator[Mapping[str, Any]]:
        """Ask the tokenizer of the model that is trained here, in a child process."""
        asked = request.tokenise(job, preview=preview)
        return tokenizer.replies(asked, lines, self._environment())

    def _require_artifacts(self, job: JobFolder, job_id: str) -> None:
        if not (job.path / names.ARTIFACTS).is_dir():
            status: Status = job.state(job_id).status
            raise JobStateConflict(
                f"{job_id} is {status}: it has left no model",
                fix=f"`cloudft watch {job_id}` waits for its end;"
                f" `cloudft resume {job_id}` goes on with it.",
            )

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.home.jobs / job_id)

    def _known(self, job_id: str) -> JobFolder:
        folder = self._folder(job_id)
        if not (folder.path / names.JOB).is_file():
            raise JobNotFound(
                f"there is no local job {job_id}", fix="`cloudft list` shows the jobs."
            )
        return folder

    def _lock_of_ended(self, job: JobFolder) -> int | None:
        """The job's lock; the processes of a run that has ended get a moment to leave."""
        patience = LEAVING_S if (job.path / names.ENDED).exists() else 0.0
        retrying = Retrying(
            stop=stop_after_delay(patience),
            wait=wait_fixed(0.02),
            retry=retry_if_result(lambda lock: lock is None),
            retry_error_callback=lambda _: None,
        )
        return retrying(try_lock, job.path / names.LOCK)

    def _fill(self, job: JobFolder, plan: Plan) -> None:
        for file in plan.files.values():
            _link_or_copy(file, job.path / names.DATA / file.name)
        write_whole(job.path / names.JOB, orjson.dumps(plan.request, option=orjson.OPT_INDENT_2))

    def _start(self, job: JobFolder, lock: int) -> None:
        with (job.path / names.LOG).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "local_backend", str(job.path), "--lock-fd", str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
                env=self._environment(),
            )
        # Someone waits for it as long as this process lives, so that it never stays a zombie.
        threading.Thread(target=child.wait, daemon=True).start()

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not any(w in k for w in SECRET_WORDS)}
        return (
            SHARING | kept | {"CLOUDFT_MODEL_CACHE": str(self.home.models), "PYTHONUNBUFFERED": "1"}
        )


def _link_or_copy(source: Path, to: Path) -> None:
    """The job keeps its data even when the staged folder is cleared away."""
    with contextlib.suppress(FileNotFoundError):
        to.unlink()
    try:
        os.link(source, to)
    except OSError:
        shutil.copyfile(source, to)
