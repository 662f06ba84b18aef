from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Cli, JobFile

HOOK = """
import os, signal, sys
left = [int(os.environ["KILL_AT"])]
def hook(event, args):
    if event in ("open", "os.rename", "os.mkdir", "os.link", "subprocess.Popen"):
        if "home" in str(args[0]) or event == "subprocess.Popen":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
if "submit" in sys.orig_argv:
    sys.addaudithook(hook)
"""


@pytest.mark.parametrize("moment", range(0, 40, 4))
def test_a_submit_killed_at_any_moment_is_one_job(
    cli: Cli, job_file: JobFile, home: Path, tmp_path: Path, moment: int
) -> None:
    path = job_file(records=8, hyperparameters={"epochCount": 1})
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "hook"),
        "KILL_AT": str(moment),
    }
    command = [sys.executable, "-m", "cloudft", "submit", str(path)]
    subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    listed = json.loads(cli("list", "--output", "json").stdout)
    assert len(listed) <= 1
    again = cli("submit", path, "--wait", "--output", "json", timeout=120)
    assert again.returncode == 0, again.stderr
    listed = json.loads(cli("list", "--output", "json").stdout)
    completed = [job for job in listed if job["status"] == "Completed"]
    assert len(completed) == 1
    # A first try whose trainer was killed with the submit is a Failed job beside it, at most.
    assert len(listed) <= 2
    assert json.loads(again.stdout)["id"] == completed[0]["id"]
