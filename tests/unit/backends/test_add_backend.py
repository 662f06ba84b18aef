"""Adding a backend: one class and one section, registered; the commands run on it unchanged."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from cloudft.backends import registered_backend
from cloudft.backends.base import Backend, Location, StagedJob
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.cli import errors
from cloudft.cli.main import cloudft
from cloudft.errors import JobNotFound, JobStateConflict
from cloudft.spec.fields import Int
from cloudft.spec.load import LoadedJob
from cloudft.spec.sections import JobSection, Section, registered_section
from cloudft.storage.home import Home
from cloudft.types import (
    DataVolume,
    Estimate,
    Finding,
    JobState,
    LogLine,
    Metric,
    Plan,
    StatusDetails,
)

QUEUES: dict[str, list[str]] = {}
"""The jobs of the lab's cluster, by queue."""


class LabSpec(Section):
    """Settings of the lab's cluster."""

    queue: str | None = Field(default=None, description="Queue of the scheduler.")
    hours: Int = Field(default=1, ge=1, le=48, description="Wall time.")


class LabBackend(Backend):
    """Jobs on a cluster that exists in this test alone."""

    name = "lab"
    poll_seconds = 0.0

    def __init__(self, home: Home, queue: str = "") -> None:
        self.home = home
        self.queue = queue

    def location_of(self, job: LoadedJob) -> Location:
        return {"queue": job.spec.section(LabSpec).queue}

    def bind(self, location: Location) -> LabBackend:
        return LabBackend(self.home, str(location.get("queue") or ""))

    def check(self, job: LoadedJob) -> list[Finding]:
        if self.queue == "closed":
            fix, line = "use the queue short.", job.line_of("lab.queue")
            file = str(job.path)
            return [Finding("error", "QueueClosed", "it is closed", fix, file, line, "lab.queue")]
        return []

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        usd = {"training": 2.0 * job.spec.section(LabSpec).hours, "storagePerMonth": None}
        usd["servingPerHour"] = None
        return Estimate(self.name, volumes["train"].tokens, 1, usd, None, "the lab", "2026-01-01")

    def plan(self, staged: StagedJob) -> Plan:
        return Plan(
            backend=self.name,
            token=f"{staged.attempt}{staged.manifest.sha256[:31]}",
            name=staged.job.spec.name,
            request={"hyperParameters": {}, "place": self.location_of(staged.job)},
            files={},
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, staged.manifest.files),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        jobs = QUEUES.setdefault(self.queue, [])
        if plan.job_id not in jobs:
            jobs.append(plan.job_id)
        return plan.job_id

    def describe(self, job_id: str) -> JobState:
        if job_id not in QUEUES.get(self.queue, ()):
            raise JobNotFound(f"the queue {self.queue} has no job {job_id}")
        return JobState(job_id, "Completed", StatusDetails(), "2026-01-02T03:04:05+00:00")

    def metrics(self, job_id: str) -> Iterator[Metric]:
        yield Metric(0, 0, "train", 1.5, 4.5, None, None, "")

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        yield LogLine("0", "hello from the lab")

    def stop(self, job_id: str) -> None:
        self.describe(job_id)

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        raise JobStateConflict(f"{job_id} keeps its files", fix="none.")


Cli = Callable[..., Any]


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> Iterator[Cli]:
    """Run commands in this process, with the lab's backend and section registered."""

    def run(*words: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["cloudft", *words, "--output", "json"])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        code = errors.run_command(cloudft)
        said = capsys.readouterr()
        assert "fault of cloudft" not in said.err, said.err
        return code, json.loads(said.out)

    section = JobSection("lab", LabSpec, "A lab's cluster.")
    QUEUES.clear()
    with registered_backend("lab", f"{__name__}:LabBackend"), registered_section(section):
        yield run


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., str]:
    """Write a job file for the lab."""

    def write(**lab: Any) -> str:
        lines = [f'{{"prompt": "question {n}", "completion": "answer {n}"}}\n' for n in range(9)]
        (tmp_path / "train.jsonl").write_text("".join(lines))
        spec = {
            "name": "routed",
            "base_model": "smollm2-135m",
            "data": {"train": "train.jsonl"},
            "lab": lab,
        }
        path = tmp_path / "cloudft.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        return str(path)

    return write


def test_submit_list_status_metrics_and_logs_run_on_a_new_backend(
    cli: Cli, job: Callable[..., str]
) -> None:
    path = job(queue="short", hours=3)
    code, first = cli("submit", path, "--backend", "lab")
    assert code == 0 and first["backend"] == "lab"
    assert cli("submit", path, "--backend", "lab")[1]["id"] == first["id"], "one job"
    assert {"short": [first["id"]]} == QUEUES, "it was bound to the queue of the job file"
    assert [one["id"] for one in cli("list")[1]] == [first["id"]]
    assert [one["id"] for one in cli("list", "--backend", "lab")[1]] == [first["id"]]
    status = cli("status", first["id"])[1]
    assert (status["status"], status["cost"]["usd"]) == ("Completed", 6.0)
    assert [point["loss"] for point in cli("metrics", first["id"])[1]] == [1.5]
    assert cli("watch", first["id"])[0] == 0
    assert cli("delete", first["id"], "--yes")[0] == 0


def test_check_estimate_and_plan_know_the_backend_and_its_section(
    cli: Cli, job: Callable[..., str]
) -> None:
    code, checked = cli("check", job(queue="closed"), "--backend", "lab")
    assert code == 3
    assert [(f["code"], f["line"]) for f in checked["findings"]] == [("QueueClosed", 6)]
    assert cli("submit", job(queue="closed"), "--backend", "lab")[0] == 3
    assert QUEUES == {}
    code, refused = cli("check", job(hours=99), "--backend", "lab")
    assert code == 2 and refused["error"]["field"] == "lab.hours"
    estimates = cli("estimate", job(hours=2), "--backend", "lab")[1]
    assert [(one["backend"], one["usd"]["training"]) for one in estimates] == [("lab", 4.0)]
    plan = cli("plan", job(queue="short"), "--backend", "lab")[1]
    assert plan["request"]["place"] == {"queue": "short"}
