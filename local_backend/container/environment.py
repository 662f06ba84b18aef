"""Read what SageMaker provides in a training container: its folders, and the machines of the job.

An overridden entrypoint gets files only. The variables of SageMaker's training toolkit
(SM_CHANNEL_TRAIN, SM_MODEL_DIR, SM_HOSTS, ...) take precedence where they are set. Source of the
layout and of resourceconfig.json: SageMaker developer guide, "Amazon SageMaker Training Storage
Folders" and "How Amazon SageMaker Provides Training Information"; of the variables: the toolkit's
ENVIRONMENT_VARIABLES.md. The SDK's own driver of an overridden entrypoint reads the same files
(sagemaker-train 1.27.0, container_drivers/scripts/environment.py).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_backend.errors import TrainerError
from local_backend.job_dir import CHECKPOINTS

RESOURCE_CONFIG = "resourceconfig.json"
MASTER_PORT = "29500"
"""Port where the trainers of several machines meet: torchrun's default."""
GPU_INSTANCE_TYPE = re.compile(r"ml\.(g|p)[0-9]|ml\.gr[0-9]")
"""Instance types with NVIDIA GPUs: the families G, Gr and P."""
NEURON = ("ml.trn", "ml.inf")
"""Instance types with Trainium and Inferentia."""


@dataclass(frozen=True)
class ContainerPaths:
    """Folders and files of a training container."""

    root: Path
    environ: Mapping[str, str]

    def channel(self, name: str) -> Path:
        """Return the folder of an input channel, which may not exist."""
        folder = self.environ.get(f"SM_CHANNEL_{name.upper()}")
        return Path(folder) if folder else self.root / "input" / "data" / name

    @property
    def resources(self) -> Path:
        """Return the file that names the machines of the job."""
        return self.root / "input" / "config" / RESOURCE_CONFIG

    @property
    def model(self) -> Path:
        """Return the folder that SageMaker keeps of a completed job."""
        return Path(self.environ.get("SM_MODEL_DIR") or self.root / "model")

    @property
    def output(self) -> Path:
        """Return the folder for the failure message."""
        return Path(self.environ.get("SM_OUTPUT_DIR") or self.root / "output")

    @property
    def checkpoints(self) -> Path:
        """Return the folder that SageMaker copies to S3."""
        return self.root / CHECKPOINTS

    @property
    def job(self) -> Path:
        """Return the job's folder."""
        return self.root / "job"


@dataclass(frozen=True)
class Machine:
    """One machine of the job. `hosts` is sorted; a single machine may have none."""

    host: str = ""
    hosts: Sequence[str] = ()
    instance_type: str = ""
    interface: str = ""

    @property
    def rank(self) -> int:
        """Return this machine's index among the hosts, from 0."""
        return self.hosts.index(self.host) if len(self.hosts) > 1 else 0

    @property
    def has_gpu(self) -> bool:
        """Return True if the instance type has NVIDIA GPUs; False if the type is not known."""
        return GPU_INSTANCE_TYPE.match(self.instance_type) is not None

    def distributed_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables with which trainers on several machines find each other.

        Empty for one machine. The interface is set for Gloo and NCCL because the host name of a
        container with an overridden entrypoint does not resolve to it, and Gloo would use the
        loopback interface instead.
        """
        if len(self.hosts) <= 1:
            return {}
        names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if self.interface else ()
        return {
            **{name: environ.get(name, self.interface) for name in names},
            "GROUP_WORLD_SIZE": str(len(self.hosts)),
            "GROUP_RANK": str(self.rank),
            "MASTER_ADDR": self.hosts[0],
            "MASTER_PORT": environ.get("MASTER_PORT", MASTER_PORT),
        }


def read_machine(paths: ContainerPaths) -> Machine:
    """Return this machine from resourceconfig.json. Raise TrainerError if the file is invalid."""
    config = _read_json(paths.resources)
    environ = paths.environ
    hosts = json.loads(environ.get("SM_HOSTS") or "null") or config.get("hosts") or []
    host = environ.get("SM_CURRENT_HOST") or config.get("current_host") or ""
    if not isinstance(hosts, list) or (len(hosts) > 1 and host not in hosts):
        message = f"{paths.resources} does not name this machine among the job's hosts"
        raise TrainerError(f"{message}: current_host {host!r}, hosts {hosts!r}.")
    kind, interface = (config.get(n) for n in ("current_instance_type", "network_interface_name"))
    return Machine(host, sorted(hosts), str(kind or ""), str(interface or ""))


def _read_json(path: Path) -> dict[str, Any]:
    """Return the file's JSON object; empty without a file, as in a container started by hand."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise TrainerError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise TrainerError(f"{path} holds no JSON object.")
    return content


def count_gpus(machine: Machine, environ: Mapping[str, str]) -> int:
    """Return how many GPUs PyTorch sees. Import it only where a GPU is possible."""
    if environ.get("SM_NUM_GPUS"):
        return int(environ["SM_NUM_GPUS"])
    if not machine.has_gpu and shutil.which("nvidia-smi") is None:
        return 0
    import torch

    return torch.cuda.device_count()


def require_gpu(machine: Machine, gpus: int) -> None:
    """Raise TrainerError if the machine's accelerator cannot be used.

    Otherwise the job would pay for a GPU, or for other chips, and train on the CPU.
    """
    if machine.instance_type.startswith(NEURON):
        raise TrainerError(
            f"{machine.instance_type} has AWS's own accelerators, which are not supported.",
            fix="choose a machine with NVIDIA GPUs (sagemaker.instance_type).",
        )
    if machine.has_gpu and gpus == 0:
        raise TrainerError(
            f"{machine.instance_type} has a GPU, and the image's PyTorch sees none.",
            fix="set sagemaker.image_uri to a GPU image whose CUDA this machine's driver supports,"
            " or choose a machine without a GPU.",
        )
