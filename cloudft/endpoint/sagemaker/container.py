"""One training job of SageMaker as its container would run it, on this machine.

No image is pulled: the command is the job's own, /opt/ml being a folder here, and it is run only
when it is cloudft's trainer as cloudft packs it. Other code is refused. What it finds is what the
platform gives a container whose entrypoint is overridden: files, and few variables; the image is
the Python environment that is named, or this one.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cloudft.backends.sagemaker import trainer_archive
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.s3_uri import split_s3_uri

OPT_ML = "/opt/ml"
CHECKPOINT_UPLOAD_INTERVAL_S = 0.5
"""How often checkpoints go to S3."""
STOP_TIMEOUT_S = 120.0
"""How long a container may take to stop (SageMaker developer guide, StopTrainingJob)."""
INHERITED_VARIABLES = ("HOME", "LANG", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE")
"""What of this process's environment a container sees."""
IMAGE_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "UTF-8", "LC_ALL": "C.UTF-8"}
"""What the stock image's own environment says to Python (its Dockerfile: see requirements.txt)."""
LOCAL_INSTANCE_TYPE = "local"
"""The type of this machine in resourceconfig.json, as the SDK's local mode calls it: it has not the
GPU of the type that was ordered."""
INSTANCE_GROUP = "homogeneousCluster"


@dataclass(frozen=True)
class Host:
    """One machine of a job: its name among all names, which are sorted. `port`: they meet there."""

    name: str
    names: Sequence[str]
    port: int | None = None

    def resource_config(self) -> dict[str, Any]:
        """Return its resourceconfig.json (SageMaker developer guide, "Distributed training
        configuration").
        """
        names = list(self.names)
        group = {
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
    """A folder for /opt/ml, filled from S3, and a process. `tell` gets each line that it prints."""

    def __init__(
        self,
        request: Mapping[str, Any],
        root: Path,
        s3: Any,
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
        """Bring every channel and what was kept of checkpoints. Raises WireError, ClientError."""
        for channel in self.request.get("InputDataConfig", ()):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._download(uri, self.root / "input" / "data" / channel["ChannelName"])
        self._write_config_files()
        checkpoints = self.request.get("CheckpointConfig")
        if checkpoints:
            self._download(checkpoints["S3Uri"], self._checkpoints_folder)
            self._uploaded = {name: mark for name, _, mark in self._checkpoint_files()}
        require_cloudft_code(self.root)

    def _write_config_files(self) -> None:
        """Write the files that tell a container of its job."""
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
        bucket, prefix = split_s3_uri(uri)
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in (item for page in pages for item in page.get("Contents", ())):
            path = to / item["Key"].removeprefix(prefix)
            if to.resolve() not in path.resolve().parents:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file(bucket, item["Key"], str(path))

    def run(self, deadline: float) -> int:
        """The exit status; checkpoints go to S3 meanwhile. Past `deadline` it is asked to stop."""
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
            start_new_session=True,
        )
        reader = threading.Thread(target=self._forward_output, daemon=True)
        reader.start()
        if self._stop_requested.is_set():
            self.stop()
        asked: float | None = None
        while self._process.poll() is None:
            if asked is None and (self._stop_requested.is_set() or time.monotonic() > deadline):
                asked = time.monotonic()
                self.stop()
            if asked is not None and time.monotonic() - asked > STOP_TIMEOUT_S:
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
        """Ask it to end."""
        self._stop_requested.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, with all that it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        """Nothing of the request's: a variable can be code (BASH_ENV)."""
        path = f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        names = (
            INHERITED_VARIABLES
            if self.has_own_environment
            else (*INHERITED_VARIABLES, "PYTHONPATH")
        )
        kept = {name: os.environ[name] for name in names if name in os.environ}
        name = self.request["TrainingJobName"]
        ours = {"PATH": path, "TRAINING_JOB_NAME": name, "PIP_NO_INDEX": "1"}
        meeting = {"MASTER_PORT": str(self.host.port)} if self.host.port else {}
        return kept | IMAGE_ENVIRONMENT | ours | meeting

    def upload_checkpoints(self) -> None:
        """Copy what is new among the checkpoints to S3."""
        config = self.request.get("CheckpointConfig")
        if not config:
            return
        bucket, prefix = split_s3_uri(config["S3Uri"])
        for name, path, mark in self._checkpoint_files():
            if self._uploaded.get(name) != mark:
                with contextlib.suppress(FileNotFoundError):  # it gave way to a newer one
                    self.s3.put_object(Bucket=bucket, Key=prefix + name, Body=path.read_bytes())
                    self._uploaded[name] = mark

    def _checkpoint_files(self) -> Iterator[tuple[str, Path, tuple[int, int]]]:
        """Each file of the checkpoints: its name, itself, and what changes when it is written."""
        for path in sorted(self._checkpoints_folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if path.is_file():
                    name = path.relative_to(self._checkpoints_folder).as_posix()
                    yield name, path, (facts.st_size, facts.st_mtime_ns)

    def failure_reason(self) -> str:
        """What the container left as its reason."""
        path = self.root / "output" / "failure"
        said = path.read_text(encoding="utf-8") if path.is_file() else ""
        return f"AlgorithmError: {said or 'the container left no reason'}"

    def upload_model(self, name: str) -> str:
        """Send the model to S3 as model.tar.gz; its URI."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in sorted((self.root / "model").glob("*")):
                archive.add(path, path.name)
        return upload_model_archive(self.s3, self.request, name, packed.getvalue())

    def remove(self) -> None:
        """Leave nothing here, whatever broke off."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
            self._process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


def require_readable_channels(s3: Any, request: Mapping[str, Any]) -> None:
    """Ask S3 for what `fill` would bring, and bring nothing. Raises ClientError."""
    for channel in request.get("InputDataConfig", ()):
        bucket, prefix = split_s3_uri(channel["DataSource"]["S3DataSource"]["S3Uri"])
        found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        for item in found:
            s3.head_object(Bucket=bucket, Key=item["Key"])


def upload_model_archive(s3: Any, request: Mapping[str, Any], name: str, content: bytes) -> str:
    """Write a job's model.tar.gz where SageMaker does; its URI."""
    bucket, prefix = split_s3_uri(request["OutputDataConfig"]["S3OutputPath"])
    key = f"{prefix}{name}/output/model.tar.gz"
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    return f"s3://{bucket}/{key}"


def require_cloudft_command(request: Mapping[str, Any]) -> None:
    """Raise ValidationException for a job that is not cloudft's: no container is run here."""
    wanted = request.get("AlgorithmSpecification", {})
    ours = [trainer_archive.CONTAINER_ENTRYPOINT, trainer_archive.container_arguments(OPT_ML)]
    if [wanted.get("ContainerEntrypoint"), wanted.get("ContainerArguments")] != ours:
        what = "This endpoint runs cloudft's own trainer alone, not the code of other images."
        raise ServiceError("ValidationException", what)


def require_cloudft_code(root: Path) -> None:
    """Raise ValidationException for other code than cloudft packs."""
    path = root / "input" / "data" / "code" / trainer_archive.ARCHIVE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != trainer_archive.build_archive().sha256:
        what = "The channel code does not hold the trainer of this cloudft."
        raise ServiceError("ValidationException", what)
