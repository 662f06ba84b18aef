"""Estimates of a job's tokens, memory and time before it is submitted."""

from __future__ import annotations

import json
from pathlib import Path

from processes import Cli, JobFile


def test_a_probe_reports_memory_and_time_and_leaves_no_job(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    path = job_file(records=18, data={"validation": 0.2})
    done = cli("estimate", path, "--probe", "--steps", "2", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = {one["backend"]: one for one in json.loads(done.stdout)}
    local = found["local"]
    assert local["memory"]["fits"] and local["memory"]["bytes"] > 0
    assert local["steps"] == 8 and local["seconds"] > 0  # 14 or 15 records by 4, twice
    assert found["bedrock"]["seconds"] is found["bedrock"]["memory"] is None
    assert json.loads(cli("list", "--output", "json").stdout) == []
    assert not [p for p in home.iterdir() if p.name.startswith(".probe")]
    text = cli("estimate", path, "--probe", "--steps", "0").stdout
    assert "local: fits:" in text and " GiB free" in text and "in total" not in text


def test_a_probe_of_a_job_that_can_not_be_trained_says_why(cli: Cli, job_file: JobFile) -> None:
    path = job_file(local={"lora": {"target_modules": ["nothing"]}})
    done = cli("estimate", path, "--probe")
    assert done.returncode != 0 and "target_modules" in done.stderr and "fix:" in done.stderr
    assert "Traceback" not in done.stderr
    plain = cli("estimate", path)
    assert plain.returncode == 0 and "fits" not in plain.stdout
