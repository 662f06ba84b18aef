"""Run the machines of one training job: a container each, all on this machine, over loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.endpoint.protocols.messages import Parameters
from cloudft.endpoint.sagemaker.container import Container, Host

if TYPE_CHECKING:
    from botocore.client import BaseClient

FAILURE_GRACE_S = 10.0
"""How long the other containers have, once one has failed, to notice it; then they are killed."""
POLL_S = 0.1
FIRST_HOST = "127.0.0.1"
"""The name of the first host, by which the others reach it; on SageMaker it is algo-1."""


class Cluster:
    """The containers of a training job, as many as its request has instances.

    They work in folders below `root`. `create_log` gets the number of a host, from 1, and returns
    the function that gets each line that the host prints.
    """

    def __init__(
        self,
        request: Parameters,
        root: Path,
        s3: BaseClient,
        create_log: Callable[[int], Callable[[str], None]],
        python: Path | None = None,
    ) -> None:
        count = int(request["ResourceConfig"].get("InstanceCount", 1))
        names = [FIRST_HOST, *(f"algo-{number}" for number in range(2, count + 1))]
        port = _free_port() if count > 1 else None
        self.containers = [
            Container(
                request,
                root / name,
                s3,
                create_log(number),
                Host(name, sorted(names), port),
                python,
            )
            for number, name in enumerate(names, start=1)
        ]
        self._failed: Container | None = None
        self._errors: list[BaseException] = []

    def download_inputs(self) -> None:
        """Download every host's input. Raises ServiceError, and ClientError of S3."""
        for container in self.containers:
            container.download_inputs()

    def run(self, deadline: float) -> int:
        """Run all containers to their ends; return an exit status that is not 0, else 0.

        Past `deadline` (of time.monotonic) they get a SIGTERM.
        """
        codes: dict[int, int] = {}

        def run_container(number: int, container: Container) -> None:
            try:
                codes[number] = container.run(deadline)
            except BaseException as error:  # raised again below, in the job's own thread
                self._errors.append(error)
                codes[number] = 1
            if codes[number] != 0 and self._failed is None:
                self._failed = container

        threads = [
            threading.Thread(target=run_container, args=pair, daemon=True)
            for pair in enumerate(self.containers)
        ]
        for thread in threads:
            thread.start()
        self._wait(threads)
        if self._errors:
            raise self._errors[0]
        return next((code for code in codes.values() if code), 0)

    def _wait(self, threads: list[threading.Thread]) -> None:
        """Wait for all; kill the others FAILURE_GRACE_S after one has failed.

        The trainer's processes wait for each other: without the failed one they may wait forever.
        """
        deadline: float | None = None
        while any(thread.is_alive() for thread in threads):
            if self._failed is not None and deadline is None:
                deadline = time.monotonic() + FAILURE_GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                self.kill()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ask all containers to stop."""
        for container in self.containers:
            container.stop()

    def kill(self) -> None:
        """Kill all containers, with the processes that they started."""
        for container in self.containers:
            container.kill()

    def failure_reason(self) -> str:
        """Return the reason that the container left which failed first."""
        return (self._failed or self.containers[0]).failure_reason()

    def upload_model(self, name: str) -> str:
        """Upload the first host's model to S3 and return its URI. The other hosts have none."""
        return self.containers[0].upload_model(name)

    def remove(self) -> None:
        """Remove the folders of all containers; kill what still runs."""
        for container in self.containers:
            container.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((FIRST_HOST, 0))
        return int(probe.getsockname()[1])
