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

from cloudft.backends.sagemaker import source
from cloudft.endpoint.places import split
from cloudft.endpoint.wire import WireError

ROOT = "/opt/ml"
SYNC_S = 0.5
"""How often checkpoints go to S3."""
PATIENCE_S = 120.0
"""How long a container may take to stop (SageMaker developer guide, StopTrainingJob)."""
KEPT = ("HOME", "LANG", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE")
"""What of this process's environment a container sees."""
IMAGE = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "UTF-8", "LC_ALL": "C.UTF-8"}
"""What the stock image's own environment says to Python (its Dockerfile: see requirements.txt)."""
HERE = "local"
"""The type of this machine in resourceconfig.json, as the SDK's local mode calls it: it has not the
GPU of the type that was ordered."""
GROUP = "homogeneousCluster"


@dataclass(frozen=True)
class Host:
    """One machine of a job: its name among all names, which are sorted. `port`: they meet there."""

    name: str
    names: Sequence[str]
    port: int | None = None

    def resources(self) -> dict[str, Any]:
        """Return its resourceconfig.json (SageMaker developer guide, "Distributed training
        configuration").
        """
        names = list(self.names)
        group = {"instance_group_name": GROUP, "instance_type": HERE, "hosts": names}
        return {
            "current_host": self.name,
            "current_instance_type": HERE,
            "current_group_name": GROUP,
            "hosts": names,
            "instance_groups": [group],
            "network_interface_name": _loopback(),
        }


def _loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


class Container:
    """A folder for /opt/ml, filled from S3, and a process. `tell` gets each line that it prints."""

    def __init__(
        self,
        request: Mapping[str, Any],
        root: Path,
        s3: Any,
        tell: Callable[[str], None],
        host: Host,
        python: Path | None = None,
    ) -> None:
        self.request = request
        self.host = host
        self.python = python or Path(sys.executable)
        self.clean = python is not None
        self.root = root
        self.s3 = s3
        self.tell = tell
        self._sent: dict[str, tuple[int, int]] = {}
        self._process: subprocess.Popen[str] | None = None
        self._asked = threading.Event()

    def fill(self) -> None:
        """Bring every channel and what was kept of checkpoints. Raises WireError, ClientError."""
        for channel in self.request.get("InputDataConfig", ()):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._fetch(uri, self.root / "input" / "data" / channel["ChannelName"])
        self._configure()
        checkpoints = self.request.get("CheckpointConfig")
        if checkpoints:
            self._fetch(checkpoints["S3Uri"], self._checkpoints)
            self._sent = {name: mark for name, _, mark in self._kept()}
        require_ours(self.root)

    def _configure(self) -> None:
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
            ("resourceconfig", self.host.resources()),
        ):
            (config / f"{name}.json").write_bytes(orjson.dumps(content))

    @property
    def _checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def _fetch(self, uri: str, to: Path) -> None:
        to.mkdir(parents=True, exist_ok=True)
        bucket, prefix = split(uri)
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in (item for page in pages for item in page.get("Contents", ())):
            path = to / item["Key"].removeprefix(prefix)
            if to.resolve() not in path.resolve().parents:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file(bucket, item["Key"], str(path))

    def run(self, deadline: float) -> int:
        """The exit status; checkpoints go to S3 meanwhile. Past `deadline` it is asked to stop."""
        command = [*source.SHELL, *source.command(str(self.root))]
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
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        if self._asked.is_set():
            self.stop()
        asked: float | None = None
        while self._process.poll() is None:
            if asked is None and (self._asked.is_set() or time.monotonic() > deadline):
                asked = time.monotonic()
                self.stop()
            if asked is not None and time.monotonic() - asked > PATIENCE_S:
                self.kill()
            self.sync()
            time.sleep(SYNC_S)
        reader.join(10)
        self.sync()
        return self._process.wait()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self.tell(line.rstrip("\n"))

    def stop(self) -> None:
        """Ask it to end."""
        self._asked.set()
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
        names = KEPT if self.clean else (*KEPT, "PYTHONPATH")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        name = self.request["TrainingJobName"]
        ours = {"PATH": path, "TRAINING_JOB_NAME": name, "PIP_NO_INDEX": "1"}
        meeting = {"MASTER_PORT": str(self.host.port)} if self.host.port else {}
        return kept | IMAGE | ours | meeting

    def sync(self) -> None:
        """Copy what is new among the checkpoints to S3."""
        config = self.request.get("CheckpointConfig")
        if not config:
            return
        bucket, prefix = split(config["S3Uri"])
        for name, path, mark in self._kept():
            if self._sent.get(name) != mark:
                with contextlib.suppress(FileNotFoundError):  # it gave way to a newer one
                    self.s3.put_object(Bucket=bucket, Key=prefix + name, Body=path.read_bytes())
                    self._sent[name] = mark

    def _kept(self) -> Iterator[tuple[str, Path, tuple[int, int]]]:
        """Each file of the checkpoints: its name, itself, and what changes when it is written."""
        for path in sorted(self._checkpoints.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if path.is_file():
                    name = path.relative_to(self._checkpoints).as_posix()
                    yield name, path, (facts.st_size, facts.st_mtime_ns)

    def failure(self) -> str:
        """What the container left as its reason."""
        path = self.root / "output" / "failure"
        said = path.read_text(encoding="utf-8") if path.is_file() else ""
        return f"AlgorithmError: {said or 'the container left no reason'}"

    def publish(self, name: str) -> str:
        """Send the model to S3 as model.tar.gz; its URI."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in sorted((self.root / "model").glob("*")):
                archive.add(path, path.name)
        return put_model(self.s3, self.request, name, packed.getvalue())

    def remove(self) -> None:
        """Leave nothing here, whatever broke off."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
            self._process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


def look_at_channels(s3: Any, request: Mapping[str, Any]) -> None:
    """Ask S3 for what `fill` would bring, and bring nothing. Raises ClientError."""
    for channel in request.get("InputDataConfig", ()):
        bucket, prefix = split(channel["DataSource"]["S3DataSource"]["S3Uri"])
        found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        for item in found:
            s3.head_object(Bucket=bucket, Key=item["Key"])


def put_model(s3: Any, request: Mapping[str, Any], name: str, content: bytes) -> str:
    """Write a job's model.tar.gz where SageMaker does; its URI."""
    bucket, prefix = split(request["OutputDataConfig"]["S3OutputPath"])
    key = f"{prefix}{name}/output/model.tar.gz"
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    return f"s3://{bucket}/{key}"


def refuse_others(request: Mapping[str, Any]) -> None:
    """Raise ValidationException for a job that is not cloudft's: no container is run here."""
    wanted = request.get("AlgorithmSpecification", {})
    ours = [source.SHELL, source.command(ROOT)]
    if [wanted.get("ContainerEntrypoint"), wanted.get("ContainerArguments")] != ours:
        what = "This endpoint runs cloudft's own trainer alone, not the code of other images."
        raise WireError("ValidationException", what)


def require_ours(root: Path) -> None:
    """Raise ValidationException for other code than cloudft packs."""
    path = root / "input" / "data" / "code" / source.ARCHIVE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != source.pack().sha256:
        what = "The channel code does not hold the trainer of this cloudft."
        raise WireError("ValidationException", what)
