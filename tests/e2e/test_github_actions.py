"""The workflow of examples/github-actions: its commands exist, and its steps run."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from cli_commands import make_context
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cloudft.starter import write_starter

WORKFLOW = Path(__file__).resolve().parents[2] / "examples" / "github-actions" / "cloudft.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]


def script(job: str, step: str) -> str:
    [text] = [s["run"] for s in JOBS[job]["steps"] if s.get("name") == step]
    return str(text)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each `cloudft ...` line, without redirections."""
    for line in re.findall(r"^\s*cloudft (.+)$", text, re.MULTILINE):
        yield shlex.split(re.split(r" (?:\d?>|\|\|)", line)[0])


def test_every_command_is_accepted_by_the_command_line() -> None:
    names = []
    for job in JOBS.values():
        for step in job["steps"]:
            for command in commands(step.get("run", "")):
                arguments = [
                    "50" if argument == "$MAX_COST" else argument for argument in command[1:]
                ]
                with make_context((command[0],), arguments):
                    names.append(command[0])
    assert names == ["check", "estimate", "check", "submit"]


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


REQUIREMENT = re.compile(r"([a-z0-9-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)")
ROOT = WORKFLOW.parents[2]


def requirements() -> dict[str, str]:
    """Return the pinned version of each package; a line in another form is an error."""
    lines = (WORKFLOW.parent / "requirements.txt").read_text().splitlines()
    requirements = [REQUIREMENT.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(requirements), lines
    return {match[1]: match[2] for match in requirements if match}


def test_nothing_is_installed_by_a_name_without_its_digest() -> None:
    environ = yaml.safe_load(WORKFLOW.read_text())["env"]
    assert re.fullmatch("[0-9a-f]{40}", environ["CLOUDFT_COMMIT"])
    for job in JOBS.values():
        [checkout] = [s["with"] for s in job["steps"] if "repository" in s.get("with", {})]
        assert checkout["ref"] == "${{ env.CLOUDFT_COMMIT }}" and checkout["path"] == ".cloudft"
        run = "\n".join(step.get("run", "") for step in job["steps"])
        installs = [shlex.split(line)[2:] for line in re.findall(r"^pip install.*", run, re.M)]
        assert len(installs) == run.count("pip ") == 2
        for command in installs:
            hashed = {"--require-hashes", "--only-binary"} <= {*command}
            here = {"--no-index", "--no-deps", "--no-build-isolation"} <= {*command}
            assert hashed or (here and command[-1] == "./.cloudft"), command


def test_the_pinned_requirements_are_all_that_cloudft_needs() -> None:
    pinned = requirements()
    built = re.search(r'^requires = \["([^"]+)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert built
    waiting = [built[1], *(importlib.metadata.requires("cloudft") or ())]
    there = {"python_version": "3.12", "python_full_version": "3.12.0", "extra": ""}
    there |= {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    needed: set[str] = set()
    while waiting:
        one = Requirement(waiting.pop())
        name = canonicalize_name(one.name)
        if name in needed or (one.marker and not one.marker.evaluate(there)):
            continue
        needed.add(name)
        assert one.specifier.contains(pinned[name]), one
        waiting += importlib.metadata.requires(name) or ()
    assert needed == pinned.keys()
    constraints = re.findall(r"^(\S+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned.items() <= {(canonicalize_name(name), version) for name, version in constraints}


def test_the_install_step_installs_the_checkout_at_its_commit_and_no_other(tmp_path: Path) -> None:
    """Run the last line of the step, offline; the tests above check what the first one fetches."""
    copy = tmp_path / ".cloudft"
    for name in ("cloudft", "local_backend", "infra"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    git = ["git", "-C", str(copy), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    install = script("check", "Install cloudft")
    assert install == script("submit", "Install cloudft")
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/pip.log
case "$*" in *--require-hashes*) exit 0;; esac
exec {sys.executable} -m "pip" "$@" --quiet --target {tmp_path}/site
""")
    pip.chmod(0o755)

    def run(commit: str) -> int:
        path = f"{pip.parent}{os.pathsep}{os.environ['PATH']}"
        environ = os.environ | {"PATH": path, "CLOUDFT_COMMIT": commit}
        step = ["bash", "-e", "-o", "pipefail", "-c", install]
        return subprocess.run(step, cwd=tmp_path, env=environ, check=False).returncode

    assert run("0" * 40) != 0 and not (tmp_path / "pip.log").exists()
    assert run(head.stdout.strip()) == 0
    calls = (tmp_path / "pip.log").read_text().splitlines()
    assert len(calls) == 2 and calls[0].endswith(
        ".cloudft/examples/github-actions/requirements.txt"
    )
    program = "import cloudft.infra.template as t; print(t.__file__, *t.list_templates())"
    environ = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    where, *names = done.stdout.split()
    assert where.startswith(str(tmp_path / "site")) and names == ["base", "grader", "jobs"]


def test_the_check_step_reports_and_fails_with_the_check(tmp_path: Path) -> None:
    write_starter("FINE_TUNING", tmp_path / "job")
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
