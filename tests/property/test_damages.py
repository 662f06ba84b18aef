"""A hundred damages to a finished job's files: the others list, and each is named, never a bug."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import tiny
from job_files import write_job_file
from job_records import make_record

from cloudft.backends.local import model_process
from cloudft.backends.local.backend import LocalBackend
from cloudft.cli import errors
from cloudft.cli.main import cloudft
from cloudft.errors import CloudftError
from cloudft.evaluate.metrics import intervals
from cloudft.storage.store import Store

SEEDS = range(100)
OTHERS = ("other-aaaa1111", "other-bbbb2222")
LISTED = ("record.json", "submitted.json", "job.json", "state.json", "ended.json")
"""What `list` reads of a local job: damaged three times as often as the others."""
JSON_FILES = (
    *LISTED * 3,
    *("trainer.json", "metrics.jsonl", "evaluations/*.json", "data/manifest.json"),
    *("artifacts/manifest.json", "artifacts/result.json"),
)
OTHER_FILES = ("artifacts/*/*.csv", "artifacts/*/*/*.csv", "trainer.log")
VALUES: tuple[Any, ...] = (None, 7, -1, 1.5, True, "x", "", [], [1], {}, {"x": {}}, "../../x")


def run(*words: str) -> tuple[int | str, str]:
    """Run a command in this process; return 0 or the error's code, and its file and field."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            code = cloudft.main(list(words), standalone_mode=False)
        except CloudftError as error:
            return error.code, json.dumps(errors.error_json(error))
        except click.ClickException as error:
            return "Usage", error.format_message()
    return code or 0, out.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """Yield a home with one finished and evaluated job."""
    folder = tmp_path_factory.mktemp("damages")
    job = write_job_file(folder, tiny_model, validation=tiny.pairs(4), records=8)
    answers = folder / "answers.jsonl"
    tiny.write_jsonl(answers, [{"base": "yes", "tuned": "no"}] * 4)
    with pytest.MonkeyPatch.context() as patch:
        import preloaded

        patch.setattr(sys, "executable", preloaded.interpreter_path())
        patch.setenv("CLOUDFT_HOME", str(folder / "home"))
        assert run("submit", str(job), "--wait")[0] == 0
        [path] = (folder / "home" / "jobs").iterdir()
        given = ("--answers", str(answers), "--data", str(folder / "validation.jsonl"))
        assert run("evaluate", path.name, *given)[0] == 0
    yield path


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def reached(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def in_json(change: Callable[[Any, tuple[Any, ...], random.Random], None]) -> Any:
    """Return a damage to one value of a JSON file, or of one line of a JSONL file."""

    def do(path: Path, draw: random.Random) -> None:
        lines = path.read_bytes().splitlines() if path.suffix == ".jsonl" else [path.read_bytes()]
        number = draw.randrange(len(lines))
        value = json.loads(lines[number])
        change(value, draw.choice(list(places(value))), draw)
        lines[number] = json.dumps(value).encode()
        path.write_bytes(b"\n".join([*lines, b""]))

    return do


def swap(value: Any, place: tuple[Any, ...], draw: random.Random) -> None:
    *inner, last = place
    reached(value, tuple(inner))[last] = draw.choice(VALUES)


def drop(value: Any, place: tuple[Any, ...], draw: random.Random) -> None:
    *inner, last = place
    del reached(value, tuple(inner))[last]


def add(value: Any, place: tuple[Any, ...], draw: random.Random) -> None:
    *inner, _ = place
    found = reached(value, tuple(inner))
    if isinstance(found, dict):
        found["ofANewerVersion"] = draw.choice(VALUES)


def version(value: Any, place: tuple[Any, ...], draw: random.Random) -> None:
    value["version"] = draw.choice([None, 0, 2, "1", [1]])


def cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


ANY_FILE = (cut, flip, flip, empty, folder)
DAMAGES = (*ANY_FILE, in_json(swap), in_json(swap), in_json(drop), in_json(add), in_json(version))


def damage(job: Path, draw: random.Random) -> Path:
    """Damage one file; return it."""
    names = JSON_FILES if draw.random() < 0.85 else OTHER_FILES
    files = sorted(path for name in names for path in job.glob(name))
    path = draw.choice(files)
    path.chmod(0o644)
    draw.choice(DAMAGES if names is JSON_FILES else ANY_FILE)(path, draw)
    return path


def test_a_hundred_damages_are_named_and_hide_no_other_job(
    finished: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(LocalBackend, "_start_trainer", lambda self, job, lock: started.append(job))
    figures = ("maxLogitDifference", "tolerance", "equalGreedyAnswers", "records")
    proof = {**dict.fromkeys(figures, 0), "heldOut": "validation"}
    monkeypatch.setattr(
        model_process, "run_export", lambda *_: proof
    )  # what comes before it is tested here
    monkeypatch.setattr(intervals, "RESAMPLES", 10)
    monkeypatch.chdir(tmp_path)
    store = Store(home / "jobs")
    for other in OTHERS:
        with store.create(make_record(store, other)):
            pass
    name = finished.name
    commands = [
        *(("status", name), ("logs", name), ("metrics", name), ("export", name, "out")),
        *(("report", name, "--force", "--out", "page.html"), ("compare", "base", name)),
        *(("evaluate", name, "--answers", *_given(finished)), ("init", "made", "--from-job", name)),
        *(("stop", name), ("resume", name), ("delete", name, "--yes")),
    ]
    usual: dict[tuple[str, ...], int | str] = {}
    for seed in (None, *SEEDS):
        job = store.jobs / name
        shutil.copytree(finished, job)
        path = damage(job, random.Random(seed)) if seed is not None else None
        code, listed = run("list", "--output", "json")
        assert code == 0 and all(other in listed for other in (*OTHERS, name)), (seed, path)
        for words in commands:
            shutil.rmtree(tmp_path / "made", ignore_errors=True)
            code, said = run(*words)
            if path is None:
                usual[words] = code
                continue
            named = code in ("DamagedJob", "BadDocument", "Store") and path.name in said
            # A job whose curves are gone has Failed, and goes on from its last checkpoint.
            again = words[0] == "resume" and path.suffix == ".csv" and len(started) == 1
            assert code == usual[words] or named or again, (seed, path, words, code, said)
        started.clear()
        if job.exists():
            assert run("delete", name, "--yes", "--force")[0] == 0
        assert not job.exists(), (seed, path)
    assert set(usual.values()) == {0, "Conflict"}, "a finished job can't be resumed, else all works"


def _given(finished: Path) -> tuple[str, ...]:
    folder = finished.parents[2]
    return (str(folder / "answers.jsonl"), "--data", str(folder / "validation.jsonl"))


def test_a_copied_folder_is_damaged_and_its_delete_leaves_the_original(
    finished: Path, home: Path
) -> None:
    job, copied = home / "jobs" / finished.name, home / "jobs" / "copied-12345678"
    for path in (job, copied):
        shutil.copytree(finished, path)
    before = sorted(os.listdir(job))
    code, said = run("status", copied.name)
    assert code == "DamagedJob" and "record.json" in said and job.name in said
    assert run("delete", copied.name, "--yes")[0] == 0
    assert not copied.exists() and sorted(os.listdir(job)) == before
    assert run("status", job.name)[0] == 0


def test_a_damaged_job_that_may_run_is_removed_by_force_alone(finished: Path, home: Path) -> None:
    import fcntl

    job = home / "jobs" / finished.name
    shutil.copytree(finished, job)
    (job / "record.json").write_text("{")
    with (job / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, said = run("delete", job.name, "--yes")
        assert code == "Conflict" and "its trainer runs" in said and "--force" in said
    (job / "lock").unlink()
    code, said = run("delete", job.name, "--yes")
    assert code == "Conflict" and "may run on AWS" in said
    assert run("delete", job.name, "--yes", "--force")[0] == 0 and not job.exists()
