"""Run one container of a SageMaker training job on this machine, as a process.

No image is pulled. The command is the job's own, with a folder in place of /opt/ml, and it is run
only if it is cloudft's trainer exactly as cloudft packs it; other code is refused. The process gets
what SageMaker gives a container whose entrypoint is overridden: files, and few environment
variables. The image is a Python environment: the one that is named, or this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from cloudft.backends.aws_base.requests import split_prefix
from cloudft.backends.sagemaker import trainer_archive
from cloudft.endpoint.protocols.messages import Json, Parameters, ServiceError

if TYPE_CHECKING:
    from botocore.client import BaseClient

OPT_ML = "/opt/ml"
CHECKPOINT_UPLOAD_INTERVAL_S = 0.5
"""How often new checkpoints are uploaded to S3."""
STOP_TIMEOUT_S = 120.0
"""How long a container has to stop before it is killed (SageMaker API, StopTrainingJob)."""
INHERITED_VARIABLES = ("HOME", "LANG", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables of this process's environment that a container gets."""
IMAGE_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "UTF-8", "LC_ALL": "C.UTF-8"}
"""Variables that the stock image sets (its Dockerfile: see requirements.txt)."""
LOCAL_INSTANCE_TYPE = "local"
"""The type of this machine in resourceconfig.json, as the SDK's local mode names it.

The requested type would promise a GPU that this machine may lack.
"""
INSTANCE_GROUP = "homogeneousCluster"


@dataclass(frozen=True)
class Host:
    """One machine of a job: its name, the sorted names of all, and the port where they meet."""

    name: str
    names: Sequence[str]
    port: int | None = None

    def resource_config(self) -> dict[str, Json]:
        """Return the content of its resourceconfig.json.

        Source: SageMaker developer guide, "Distributed training configuration".
        """
        names: list[Json] = list(self.names)
        group: Json = {
            "instance_group_name": INSTANCE_GROUP,
            "instance_type": LOCAL_INSTANCE_TYPE,
            "hosts": names,
        }
        return {
            "current_host": self.name,
            "current_instance_type": LOCAL_INSTANCE_TYPE,
            "current_group_name": INSTANCE_GROUP,
            "hosts": names,
            "instance_groups": [group],
            "network_interface_name": _loopback_interface(),
        }


def _loopback_interface() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


class Container:
    """A folder in place of /opt/ml, filled from S3, and a process.

    `on_line` gets each line that the process prints. `python` is an interpreter of the environment
    that is the image; None is this one.
    """

    def __init__(
        self,
        request: Parameters,
        root: Path,
        s3: BaseClient,
        on_line: Callable[[str], None],
        host: Host,
        python: Path | None = None,
    ) -> None:
        self.request = request
        self.host = host
        self.python = python or Path(sys.executable)
        self.has_own_environment = python is not None
        self.root = root
        self.s3 = s3
        self.on_line = on_line
        self._uploaded: dict[str, tuple[int, int]] = {}
        self._process: subprocess.Popen[str] | None = None
        self._stop_requested = threading.Event()

    def download_inputs(self) -> None:
        """Download every channel, and earlier checkpoints.

        Raises ServiceError for other code than cloudft's, and ClientError of S3.
        """
        for channel in self.request.get("InputDataConfig", ()):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._download(uri, self.root / "input" / "data" / channel["ChannelName"])
        self._write_config_files()
        checkpoints = self.request.get("CheckpointConfig")
        if checkpoints:
            self._download(checkpoints["S3Uri"], self._checkpoints_folder)
            # What came from S3 need not go back there.
            self._uploaded = {name: stamp for name, _, stamp in self._checkpoint_files()}
        require_cloudft_code(self.root)

    def _write_config_files(self) -> None:
        """Write the files in /opt/ml/input/config, from which a container learns about its job."""
        config = self.root / "input" / "config"
        config.mkdir(parents=True, exist_ok=True)
        channels = {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", "File"),
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": "None",
            }
            for channel in self.request.get("InputDataConfig", ())
        }
        for name, content in (
            ("hyperparameters", self.request.get("HyperParameters", {})),
            ("inputdataconfig", channels),
            ("resourceconfig", self.host.resource_config()),
        ):
            (config / f"{name}.json").write_bytes(orjson.dumps(content))

    @property
    def _checkpoints_folder(self) -> Path:
        return self.root / "checkpoints"

    def _download(self, uri: str, to: Path) -> None:
        to.mkdir(parents=True, exist_ok=True)
        bucket, prefix = split_prefix(uri)
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in (item for page in pages for item in page.get("Contents", ())):
            path = to / item["Key"].removeprefix(prefix)
            # A key with `..` in it would be written outside of the folder.
            if to.resolve() not in path.resolve().parents:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file(bucket, item["Key"], str(path))

    def run(self, deadline: float) -> int:
        """Run the process and return its exit status; upload checkpoints meanwhile.

        Past `deadline` (of time.monotonic) it gets a SIGTERM.
        """
        # The container's entrypoint and arguments, with the folder in place of /opt/ml.
        command = [
            *trainer_archive.CONTAINER_ENTRYPOINT,
            *trainer_archive.container_arguments(str(self.root)),
        ]
        self._process = subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that `kill` reaches what it starts, too
        )
        reader = threading.Thread(target=self._forward_output, daemon=True)
        reader.start()
        # A stop that came before the process did is passed on in the first round.
        stopped_at: float | None = None
        while self._process.poll() is None:
            if stopped_at is None and (
                self._stop_requested.is_set() or time.monotonic() > deadline
            ):
                stopped_at = time.monotonic()
                self.stop()
            if stopped_at is not None and time.monotonic() - stopped_at > STOP_TIMEOUT_S:
                self.kill()
            self.upload_checkpoints()
            time.sleep(CHECKPOINT_UPLOAD_INTERVAL_S)
        reader.join(10)
        self.upload_checkpoints()
        return self._process.wait()

    def _forward_output(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self.on_line(line.rstrip("\n"))

    def stop(self) -> None:
        """Ask the process to stop, as SageMaker does: by SIGTERM."""
        self._stop_requested.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process, with all that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        """Return the process's variables: none of the request's, for one can be code (BASH_ENV)."""
        path = f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        names = (
            INHERITED_VARIABLES
            if self.has_own_environment
            else (*INHERITED_VARIABLES, "PYTHONPATH")
        )
        kept = {name: os.environ[name] for name in names if name in os.environ}
        name = self.request["TrainingJobName"]
        own = {"PATH": path, "TRAINING_JOB_NAME": name, "PIP_NO_INDEX": "1"}
        # All hosts share this machine: jobs at the same time must not meet at one port.
        rendezvous = {"MASTER_PORT": str(self.host.port)} if self.host.port else {}
        return kept | IMAGE_ENVIRONMENT | own | rendezvous

    def upload_checkpoints(self) -> None:
        """Upload new and changed checkpoint files to S3."""
        config = self.request.get("CheckpointConfig")
        if not config:
            return
        bucket, prefix = split_prefix(config["S3Uri"])
        for name, path, stamp in self._checkpoint_files():
            if self._uploaded.get(name) != stamp:
                with contextlib.suppress(FileNotFoundError):  # replaced by a newer checkpoint
                    self.s3.put_object(Bucket=bucket, Key=prefix + name, Body=path.read_bytes())
                    self._uploaded[name] = stamp

    def _checkpoint_files(self) -> Iterator[tuple[str, Path, tuple[int, int]]]:
        """Yield the name and path of each file, and its size and time of modification."""
        for path in sorted(self._checkpoints_folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if path.is_file():
                    name = path.relative_to(self._checkpoints_folder).as_posix()
                    yield name, path, (status.st_size, status.st_mtime_ns)

    def failure_reason(self) -> str:
        """Return the job's FailureReason, from the file that the container left."""
        path = self.root / "output" / "failure"
        reason = path.read_text(encoding="utf-8") if path.is_file() else ""
        return f"AlgorithmError: {reason or 'the container left no reason'}"

    def upload_model(self, name: str) -> str:
        """Upload the model to S3 as model.tar.gz and return its URI."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in sorted((self.root / "model").glob("*")):
                archive.add(path, path.name)
        return upload_model_archive(self.s3, self.request, name, packed.getvalue())

    def remove(self) -> None:
        """Remove the folder; kill the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
            self._process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


def require_readable_channels(s3: BaseClient, request: Parameters) -> None:
    """Raise ClientError of S3 unless each channel can be listed and each object read.

    Nothing is downloaded: for simulated jobs.
    """
    for channel in request.get("InputDataConfig", ()):
        bucket, prefix = split_prefix(channel["DataSource"]["S3DataSource"]["S3Uri"])
        objects = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        for item in objects:
            s3.head_object(Bucket=bucket, Key=item["Key"])


def upload_model_archive(s3: BaseClient, request: Parameters, name: str, content: bytes) -> str:
    """Upload a job's model.tar.gz to where SageMaker puts it, and return its URI."""
    bucket, prefix = split_prefix(request["OutputDataConfig"]["S3OutputPath"])
    key = f"{prefix}{name}/output/model.tar.gz"
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    return f"s3://{bucket}/{key}"


def require_cloudft_command(request: Parameters) -> None:
    """Raise ServiceError (ValidationException) unless a job's command is the trainer's."""
    specification = request.get("AlgorithmSpecification", {})
    own = [trainer_archive.CONTAINER_ENTRYPOINT, trainer_archive.container_arguments(OPT_ML)]
    command = [specification.get(name) for name in ("ContainerEntrypoint", "ContainerArguments")]
    if command != own:
        message = "This endpoint runs cloudft's own trainer alone, not the code of other images."
        raise ServiceError("ValidationException", message)


def require_cloudft_code(root: Path) -> None:
    """Raise ServiceError (ValidationException) unless the code is cloudft's trainer, by digest."""
    path = root / "input" / "data" / "code" / trainer_archive.ARCHIVE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != trainer_archive.build_archive().sha256:
        message = "The channel code does not hold the trainer of this cloudft."
        raise ServiceError("ValidationException", message)
