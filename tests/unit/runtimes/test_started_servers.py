"""Servers that cloudft starts: what they get to know, and that nothing of them stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from processes import find_processes, wait_until

from cloudft.runtimes import launch

SECRETS = (
    *("CLOUDFT_ENGINE_API_KEY", "OPENAI_API_KEY", "CLOUDFT_SERVE_API_KEY", "HF_TOKEN"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "VLLM_API_KEY"),
)


def test_a_started_server_has_its_settings_and_no_key_but_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    program = launch.Program(["vllm"], {"VLLM_API_KEY": "own"}, "vLLM")
    environment = launch._environment(program)
    assert "secret" not in environment.values()
    assert environment["VLLM_API_KEY"] == "own"
    assert environment["VLLM_LOGGING_LEVEL"] == "DEBUG" and environment["PATH"]


@pytest.mark.parametrize("ending", ["closed", "crashed"])
def test_workers_that_a_command_leaves_behind_are_killed(tmp_path: Path, ending: str) -> None:
    """The worker ignores SIGTERM; the command that started it does not, or has ended by itself."""
    ready, worker, server = (tmp_path / name for name in ("ready", "worker.py", "server.sh"))
    worker.write_text(
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(600)\n"
    )
    then = f"until [ -e {ready} ]; do sleep 0.1; done; exit 3" if ending == "crashed" else "wait"
    server.write_text(f"{sys.executable} {worker} & {then}")
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudft.runtimes.supervise", "sh", str(server)],
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        wait_until(ready.exists, "the worker runs")
        if ending == "closed":
            process.stdin.close()
        assert (process.wait(30) == 3) == (ending == "crashed")
        wait_until(lambda: not find_processes(str(worker)), "the worker has ended", seconds=10)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
