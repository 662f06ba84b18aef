"""The workflow of examples/github-actions: its commands are there, its check step is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from commands import leaf

from cloudft.starter import write

WORKFLOW = Path(__file__).resolve().parents[2] / "examples" / "github-actions" / "cloudft.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]


def script(job: str, step: str) -> str:
    [found] = [s["run"] for s in JOBS[job]["steps"] if s.get("name") == step]
    return str(found)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `cloudft ...` line, without what the shell takes from it."""
    for line in re.findall(r"^\s*cloudft (.+)$", text, re.MULTILINE):
        yield shlex.split(re.split(r" (?:\d?>|\|\|)", line)[0])


def test_every_command_is_taken_by_the_command_line() -> None:
    seen = []
    for job in JOBS.values():
        for step in job["steps"]:
            for words in commands(step.get("run", "")):
                given = ["50" if word == "$MAX_COST" else word for word in words[1:]]
                with leaf((words[0],)).make_context(words[0], given):
                    seen.append(words[0])
    assert seen == ["check", "estimate", "check", "submit"]


def test_what_may_cost_needs_the_environment_and_a_merge() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    check, submit = JOBS["check"], JOBS["submit"]
    assert "id-token" not in check["permissions"] and "environment" not in check
    assert submit["environment"] == "cloudft" and submit["permissions"]["id-token"] == "write"
    assert submit["if"] == "github.event_name == 'push'"
    assert "pull_request_target" not in WORKFLOW.read_text()
    for job in JOBS.values():
        for step in job["steps"]:  # what others write is never part of a script
            assert "${{" not in step.get("run", "")


def test_the_check_step_reports_and_fails_with_the_check(tmp_path: Path) -> None:
    write("FINE_TUNING", tmp_path / "job")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | {"PATH": path, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}

    def run() -> int:
        step = ["bash", "-e", "-o", "pipefail", "-c", script("check", "Check and estimate")]
        return subprocess.run(step, cwd=tmp_path / "job", env=environ, check=False).returncode

    assert run() == 0
    report = (tmp_path / "job" / "report.md").read_text()
    assert "ok: " in report and "tokens" in report and "bedrock" in report
    assert (tmp_path / "summary.md").read_text() == report
    with (tmp_path / "job" / "data" / "tickets.jsonl").open("a") as stream:
        stream.write("{broken\n")
    assert run() == 3
    assert "tickets.jsonl" in (tmp_path / "job" / "report.md").read_text()
