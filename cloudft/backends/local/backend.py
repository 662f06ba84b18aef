"""Run jobs on this machine. A job's folder is the interface to the trainer, and the only state."""

from __future__ import annotations

import contextlib
import itertools
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

from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import (
    ProgressCallback,
    SupportsAdapters,
    SupportsChatTemplate,
    SupportsExport,
    SupportsGenerate,
    SupportsGrading,
    SupportsInference,
    SupportsLmEval,
    SupportsProbe,
    SupportsResume,
    SupportsRuntimeCheck,
    SupportsTokenize,
    SupportsWarmStart,
    TokenPreviewSession,
)
from cloudft.backends.export_options import ExportOptions
from cloudft.backends.local import (
    environment,
    lm_eval,
    model_process,
    preflight,
    request,
    tokenizer,
)
from cloudft.backends.local import job_folder as names
from cloudft.backends.local import probe as probing
from cloudft.backends.local.export_check import check_exports
from cloudft.backends.local.grader_process import GraderProcess
from cloudft.backends.local.job_folder import JobFolder
from cloudft.backends.local.jobs_at_once import threads_of_each
from cloudft.backends.local.trainer_program import run_trainer_program
from cloudft.backends.local.warm_process import WarmProcess
from cloudft.backends.local.warm_trainer import can_start_warm, open_warm_trainer
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.teacher import with_teacher
from cloudft.data.staging.answered import unanswered_records
from cloudft.errors import JobNotFound, JobStateConflict, TrainerError
from cloudft.grading import GraderConfig
from cloudft.inference import Answer, GenerationConfig, InferenceSession, LmEvalMetric, Prompt
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.storage import artifacts as layout
from cloudft.storage.atomic_files import (
    as_store_error,
    atomic_write,
    is_locked,
    make_private_folder,
    scratch_folder,
    try_lock,
)
from cloudft.storage.documents import convert
from cloudft.storage.home import Home
from cloudft.types import (
    AdapterReach,
    DataVolume,
    Estimate,
    Finding,
    JobState,
    LogLine,
    Metric,
    Plan,
    Status,
)
from cloudft.types import (
    job_id as id_of,
)

PROBE_PREFIX = ".probe-"
REPLY_CHECK = "local_backend.grading.invoke"
RUNTIME_CHECK = "local_backend.export.verify"
GRADER_ROLE = "grader"
"""Key of the grader's file in a plan."""
EXIT_GRACE_S = 10.0
"""How long processes may take to leave once the ending is written."""


class LocalBackend(
    Backend,
    SupportsResume,
    SupportsGenerate,
    SupportsExport,
    SupportsRuntimeCheck,
    SupportsTokenize,
    SupportsChatTemplate,
    SupportsInference,
    SupportsLmEval,
    SupportsProbe,
    SupportsGrading,
    SupportsAdapters,
    SupportsWarmStart,
):
    """Trains with the `local_backend` program, one detached process a job."""

    name = "local"
    poll_seconds = 0.5
    training_is_billed = False
    keeps_job_id = True

    def __init__(self, home: Home) -> None:
        self.home = home
        self._warm_trainer: WarmProcess | None = None
        self._threads: int | None = None

    @contextlib.contextmanager
    def share_cores(self, jobs: int) -> Iterator[None]:
        """Give each trainer that is forked within the context its share of the cores."""
        self._threads = None if jobs == 1 else threads_of_each(jobs)
        try:
            yield
        finally:
            self._threads = None

    @contextlib.contextmanager
    def warm_start(self, job: LoadedJob) -> Iterator[None]:
        """Import what trainers of the job need in another process, which then forks them."""
        if self._warm_trainer is not None or not can_start_warm(job):
            yield
            return
        self._warm_trainer = open_warm_trainer(job, self.home)
        try:
            yield
        finally:
            self._warm_trainer.close()
            self._warm_trainer = None

    @staticmethod
    def is_running_in(folder: Path) -> bool | None:
        """Return whether a trainer holds the lock in that folder; None where there is no lock."""
        lock = folder / names.LOCK
        return is_locked(lock) if lock.exists() else None

    def check(self, job: LoadedJob) -> list[Finding]:
        """Check trainer, weights, hyperparameters, device and the layers to adapt."""
        findings = list(preflight.check_job(job))
        if not any(finding.severity == "error" for finding in findings):
            environ = self._trainer_environment(hub=False)
            findings += preflight.check_target_modules(job, environ)
            findings += check_exports(job, environ)
        return findings

    def describe_adapters(self, job: LoadedJob) -> AdapterReach | None:
        """Return what the trainer finds in the model's configuration; None where it can't run."""
        try:
            return preflight.measure_adapters(job, self._trainer_environment(hub=False))
        except TrainerError:
            return None  # what is wrong with the job itself, `check` has found

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Return the tokens of the job: this machine has no price; the time is unknown.

        A teacher of Bedrock has a price.
        """
        return with_teacher(self._estimate_training(job, volumes), job, volumes)

    def _estimate_training(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        epochs = int(request.resolve_hyperparameters(job)["epochCount"])
        return Estimate(
            backend=self.name,
            train_tokens=volumes["train"].tokens,
            epochs=epochs,
            usd={"training": 0.0, "storagePerMonth": 0.0, "servingPerHour": 0.0},
            seconds=None,
            price_source="this machine: no price",
            price_date="",
        )

    def probe(self, staged: StagedJob, steps: int, progress: ProgressCallback) -> Estimate:
        """Run some steps in a child process, on a temporary copy of the job's folder."""
        plan = self.plan(staged)
        with (
            as_store_error("can't write a temporary copy of the job", self.home.path),
            scratch_folder(self.home.path, PROBE_PREFIX) as folder,
        ):
            job = JobFolder(folder)
            make_private_folder(job.path / names.DATA)
            self._write_job_files(job, plan)
            result = probing.run_probe(
                job.path, self.program_environment(job.path), steps, progress
            )
        return replace(
            plan.estimate,
            train_tokens=result.tokens,
            steps=result.steps,
            seconds=result.seconds,
            memory=result.memory,
            tokens_counted=True,
            notes=(*plan.estimate.notes, *probing.describe_teacher(result)),
        )

    def plan(self, staged: StagedJob) -> Plan:
        """Return job.json, and the staged files that are linked beside it."""
        job_json = request.build_request(staged)
        token = request.request_token(job_json)
        name = staged.job.spec.name
        files = {role: staged.folder / file.name for role, file in staged.manifest.files.items()}
        return Plan(
            backend=self.name,
            token=token,
            name=name,
            request={"id": id_of(name, token), **job_json},
            files=files | {"manifest": staged.folder / "manifest.json"} | _grader_file(staged),
            manifest=staged.manifest,
            estimate=self._estimate_plan(staged),
            spec=to_portable_values(staged.job),
        )

    def _estimate_plan(self, staged: StagedJob) -> Estimate:
        """Return the estimate; without the teacher where all of its answers are there."""
        if unanswered_records(staged.folder, staged.manifest):
            return self.estimate(staged.job, staged.manifest.files)
        return self._estimate_training(staged.job, staged.manifest.files)

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Write the job's folder and start the trainer, unless that was done before."""
        job_id = plan.job_id
        job = self._folder(job_id)
        with as_store_error(f"can't save {job_id}", job.path):
            make_private_folder(job.path)
            make_private_folder(job.path / names.DATA)
            lock = try_lock(job.path / names.LOCK)
            if lock is None:  # its trainer runs, or another submit is starting it
                return job_id
            try:
                # Under the lock, so that of two submits only one starts a trainer.
                if not job.was_started():
                    self._write_job_files(job, plan)
                    self._start_trainer(job, lock)
            finally:
                os.close(lock)
        return job_id

    def describe(self, job_id: str) -> JobState:
        """Read the state from the folder; a trainer that is gone without an ending has Failed."""
        return self._existing_folder(job_id).read_state(job_id)

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """Yield the points of metrics.jsonl, as the trainer wrote them."""
        return self._existing_folder(job_id).read_metrics()

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield the trainer's log. The cursor is a byte offset."""
        return self._existing_folder(job_id).read_log_lines(after)

    def stop(self, job_id: str) -> None:
        """Write the stop mark; the trainer checks for it before each step."""
        job = self._existing_folder(job_id)
        if not job.read_state(job_id).has_ended:
            with as_store_error(f"can't write the stop mark of {job_id}", job.path):
                atomic_write(job.path / names.STOP, b"")

    def resume(self, job_id: str) -> None:
        """Start the trainer again; it finds its newest checkpoint by itself."""
        job = self._existing_folder(job_id)
        if job.read_state(job_id).status == "Completed":
            raise JobStateConflict(
                f"{job_id} is Completed: there is nothing to resume",
                fix="submit another job with more epochs.",
            )
        with as_store_error(f"can't resume {job_id}", job.path):
            lock = self._lock_after_exit(job)
            if lock is None:
                raise JobStateConflict(
                    f"{job_id} is running", fix=f"`cloudft watch {job_id}` follows it."
                )
            try:
                job.archive_previous_ending()
                self._start_trainer(job, lock)
            finally:
                os.close(lock)

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy the job's artifacts to `to`, which must not exist."""
        source = self._existing_folder(job_id).path / names.ARTIFACTS
        return layout.copy_artifacts(
            job_id, str(source) if layout.is_complete(source) else None, to
        )

    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Generate answers in a child process of their own."""
        job = self._existing_folder(job_id)
        self._require_artifacts(job, job_id)
        return model_process.generate_answers(
            job.path, prompts, variants, decoding, self.program_environment(job.path)
        )

    def open_session(self, job_id: str) -> InferenceSession:
        """Open the job's models in a process of their own. Raise TrainerError too."""
        self._require_artifacts(self._existing_folder(job_id), job_id)
        return self.start_model_process(job_id)

    def open_base_session(self, job: LoadedJob) -> model_process.ModelProcess:
        """Open the base model in a process of its own. Raise TrainerError."""
        folder = self.base_model_folder(job)
        return model_process.ModelProcess(
            folder, self.program_environment(folder), self._warm_trainer
        )

    def read_rewards(self, reply: object, ids: Sequence[str]) -> list[float]:
        """Return the rewards in the reply of a grader that ran elsewhere."""
        request = {"reply": reply, "ids": list(ids)}
        [read] = run_trainer_program(
            [REPLY_CHECK], self._trainer_environment(hub=False), request=request
        )
        return [float(reward) for reward in read["rewards"]]

    def open_grader(self, config: GraderConfig) -> GraderProcess:
        """Load a grader in a process of its own. Raise GraderFailed, TrainerError."""
        return GraderProcess(config, self._trainer_environment(hub=False))

    def run_lm_eval(
        self,
        job_id: str,
        tasks: Sequence[str],
        *,
        include: Path | None,
        limit: int | None,
        progress: ProgressCallback,
    ) -> Iterator[LmEvalMetric]:
        """Run lm-eval in a child process."""
        job = self._existing_folder(job_id)
        self._require_artifacts(job, job_id)
        # The tasks' data come from the hub as well.
        environ = self.program_environment(job.path, hub=True)
        return lm_eval.run_lm_eval(job.path, environ, tasks, include, limit, progress)

    def start_model_process(self, job_id: str) -> model_process.ModelProcess:
        """Start a process that answers for the job's models. Raise TrainerError."""
        folder = self._existing_folder(job_id).path
        return model_process.ModelProcess(
            folder, self.program_environment(folder), self._warm_trainer
        )

    def trained_folder(self, job_id: str) -> Path:
        """Return the folder of a job that has left a model. Raise JobNotFound, JobStateConflict."""
        job = self._existing_folder(job_id)
        self._require_artifacts(job, job_id)
        return job.path

    def base_model_folder(self, job: LoadedJob) -> Path:
        """Write the folder of a base model: a job.json that is never trained."""
        job_json = request.build_base_model_request(job)
        job_id = id_of(job.spec.name, request.request_token(job_json))
        folder = self.home.base_models / job_id
        with as_store_error(f"can't save the base model of {job_id}", folder):
            make_private_folder(folder)
            content = orjson.dumps({"id": job_id, **job_json}, option=orjson.OPT_INDENT_2)
            atomic_write(folder / names.JOB, content)
        return folder

    def release_model(self, job_id: str) -> None:
        """Remove the model of an ended job; its curves and its log stay."""
        job = self._existing_folder(job_id)
        if not job.read_state(job_id).has_ended:
            raise JobStateConflict(f"{job_id} is running", fix=f"`cloudft stop {job_id}` ends it.")
        with as_store_error(f"can't remove the model of {job_id}", job.path):
            job.release_model()

    def was_interrupted(self, job_id: str) -> bool:
        """Return whether the job's processes are gone without an ending: `resume` continues it."""
        job = self._existing_folder(job_id)
        return not (job.path / names.ENDED).exists() and job.read_state(job_id).status == "Failed"

    def export(self, job_id: str, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the tuned model and prove the result, in a child process."""
        job = self._existing_folder(job_id)
        self._require_artifacts(job, job_id)
        return model_process.run_export(job.path, out, options, self.program_environment(job.path))

    def check_runtime(
        self, job_id: str, folder: Path, runtime: str, python: str, request: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """Run an export in another runtime beside the tuned model, in a child process."""
        job = self._existing_folder(job_id)
        self._require_artifacts(job, job_id)
        program = [RUNTIME_CHECK, str(job.path), str(folder), "--for", runtime, "--python", python]
        return run_trainer_program(program, self.program_environment(job.path), request=request)

    def tokenize(
        self, job: LoadedJob, lines: Iterable[bytes], *, preview: bool
    ) -> Iterator[Mapping[str, Any]]:
        """Tokenize with the model that is trained here, in a child process."""
        return self._tokenize(request.build_tokenize_request(job, preview=preview), lines)

    def open_preview(self, job: LoadedJob) -> TokenPreviewSession:
        """Start the tokenizer's process for previews."""
        preview_request = request.build_tokenize_request(job, preview=True)
        environ = self._tokenizer_environment(preview_request)
        return tokenizer.PreviewProcess(preview_request, environ)

    def has_template(self, job: LoadedJob) -> bool:
        """Return whether the tokenizer of the trained model is on this machine."""
        return preflight.has_tokenizer(job)

    def render(self, job: LoadedJob, lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
        """Render and tokenize with the model that is trained here, in a child process."""
        return self.tokenize(job, lines, preview=False)

    def load_template_features(self, job: LoadedJob) -> Mapping[str, Sequence[str]] | None:
        """Return what the template of the trained model renders, as its tokenizer's process."""
        if not preflight.has_tokenizer(job):
            return None
        template_request = request.build_tokenize_request(job, preview=False)
        facts = next(self._tokenize(template_request | {"features": True}, ()))
        features: Mapping[str, Sequence[str]] = facts["features"]
        return features

    def _tokenize(
        self, tokenize_request: Mapping[str, Any], lines: Iterable[bytes]
    ) -> Iterator[dict[str, Any]]:
        environ = self._tokenizer_environment(tokenize_request)
        return tokenizer.tokenize_lines(tokenize_request, lines, environ)

    def _tokenizer_environment(self, tokenize_request: Mapping[str, Any]) -> dict[str, str]:
        weights = convert(
            tokenize_request["model"]["weights"], list[environment.WeightLocation], file=names.JOB
        )
        return self._trainer_environment(hub=environment.needs_download(weights))

    def _require_artifacts(self, job: JobFolder, job_id: str) -> None:
        job.read_request()
        if not (job.path / names.ARTIFACTS).is_dir():
            status: Status = job.read_state(job_id).status
            if (job.path / names.RELEASED).exists():
                raise JobStateConflict(
                    f"the model of {job_id} was removed: it was not the best of its sweep",
                    fix="submit its job file again, or sweep with --keep-all.",
                )
            raise JobStateConflict(
                f"{job_id} is {status}: it has left no model",
                fix=f"`cloudft watch {job_id}` waits for its end;"
                f" `cloudft resume {job_id}` resumes it.",
            )

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.home.jobs / job_id)

    def _existing_folder(self, job_id: str) -> JobFolder:
        folder = self._folder(job_id)
        if not (folder.path / names.JOB).exists():
            raise JobNotFound(
                f"there is no local job {job_id}", fix="`cloudft list` shows the jobs."
            )
        return folder

    def _lock_after_exit(self, job: JobFolder) -> int | None:
        """Lock the job; the processes of a run that has ended get a moment to exit."""
        from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

        patience = EXIT_GRACE_S if (job.path / names.ENDED).exists() else 0.0
        retrying = Retrying(
            stop=stop_after_delay(patience),
            wait=wait_fixed(0.02),
            retry=retry_if_result(lambda lock: lock is None),
            retry_error_callback=lambda _: None,
        )
        return retrying(try_lock, job.path / names.LOCK)

    def _write_job_files(self, job: JobFolder, plan: Plan) -> None:
        for role, file in plan.files.items():
            is_grader = role == GRADER_ROLE
            to = job.path / names.GRADER if is_grader else job.path / names.DATA / file.name
            _link_or_copy(file, to)
        self._link_start_models(job, plan)
        atomic_write(job.path / names.JOB, orjson.dumps(plan.request, option=orjson.OPT_INDENT_2))

    def _link_start_models(self, job: JobFolder, plan: Plan) -> None:
        """Link the models of the jobs that this one starts from: they stay when those are deleted.

        A job that started from others has their models in its own folder.
        """
        models = [plan.request["model"]]
        if "distillation" in plan.request:
            models.append(plan.request["distillation"]["teacher"])
        for weights in itertools.chain.from_iterable(model["weights"] for model in models):
            if weights["kind"] == "job":
                earlier = self._existing_folder(weights["job"]).path
                model = earlier / names.ARTIFACTS / layout.MODEL
                started_from = sorted((earlier / names.START).glob("*"))
                targets = {weights["job"]: model} | {one.name: one for one in started_from}
                for name, folder in targets.items():
                    _link_folder(folder, job.path / names.START / name)

    def _start_trainer(self, job: JobFolder, lock: int) -> None:
        # The trainer inherits the locked descriptor: the lock proves that it lives, and is
        # released by the kernel when its last process exits. A pid file could not prove that.
        environ = self.program_environment(job.path)
        with open(job.path / names.LOG, "ab", opener=_open_private) as log:
            warm = self._warm_trainer
            if warm is not None and warm.start(
                job.path, lock, log.fileno(), environ, self._threads
            ):
                return
            child = subprocess.Popen(
                [sys.executable, "-m", "local_backend", str(job.path), "--lock-fd", str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
                env=environ,
            )
        # Reap the child while this process lives, so that it never stays a zombie.
        threading.Thread(target=child.wait, daemon=True).start()

    def program_environment(self, job: Path, *, hub: bool = False) -> dict[str, str]:
        """Return the environment of the trainer's programs for the job in that folder."""
        return self._trainer_environment(hub=hub or environment.job_needs_download(job / names.JOB))

    def _trainer_environment(self, *, hub: bool) -> dict[str, str]:
        return environment.trainer_environment(self.home, hub=hub)


def _grader_file(staged: StagedJob) -> dict[str, Path]:
    return {} if staged.grader is None else {GRADER_ROLE: staged.grader.path}


def _link_or_copy(source: Path, to: Path) -> None:
    """Link a staged file into the job's folder: it stays when the staged folder is removed."""
    with contextlib.suppress(FileNotFoundError):
        to.unlink()
    try:
        os.link(source, to)
    except OSError:
        shutil.copyfile(source, to)
    with contextlib.suppress(PermissionError):  # a hard link to another user's file
        to.chmod(0o400)  # an earlier version staged files that everyone could read


def _link_folder(source: Path, to: Path) -> None:
    """Link or copy the files of a model's folder. Raise OSError."""
    make_private_folder(to.parent)
    make_private_folder(to)
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        if not (to / path.name).exists():
            try:
                os.link(path, to / path.name)
            except OSError:
                partial = to / f".{path.name}"
                shutil.copyfile(path, partial)
                partial.replace(to / path.name)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
