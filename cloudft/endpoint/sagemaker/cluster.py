"""The machines of one training job: a container each, all on this machine, over loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudft.endpoint.sagemaker.container import Container, Host

FAILURE_GRACE_S = 10.0
"""How long the other containers may take to notice that one has failed; then they are ended."""
POLL_S = 0.1
FIRST_HOST = "127.0.0.1"
"""The name of the first host: the others reach it. On SageMaker it is algo-1."""


class Cluster:
    """As many containers as the request has instances. `logs` makes what takes a host's lines."""

    def __init__(
        self,
        request: Mapping[str, Any],
        root: Path,
        s3: Any,
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
        """Bring every host its input. Raises WireError, ClientError."""
        for container in self.containers:
            container.download_inputs()

    def run(self, deadline: float) -> int:
        """Run all to their ends; return the first exit status that is not 0, else 0."""
        codes: dict[int, int] = {}

        def run(number: int, container: Container) -> None:
            try:
                codes[number] = container.run(deadline)
            except BaseException as error:  # raised again below, in the job's own thread
                self._errors.append(error)
                codes[number] = 1
            if codes[number] != 0 and self._failed is None:
                self._failed = container

        threads = [
            threading.Thread(target=run, args=pair, daemon=True)
            for pair in enumerate(self.containers)
        ]
        for thread in threads:
            thread.start()
        self._wait(threads)
        if self._errors:
            raise self._errors[0]
        return next((code for code in codes.values() if code), 0)

    def _wait(self, threads: list[threading.Thread]) -> None:
        """Wait for all; once one has failed the others are ended after GRACE_S."""
        deadline: float | None = None
        while any(thread.is_alive() for thread in threads):
            if self._failed is not None and deadline is None:
                deadline = time.monotonic() + FAILURE_GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                self.kill()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ask all to end."""
        for container in self.containers:
            container.stop()

    def kill(self) -> None:
        """End all, with what they have started."""
        for container in self.containers:
            container.kill()

    def failure_reason(self) -> str:
        """Return the reason that the container left which failed first."""
        return (self._failed or self.containers[0]).failure_reason()

    def upload_model(self, name: str) -> str:
        """Send the first host's model to S3; return its URI. The others leave none."""
        return self.containers[0].upload_model(name)

    def remove(self) -> None:
        """Leave nothing here."""
        for container in self.containers:
            container.remove()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((FIRST_HOST, 0))
        return int(free.getsockname()[1])
