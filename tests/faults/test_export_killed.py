"""Exports and conversions that are killed, and exports that meet: one result, nothing left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
import tiny_gguf
from kill_in_fork import NEVER_KILLED, fork_and_kill
from processes import find_processes, kill, wait_until
from trainer_run import TrainerRun, run_trainer

from cloudft.backends.local import model_process
from cloudft.errors import TrainerError as Refused
from local_backend.atomic_folders import atomic_folder
from local_backend.errors import TrainerError
from local_backend.export import merged
from local_backend.export.export_model import PROOF, export_model
from local_backend.export.options import FORMATS, ExportOptions
from local_backend.export.provenance import file_digests
from local_backend.job_dir import JobDir
from local_backend.models.weights import convert_once

EXPORT_POINTS, CONVERSION_POINTS = 54, 36
"""So many operations they have on their folders (transformers 5.23, safetensors 0.8)."""
EVERY = int(os.environ.get("TESTS_KILL_EVERY", "9"))
"""Each kill point takes a second: every one is tried with 1."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainerRun:
    folder = tmp_path_factory.mktemp("killed") / "job"
    run = run_trainer(tiny.write_job_dir(folder, tiny_model, {"train": tiny.pairs(8)}))
    assert run.status == "Completed", run.log
    return run


@pytest.fixture(autouse=True)
def quiet_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.mark.parametrize(
    "point", [*range(0, EXPORT_POINTS, EVERY), EXPORT_POINTS - 2, NEVER_KILLED]
)
def test_after_an_export_killed_anywhere_the_next_one_has_the_result_and_nothing_else(
    job: TrainerRun, tmp_path: Path, point: int
) -> None:
    outs = tmp_path / "outs"
    out = outs / "out"
    killed, _ = fork_and_kill(
        lambda: export_model(JobDir(job.path), out, ExportOptions()), outs, point
    )
    assert killed or point > EXPORT_POINTS - 5
    if out.exists():
        assert json.loads((out / PROOF).read_text())["equalGreedyAnswers"] == 8
        with pytest.raises(TrainerError, match="exists already"):
            export_model(JobDir(job.path), out, ExportOptions())
    else:
        assert export_model(JobDir(job.path), out, ExportOptions())["equalGreedyAnswers"] == 8
    assert [path.name for path in outs.iterdir()] == ["out"]


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("point", [1, 8, 25])
def test_in_every_format_a_killed_export_leaves_nothing_that_looks_whole(
    job: TrainerRun, tiny_model: Path, tmp_path: Path, form: str, point: int
) -> None:
    outs = tmp_path / "outs"
    out = outs / "out"
    options = ExportOptions(form, base=str(tiny_model) if form == "adapter" else None)
    killed, _ = fork_and_kill(lambda: export_model(JobDir(job.path), out, options), outs, point)
    assert killed and not out.exists()
    assert all(".cloudft-" in str(path) for path in outs.rglob("*"))
    assert export_model(JobDir(job.path), out, options)["format"] == form
    assert [path.name for path in outs.iterdir()] == ["out"]
    digests = file_digests(out)
    del digests[PROOF]
    assert json.loads((out / PROOF).read_text())["files"] == digests


@pytest.mark.parametrize("point", [*range(0, CONVERSION_POINTS, EVERY), CONVERSION_POINTS - 2])
def test_after_a_conversion_killed_anywhere_the_next_start_has_one_model_and_nothing_else(
    tiny_model: Path, tmp_path: Path, point: int
) -> None:
    gguf, cache = tiny_gguf.write_gguf(tiny_model, tmp_path / "gguf"), tmp_path / "models"
    killed, _ = fork_and_kill(lambda: convert_once(gguf), cache, point)
    assert killed or point > CONVERSION_POINTS - 5
    folder = convert_once(gguf)
    assert sorted(path.name for path in cache.iterdir()) == [".lock", folder.name]
    assert {"config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}


def test_leftovers_of_the_version_before_go_as_well(tiny_model: Path, tmp_path: Path) -> None:
    gguf, cache = tiny_gguf.write_gguf(tiny_model, tmp_path / "gguf"), tmp_path / "models"
    left = cache / ".tiny-0123456789ab.abcd1234"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    folder = convert_once(gguf)
    assert sorted(path.name for path in cache.iterdir()) == [".lock", folder.name]


def test_a_folder_that_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "one") as first:
        (first / "file").write_text("1")
        with atomic_folder(tmp_path / "two"):
            assert first.is_dir()
        own = tmp_path / ".one.backup"
        own.mkdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".one.backup", "one", "two"]


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Do something while the next export proves its model."""
    compare = merged.compare_outputs

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(merged, "compare_outputs", compare)
        act()
        return compare(*arguments)

    monkeypatch.setattr(merged, "compare_outputs", interrupted)


def test_of_two_exports_to_one_folder_one_says_done(
    job: TrainerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = tmp_path / "outs" / "out", []
    meanwhile(
        monkeypatch,
        lambda: done.append(export_model(JobDir(job.path), out, ExportOptions(dtype="float16"))),
    )
    with pytest.raises(TrainerError, match="exists already"):
        export_model(JobDir(job.path), out, ExportOptions())
    assert json.loads((out / PROOF).read_text()) == done[0]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_somebody_puts_there_during_an_export_stays(
    job: TrainerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    out = tmp_path / "outs" / "out"
    mine = out / "mine.txt" if kind == "folder" else out

    def put() -> None:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("precious")

    meanwhile(monkeypatch, put)
    with pytest.raises(TrainerError, match="exists already"):
        export_model(JobDir(job.path), out, ExportOptions())
    assert mine.read_text() == "precious"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def _kill_exporting_command(job: TrainerRun, out: Path) -> None:
    """Start a command that exports, kill it while it writes, wait until nothing of it is left."""
    code = (
        "import os, pathlib, sys; from cloudft.backends.local import model_process\n"
        "from cloudft.backends.export_options import ExportOptions\n"
        f"sys.executable = {sys.executable!r}\n"
        f"model_process.run_export(pathlib.Path({str(job.path)!r}), pathlib.Path({str(out)!r}),"
        " ExportOptions(), os.environ)"
    )
    command = subprocess.Popen([preloaded.REAL_PYTHON, "-c", code], stderr=subprocess.DEVNULL)
    wait_until(lambda: list(out.parent.glob(".out.*")), "the export writes")
    kill(command.pid)
    command.wait()
    wait_until(lambda: not find_processes(f"local_backend.export {job.path}"), "it has ended too")
    wait_until(lambda: not list(out.parent.glob(".out.*")), "with what it was writing")


def test_an_export_ends_with_the_command_that_started_it(
    job: TrainerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would keep running beside the next one, and both would write the folder."""
    monkeypatch.setattr(sys, "executable", preloaded.interpreter_path())
    for attempt in range(5):  # on a busy machine one may be complete before it is killed
        out = tmp_path / f"outs-{attempt}" / "out"
        _kill_exporting_command(job, out)
        if not out.exists():
            break
    assert not out.exists()
    assert (
        model_process.run_export(job.path, out, ExportOptions(), os.environ)["equalGreedyAnswers"]
        == 8
    )
    with pytest.raises(Refused, match="exists already"):
        model_process.run_export(job.path, out, ExportOptions(), os.environ)
