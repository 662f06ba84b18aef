"""Training texts, answers and logs are readable only by their owner."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from processes import Cli, JobFile, wait_until


def readable_by_others(home: Path) -> list[str]:
    """Return the files and folders below the home that other users can access."""
    found, waiting = [], [home]
    while waiting:
        for path in waiting.pop().iterdir():
            if stat.S_IMODE(path.lstat().st_mode) & 0o077:
                found.append(str(path.relative_to(home)))
                waiting += [path] if path.is_dir() else []
    return found


def file_modes(folder: Path) -> dict[str, int]:
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir() if p.is_file()}


def test_a_home_is_closed_to_others_whatever_the_umask_is(
    cli: Cli, fresh_cli: Cli, job_file: JobFile, home: Path
) -> None:
    path = job_file(records=8, hyperparameters={"epochCount": 1})
    done = fresh_cli("submit", path, preexec_fn=lambda: os.umask(0))
    assert done.returncode == 0, done.stderr
    assert readable_by_others(home) == []
    [job] = (home / "jobs").iterdir()
    wait_until(lambda: (job / "ended.json").exists(), "the job's end")
    assert set(file_modes(job / "data").values()) == {0o400}
    assert file_modes(job)["trainer.log"] == 0o600

    # A home as earlier versions made it is closed by the next submit.
    for folder in (home, home / "jobs", home / "staged", job, job / "data"):
        folder.chmod(0o755)
    for file in (home / "staged").glob("*/*"):
        file.chmod(0o444)
    assert cli("submit", path, "--force-new").returncode == 0
    assert readable_by_others(home) == []
    assert set(file_modes(job / "data").values()) == {0o400}
