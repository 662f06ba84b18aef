from __future__ import annotations

import resource
from pathlib import Path

from processes import Cli, JobFile


def little_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


def test_a_full_disk_is_one_clear_error(cli: Cli, job_file: JobFile, home: Path) -> None:
    done = cli("submit", job_file(), preexec_fn=little_room)
    assert done.returncode == 1
    assert "error:" in done.stderr and "fix:" in done.stderr
    assert "Traceback" not in done.stderr
    assert cli("list", "--output", "json").stdout.strip() == "[]"


def test_a_home_that_is_a_file_is_one_clear_error(cli: Cli, job_file: JobFile, home: Path) -> None:
    home.write_text("not a folder")
    done = cli("submit", job_file())
    assert done.returncode == 1
    assert "CLOUDFT_HOME" in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_job_is_told_and_the_others_list(cli: Cli, job_file: JobFile, home: Path) -> None:
    done = cli("submit", job_file(records=8, hyperparameters={"epochCount": 1}), "--wait")
    assert done.returncode == 0, done.stderr
    (home / "jobs" / "broken-00000000").mkdir()
    (home / "jobs" / "broken-00000000" / "record.json").write_text("{")
    listed = cli("list")
    assert listed.returncode == 0
    assert "broken-00000000 is damaged" in listed.stderr
    assert "Completed" in listed.stdout
