"""A training container of SageMaker below another root than /opt/ml: what the platform gives it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import preloaded
import tiny

from cloudft.backends.sagemaker import trainer_archive

DATA = {"train": tiny.pairs(12), "validation": tiny.pairs(4)}
FILES = {role: f"{role}.jsonl" for role in DATA}
CPU, GPU = "ml.m5.xlarge", "ml.g5.xlarge"


def furnish(
    root: Path, job: Path, model: Path, *, hosts: Sequence[str] = (), machine: str = CPU
) -> None:
    """ROOT/input as SageMaker fills it from the channels of a job. `hosts`: this one comes first;
    `model`: a folder, or the one file of a model.
    """
    inputs = root / "input" / "data"
    (inputs / "code").mkdir(parents=True)
    (inputs / "code" / trainer_archive.ARCHIVE).write_bytes(trainer_archive.build_archive().content)
    wanted = json.loads((job / "job.json").read_text())
    wanted["model"]["weights"] = [{"kind": "folder", "path": "model"}]
    (inputs / "job").mkdir()
    (inputs / "job" / "job.json").write_text(json.dumps(wanted))
    shutil.copyfile(job / "data" / "manifest.json", inputs / "job" / "manifest.json")
    for role, name in FILES.items():
        (inputs / role).mkdir()
        shutil.copyfile(job / "data" / name, inputs / role / name)
    if model.is_dir():
        shutil.copytree(model, inputs / "model")
    else:
        (inputs / "model").mkdir()
        (inputs / "model" / model.name).symlink_to(model)
    configure(root, hosts or ["algo-1"], machine)


def configure(root: Path, hosts: Sequence[str], machine: str = CPU) -> None:
    """ROOT/input/config (SageMaker developer guide, "Distributed training configuration")."""
    names = sorted(hosts)
    group = {"instance_group_name": "homogeneousCluster", "instance_type": machine, "hosts": names}
    resources = {
        "current_host": hosts[0],
        "current_instance_type": machine,
        "current_group_name": "homogeneousCluster",
        "hosts": names,
        "instance_groups": [group],
        "network_interface_name": "lo",
    }
    channel = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
    config = root / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "hyperparameters.json").write_text("{}")
    (config / "inputdataconfig.json").write_text(json.dumps(dict.fromkeys(FILES, channel)))
    (config / "resourceconfig.json").write_text(json.dumps(resources))


def start(root: Path, python: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """The job's ContainerEntrypoint and ContainerArguments, below another root."""
    path = f"{Path(python or preloaded.interpreter_path()).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {"PATH": path, "HOME": str(root), "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"}
    return subprocess.Popen(
        [*trainer_archive.CONTAINER_ENTRYPOINT, *trainer_archive.container_arguments(str(root))],
        env=kept | {"TRAINING_JOB_NAME": "job"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
