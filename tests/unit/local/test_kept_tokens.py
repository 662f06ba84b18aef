"""`gc --local`: tokens that no job needs are removed, and no others."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import tiny
from processes import Cli
from trainer_run import run_trainer


@pytest.fixture
def tokens(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kept tokens of a complete job, and of one that was stopped."""
    monkeypatch.setenv("CLOUDFT_TOKEN_CACHE", str(home / "tokens"))
    for name, count in (("complete", 8), ("stopped", 9)):
        data = {"train": tiny.pairs(count)}
        done = run_trainer(tiny.write_job_dir(home / "jobs" / name, tiny_model, data))
        assert done.status == "Completed", done.log
    shutil.rmtree(home / "jobs" / "stopped" / "artifacts")
    return home / "tokens"


def key(home: Path, job: str) -> str:
    """Return the name of a job's kept training data."""
    return str(json.loads((home / "jobs" / job / "tokens.json").read_text())["train"])


def test_tokens_of_complete_jobs_and_of_killed_trainers_are_removed_after_a_confirmation(
    cli: Cli, home: Path, tokens: Path
) -> None:
    for name in (".left.cloudft-1", ".written.cloudft-2"):
        (tokens / name).mkdir()
        (tokens / name / "ids.bin").write_bytes(b"12345")
    written = os.open(tokens / ".written.cloudft-2", os.O_RDONLY)
    fcntl.flock(written, fcntl.LOCK_EX)
    complete, stopped = key(home, "complete"), key(home, "stopped")
    listed = json.loads(cli("gc", "--local", "--dry-run", "--output", "json").stdout)
    assert {one["name"] for one in listed["found"]} == {complete, ".left.cloudft-1"}
    assert listed["removed"] == []
    refused = cli("gc", "--local", input="n\n")
    assert refused.returncode != 0 and "remove these 2?" in refused.stderr
    assert len(list(tokens.iterdir())) == 4
    done = cli("gc", "--local", "--yes")
    assert f"removed tokens {complete}" in done.stdout
    assert "left by a killed trainer, 0.0 MB" in done.stdout
    assert {path.name for path in tokens.iterdir()} == {stopped, ".written.cloudft-2"}
    os.close(written)


def test_tokens_whose_making_is_not_over_stay(cli: Cli, home: Path, tokens: Path) -> None:
    lock = tokens / f"{key(home, 'complete')}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "nothing to remove" in cli("gc", "--local", "--yes").stdout
    assert "removed tokens" in cli("gc", "--local", "--yes").stdout


def test_only_what_was_not_used_for_days_is_removed(cli: Cli, home: Path, tokens: Path) -> None:
    assert "nothing to remove" in cli("gc", "--local", "--older-than", "2", "--yes").stdout
    days_ago = time.time() - 3 * 86400
    os.utime(tokens / key(home, "complete") / "meta.json", (days_ago, days_ago))
    done = cli("gc", "--local", "--older-than", "2", "--yes")
    assert "removed tokens" in done.stdout
    assert [path.name for path in tokens.iterdir()] == [key(home, "stopped")]


def test_options_of_the_account_do_not_go_with_it(cli: Cli) -> None:
    refused = cli("gc", "--local", "--live")
    assert refused.returncode == 2 and "--local removes tokens of this machine" in refused.stderr
