"""Jobs and model processes that are forked from one process that has imported everything."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import preloaded
import pytest
from job_files import write_job_file
from processes import find_processes, kill, read_json, read_jsonl, wait_until

from cloudft.backends.local.backend import LocalBackend
from cloudft.backends.local.warm_process import WarmProcess
from cloudft.errors import TrainerError
from cloudft.inference import GenerationConfig, Prompt
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems start each cold")
PROMPT = [Prompt(text="Where is the parcel for Lyon?")]


class Jobs:
    """Submits jobs of a tiny model to one backend."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.home = Home(root / "home")
        self.backend = LocalBackend(self.home)

    def load(self, name: str, **options: Any) -> LoadedJob:
        folder = self.root / name
        folder.mkdir()
        return load_job(write_job_file(folder, self.model, name=name, **options))

    def submit(self, job: LoadedJob) -> Path:
        staged, _ = prepare.prepare(job, self.backend, self.home)
        submitted = lifecycle.submit(staged, self.backend, Store(self.home.jobs))
        return self.home.jobs / submitted.record.id

    def ended(self, folder: Path) -> Mapping[str, Any]:
        ending: Mapping[str, Any] = wait_until(
            lambda: read_json(folder / "ended.json"), f"{folder.name} has ended"
        )
        return ending

    def answer(self, folder: Path) -> str:
        session = self.backend.open_session(folder.name)
        try:
            [answer] = session.generate(PROMPT, ["tuned"], GenerationConfig(8, 0.0, 1.0, 7))
        finally:
            session.close()
        return answer.text


@pytest.fixture
def jobs(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(sys, "executable", preloaded.interpreter_path())
    return Jobs(tmp_path, tiny_model)


def losses(folder: Path) -> list[float]:
    return [point["loss"] for point in read_jsonl(folder / "metrics.jsonl")]


def test_a_warm_job_learns_and_answers_as_a_cold_one(jobs: Jobs) -> None:
    cold = jobs.submit(jobs.load("cold"))
    assert jobs.ended(cold)["status"] == "Completed"
    job = jobs.load("warm")
    with jobs.backend.warm_start(job):
        warm = jobs.submit(job)
        assert find_processes(f"local_backend {warm}"), "ps shows whose processes these are"
        assert jobs.ended(warm)["status"] == "Completed"
        answers = [jobs.answer(warm), jobs.answer(cold)]
    assert losses(warm) == losses(cold) != []
    assert answers == [jobs.answer(cold)] * 2
    wait_until(lambda: not find_processes(str(jobs.root)), "no process is left")


def test_two_jobs_that_share_the_cores_learn_as_one_alone(jobs: Jobs) -> None:
    local = {"dtype": "bfloat16", "device": "cpu", "lora": {"r": 4}}
    alone = jobs.submit(jobs.load("alone", local=local))
    assert jobs.ended(alone)["status"] == "Completed"
    job = jobs.load("first", local=local)
    with jobs.backend.warm_start(job), jobs.backend.share_cores(2):
        both = [jobs.submit(job), jobs.submit(jobs.load("second", local=local))]
        assert [jobs.ended(one)["status"] for one in both] == ["Completed"] * 2
    assert [losses(one) for one in both] == [losses(alone)] * 2 and losses(alone)


def test_a_killed_trainer_ends_its_own_job_alone(jobs: Jobs) -> None:
    long = jobs.load("long", hyperparameters={"epochCount": 1000})
    with jobs.backend.warm_start(long):
        first, second = jobs.submit(long), jobs.submit(jobs.load("short"))
        wait_until(lambda: losses(first), "the first step of the long job")
        kill(read_json(first / "trainer.json")["pid"])
        ending = jobs.ended(first)
        assert ending["status"] == "Failed" and "SIGKILL" in ending["failureMessage"]
        assert jobs.ended(second)["status"] == "Completed"
        assert jobs.ended(jobs.submit(jobs.load("next")))["status"] == "Completed"
        jobs.backend.resume(first.name)
        before = len(losses(first))
    # The process that it was forked from is gone: the job goes on, and stops with a checkpoint.
    wait_until(lambda: len(losses(first)) > before, "the resumed job's next step")
    jobs.backend.stop(first.name)
    assert jobs.ended(first)["status"] == "Stopped"


def test_without_the_warm_process_a_job_starts_on_its_own(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.load("alone")
    with jobs.backend.warm_start(job):
        process = jobs.backend._warm_trainer
        assert isinstance(process, WarmProcess)
        process._process.kill()
        process._process.wait()
        assert jobs.ended(jobs.submit(job))["status"] == "Completed"
    with jobs.backend.warm_start(job):
        monkeypatch.setenv("OMP_DISPLAY_ENV", "FALSE")  # not the environment that it began with
        other = jobs.submit(jobs.load("other"))
        assert read_json(other / "job.json") and jobs.ended(other)["status"] == "Completed"


def test_where_no_process_can_be_held_models_start_on_their_own(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")  # as in a Python that was built for old kernels
    job = jobs.load("job")
    with jobs.backend.warm_start(job):
        folder = jobs.submit(job)
        assert jobs.ended(folder)["status"] == "Completed"
        answer = jobs.answer(folder)
    assert answer == jobs.answer(folder)


def test_a_model_that_can_not_be_loaded_is_an_error_as_ever(jobs: Jobs) -> None:
    job = jobs.load("job")
    with jobs.backend.warm_start(job):
        folder = jobs.submit(job)
        jobs.ended(folder)
        (folder / "artifacts" / "model" / "adapter_model.safetensors").write_bytes(b"damaged")
        with pytest.raises(TrainerError, match="can't be read"):
            jobs.answer(folder)
