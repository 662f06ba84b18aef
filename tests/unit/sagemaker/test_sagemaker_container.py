"""The packed trainer, run as a container of SageMaker runs it: paths, variables, endings."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tarfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import container_env
import containers
import pytest
import tiny
from containers import DATA, FILES, GPU, configure, furnish, start
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import read_jsonl, wait_until
from trainer_run import run_trainer

from cloudft import catalogue
from cloudft.aws.request_validation import load_service_model
from cloudft.backends.sagemaker import logs, request, trainer_archive
from cloudft.storage.artifacts import TRAINING_CSV, VALIDATION_CSV
from local_backend import sagemaker as entry
from local_backend.container import pip_requirements
from local_backend.container.environment import MASTER_PORT, ContainerPaths, Machine, read_machine
from local_backend.errors import TrainerError
from local_backend.training.checkpoint import POSITION


def of_kind(said: str, kind: str) -> list[dict[str, Any]]:
    """Return the protocol messages of a kind in the container's log."""
    marked = (logs.extract_marked(line, kind) for line in said.splitlines())
    return [json.loads(content) for content in marked if content is not None]


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
    points = of_kind(said, "metric")
    assert [p["loss"] for p in points if p["split"] == "train"] == here.losses()
    reported = of_kind(said, "state")
    assert reported[-1]["progress"]["step"] == len(here.losses())
    for definition in request.METRIC_DEFINITIONS:
        split = definition["Name"].partition(":")[0]
        found = [m[1] for line in said.splitlines() if (m := re.search(definition["Regex"], line))]
        assert [float(loss) for loss in found] == here.losses(split)


def test_a_machine_that_is_taken_away_is_gone_on_from_on_another(
    tmp_path: Path, tiny_model: Path
) -> None:
    job = tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, epochCount=200, learningRate=1e-4)
    first, second = tmp_path / "first", tmp_path / "second"
    furnish(first, job, tiny_model)
    furnish(second, job, tiny_model)
    curve = first / "checkpoints" / "metrics.jsonl"
    child = start(first)
    wait_until(lambda: len(read_jsonl(curve)) > 20, "it trains")
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)
    before = read_jsonl(curve)
    assert child.returncode == 0 and not (first / "model").exists()
    shutil.copytree(first / "checkpoints", second / "checkpoints")
    kept = second / "checkpoints" / "checkpoints"
    torn = shutil.copytree(max(kept.glob("step-*")), kept / "step-99999999")
    (torn / "optimizer.pt").write_bytes(b"torn")
    child = start(second)
    after = second / "checkpoints" / "metrics.jsonl"
    wait_until(lambda: len(read_jsonl(after)) > len(before) + 5, "it goes on")
    os.killpg(child.pid, signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    assert read_jsonl(after)[: len(before)] == before
    steps = [point["step"] for point in read_jsonl(after) if point["split"] == "train"]
    assert steps == list(range(len(steps)))
    assert "checkpoint step-99999999 is damaged" in said and "resuming after step" in said
    printed = of_kind(said, "metric")
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


def test_a_gpu_that_pytorch_does_not_see_ends_the_job_before_anything_is_installed(
    tmp_path: Path, tiny_model: Path
) -> None:
    root = tmp_path / "ml"
    furnish(root, tiny.write_job_dir(tmp_path / "job", tiny_model, DATA), tiny_model, machine=GPU)
    child = start(root)
    said, _ = child.communicate(timeout=60)
    why = (root / "output" / "failure").read_text()
    assert (
        child.returncode == 1 and "ml.g5.xlarge has a GPU" in why and "sagemaker.image_uri" in why
    )
    assert not (root / "job").exists() and logs.LINE_MARKER not in said and "installing" not in said


def test_types_with_a_gpu_are_distinguished_from_those_without() -> None:
    types = load_service_model("sagemaker").shape_for("TrainingInstanceType").enum
    found = {kind for kind in types if Machine(instance_type=kind).has_gpu}
    known = catalogue.load_instances().by_name
    assert {name for name, row in known.items() if row.gpus} == found & known.keys()
    families = {kind.split(".")[1] for kind in found}
    assert {"p3", "p4de", "p5en", "p6-b200", "g4dn", "g6e", "g7e"} <= families
    assert not families & {"m5", "c5", "trn1", "trn2", "r5d", "t3"}
    assert not Machine(instance_type="local").has_gpu and not Machine().has_gpu


def test_every_instance_learns_its_peers_and_their_interface(tmp_path: Path) -> None:
    hosts = [f"algo-{number}" for number in range(1, 12)]
    configure(tmp_path, [hosts[1], *hosts])
    places = ContainerPaths(tmp_path, {})
    machine = read_machine(places)
    assert machine.distributed_environment({}) == {
        "GROUP_WORLD_SIZE": "12",
        "GROUP_RANK": str(sorted([hosts[1], *hosts]).index("algo-2")),
        "MASTER_ADDR": "algo-1",
        "MASTER_PORT": MASTER_PORT,
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }
    assert (
        machine.distributed_environment({"NCCL_SOCKET_IFNAME": "eth1"})["NCCL_SOCKET_IFNAME"]
        == "eth1"
    )
    configure(tmp_path, ["algo-1"])
    assert read_machine(places).distributed_environment({}) == {}
    broken = json.loads(places.resources.read_text()) | {"current_host": "x", "hosts": ["a", "b"]}
    for content in (json.dumps(broken), "[]", "{"):
        places.resources.write_text(content)
        with pytest.raises(TrainerError, match=r"resourceconfig\.json"):
            read_machine(places)


@pytest.mark.parametrize(
    ("version", "good"), [("2.6.0", True), ("2.5.1+cu124", False), ("", False)]
)
def test_an_image_without_a_pytorch_that_is_new_enough_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, good: bool
) -> None:
    def found(_: str) -> str:
        if not version:
            raise PackageNotFoundError
        return version

    monkeypatch.setattr(pip_requirements, "version", found)
    if good:
        pip_requirements.require_torch()
    else:
        with pytest.raises(TrainerError, match="or newer"):
            pip_requirements.require_torch()


def test_a_container_installs_exactly_what_the_tests_run_with() -> None:
    """The lists against constraints.txt and against what the trainer's packages bring."""
    tested = pins((container_env.REPOSITORY / "constraints.txt").read_text().splitlines())
    listed = [
        trainer_archive.read_requirements(name)
        for name in (trainer_archive.REQUIREMENTS, trainer_archive.QLORA_REQUIREMENTS)
    ]
    for name, versions in pins([line for some in listed for line in some]).items():
        assert versions == tested[name], name
    image = {re.split("[<>=]", line)[0].lower() for line in container_env.IMAGE}
    image |= {"certifi", "charset-normalizer", "click", "idna", "markupsafe", "torch"}
    image |= {"typing-extensions", "urllib3"}
    wanted = [r for r in of_extra("cloudft", "local") if r.name not in ("torch", "matplotlib")]
    brought: set[str] = set()
    while wanted:
        name = canonicalize_name(wanted.pop().name)
        if name not in brought and name not in image - {"accelerate", "jinja2"}:
            brought.add(name)
            wanted += of_extra(name, "")
    assert brought == pins(listed[0]).keys()


def pins(lines: list[str]) -> dict[str, set[str]]:
    """Return each name with its versions and their Python versions. Raise for another form."""
    found: dict[str, set[str]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            wanted = Requirement(line)
            [version] = wanted.specifier
            assert version.operator == "==", line
            pin = f"{version.version} {wanted.marker or ''}"
            found.setdefault(canonicalize_name(wanted.name), set()).add(pin)
    return found


def of_extra(name: str, extra: str) -> list[Requirement]:
    """Return the requirements of a distribution, of one extra or without any."""
    lines = [Requirement(line) for line in requires(name) or ()]
    named = [line for line in lines if not extra or f'extra == "{extra}"' in str(line.marker)]
    return [r for r in named if r.marker is None or r.marker.evaluate({"extra": extra})]


def test_checkpoints_without_their_curve_are_left_out(tmp_path: Path) -> None:
    curve = tmp_path / "metrics.jsonl"
    curve.write_bytes(b"0123456789")
    for step, length in ((1, 4), (2, 8), (3, 12)):
        folder = tmp_path / "kept" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        record = {"position": {"metrics_bytes": length}, "sha256": {}}
        (folder / POSITION).write_text(json.dumps(record))
    entry.drop_damaged_checkpoints(tmp_path / "kept", curve)
    assert sorted(p.name[-1] for p in (tmp_path / "kept").iterdir()) == ["1", "2"]
    assert curve.read_bytes() == b"01234567"


NAMES = ("127.0.0.1", "algo-2")
"""On SageMaker algo-1 and algo-2; here the first has to be found over the loopback."""


def furnish_both(folder: Path, job: Path, model: Path) -> list[Path]:
    """Write the folders of two instances of one job."""
    roots = [folder / "first", folder / "second"]
    for root, hosts in zip(roots, (NAMES, NAMES[::-1]), strict=True):
        furnish(root, job, model, hosts=hosts)
    return roots


def run_both(roots: list[Path]) -> tuple[list[int], list[str]]:
    """Run two instances of one job to their ends; return exit codes and output."""
    port = containers.free_port()
    children = [start(root, MASTER_PORT=port) for root in roots]
    said = [child.communicate(timeout=150)[0] for child in children]
    return [child.returncode for child in children], said


def test_machines_that_would_go_on_from_different_steps_are_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    job = tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, epochCount=200, learningRate=1e-4)
    roots = furnish_both(tmp_path, job, tiny_model)
    configure(roots[0], NAMES[:1])
    child = start(roots[0])
    wait_until(lambda: len(read_jsonl(roots[0] / "checkpoints" / "metrics.jsonl")) > 5, "it trains")
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)
    configure(roots[0], NAMES)
    codes, said = run_both(roots)
    assert codes == [1, 1], said
    why = (roots[0] / "output" / "failure").read_text()
    assert "don't have the same checkpoint" in why and "--force-new" in why


@pytest.mark.parametrize("sharded", [False, True])
def test_two_machines_train_one_job_and_the_first_has_it(
    tmp_path: Path, tiny_model: Path, sharded: bool
) -> None:
    job = tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, fsdp=sharded)
    roots = furnish_both(tmp_path, job, tiny_model)
    codes, said = run_both(roots)
    assert codes == [0, 0], said
    alone = tmp_path / "alone"
    furnish(alone, tiny.write_job_dir(tmp_path / "one", tiny_model, DATA), tiny_model)
    one = start(alone)
    one.communicate(timeout=150)
    curves = [read_jsonl(root / "checkpoints" / "metrics.jsonl") for root in (roots[0], alone)]
    assert [p["loss"] for p in curves[0]] == pytest.approx([p["loss"] for p in curves[1]], abs=1e-4)
    assert (roots[0] / "model" / "result.json").is_file() and not (roots[1] / "model").exists()
    assert not (roots[1] / "checkpoints").exists(), "what SageMaker copies over that of the first"


def test_the_archive_is_the_same_bytes_and_just_the_trainer(tmp_path: Path) -> None:
    first = trainer_archive.build_archive()
    trainer_archive.build_archive.cache_clear()
    assert trainer_archive.build_archive() == first
    (tmp_path / trainer_archive.ARCHIVE).write_bytes(first.content)
    with tarfile.open(tmp_path / trainer_archive.ARCHIVE) as archive:
        names = set(archive.getnames())
        member: Any = archive.extractfile(trainer_archive.REQUIREMENTS)
        needed = member.read().decode().split()
    package = Path(pip_requirements.__file__).parents[1]
    files = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    lists = {trainer_archive.REQUIREMENTS, trainer_archive.QLORA_REQUIREMENTS}
    assert names == files | lists
    assert any(line.startswith("transformers") for line in needed)
    assert not any(line.startswith("torch") for line in needed)
    assert all(pip_requirements.is_satisfied(line) for line in needed)
    assert not pip_requirements.is_satisfied(
        "transformers<5"
    ) and not pip_requirements.is_satisfied("no-such-thing")


def test_the_marks_are_the_same_on_both_sides() -> None:
    assert logs.LINE_MARKER == entry.LOG_MARK
    lists = (trainer_archive.REQUIREMENTS, {"qlora": trainer_archive.QLORA_REQUIREMENTS})
    assert lists == (pip_requirements.REQUIREMENTS, pip_requirements.METHOD_REQUIREMENTS)
