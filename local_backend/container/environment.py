"""What SageMaker lays down in a training container: its folders, and which machine of which it is.

An overridden entrypoint gets files alone. The names that SageMaker's training toolkit sets
(SM_CHANNEL_TRAIN, SM_MODEL_DIR, SM_HOSTS, ...) win where something sets them. Source of the layout
and of resourceconfig.json: SageMaker developer guide, "Amazon SageMaker Training Storage Folders"
and "How Amazon SageMaker Provides Training Information"; of the names: the toolkit's
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
"""Where the trainers of several machines meet: torchrun's own default."""
GPU_INSTANCE_TYPE = re.compile(r"ml\.(g|p)[0-9]|ml\.gr[0-9]")
"""Types of machines with NVIDIA GPUs: the families G, Gr and P."""
NEURON = ("ml.trn", "ml.inf")
"""Types of machines with Trainium and Inferentia."""


@dataclass(frozen=True)
class ContainerPaths:
    """Where everything is."""

    root: Path
    environ: Mapping[str, str]

    def channel(self, name: str) -> Path:
        """Return the folder of an input channel; it need not be there."""
        given = self.environ.get(f"SM_CHANNEL_{name.upper()}")
        return Path(given) if given else self.root / "input" / "data" / name

    @property
    def resources(self) -> Path:
        """The file that names the machines of the job."""
        return self.root / "input" / "config" / RESOURCE_CONFIG

    @property
    def model(self) -> Path:
        """What is kept of a completed job."""
        return Path(self.environ.get("SM_MODEL_DIR") or self.root / "model")

    @property
    def output(self) -> Path:
        """Where a failure is told."""
        return Path(self.environ.get("SM_OUTPUT_DIR") or self.root / "output")

    @property
    def checkpoints(self) -> Path:
        """What outlives the machine."""
        return self.root / CHECKPOINTS

    @property
    def job(self) -> Path:
        """The job's folder."""
        return self.root / "job"


@dataclass(frozen=True)
class Machine:
    """A machine among those of its job. `hosts` is sorted; one machine alone may name none."""

    host: str = ""
    hosts: Sequence[str] = ()
    instance_type: str = ""
    interface: str = ""

    @property
    def rank(self) -> int:
        """Its number among the hosts, from 0."""
        return self.hosts.index(self.host) if len(self.hosts) > 1 else 0

    @property
    def has_gpu(self) -> bool:
        """True where the type of machine has NVIDIA GPUs; False where the type is not known."""
        return GPU_INSTANCE_TYPE.match(self.instance_type) is not None

    def distributed_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what tells the trainers of several machines where they meet; empty for one.

        The interface is named to Gloo and NCCL: the host name of a container whose entrypoint is
        overridden does not resolve to it, and Gloo would take the loopback instead.
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
    """Return this machine, by resourceconfig.json. Raises TrainerError where it can't be read."""
    told = _read_json(paths.resources)
    environ = paths.environ
    hosts = json.loads(environ.get("SM_HOSTS") or "null") or told.get("hosts") or []
    host = environ.get("SM_CURRENT_HOST") or told.get("current_host") or ""
    if not isinstance(hosts, list) or (len(hosts) > 1 and host not in hosts):
        message = f"{paths.resources} does not say which machine of the job this one is"
        raise TrainerError(f"{message}: current_host {host!r}, hosts {hosts!r}.")
    kind, interface = (told.get(n) for n in ("current_instance_type", "network_interface_name"))
    return Machine(host, sorted(hosts), str(kind or ""), str(interface or ""))


def _read_json(path: Path) -> dict[str, Any]:
    """The file's object; empty where there is none: a container that was started by hand."""
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_bytes())
    except ValueError as error:
        raise TrainerError(f"{path} is no JSON: {error}.") from error
    if not isinstance(told, dict):
        raise TrainerError(f"{path} holds no JSON object.")
    return told


def count_gpus(machine: Machine, environ: Mapping[str, str]) -> int:
    """Return how many GPUs PyTorch sees here; it is not loaded where none can be."""
    if environ.get("SM_NUM_GPUS"):
        return int(environ["SM_NUM_GPUS"])
    if not machine.has_gpu and shutil.which("nvidia-smi") is None:
        return 0
    import torch

    return torch.cuda.device_count()


def require_gpu(machine: Machine, gpus: int) -> None:
    """Raise TrainerError where the machine has a GPU and PyTorch sees none, or other chips: its
    hours would cost what these cost, for training on its CPU.
    """
    if machine.instance_type.startswith(NEURON):
        raise TrainerError(
            f"{machine.instance_type} has AWS's own accelerators, which the trainer does not use.",
            fix="take a machine with NVIDIA GPUs (sagemaker.instance_type).",
        )
    if machine.has_gpu and gpus == 0:
        raise TrainerError(
            f"{machine.instance_type} has a GPU, and the image's PyTorch sees none.",
            fix="name a GPU image for this machine (sagemaker.image_uri), one whose CUDA its driver"
            " takes; or take a machine without a GPU.",
        )
