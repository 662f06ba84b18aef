"""What moto was told, so that its state outlives the process: a journal that is replayed.

moto keeps everything in memory. Each request that may change something is written down before it is
handed on; when the endpoint starts again they are handed on once more, in their order.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

Environ = dict[str, Any]
FILE = "moto.jsonl"
SEED = 20_260_101
"""moto makes its ids by chance: a seed for each request makes the same ones at the replay, whatever
was asked in between."""
READS = {"GET", "HEAD", "OPTIONS"}
QUIET = ("Action=Get", "Action=List", "Action=Describe", "Action=Simulate")
"""How query requests begin that only read. EC2 makes its default network at whatever comes first:
all of its requests are kept."""
EC2 = "/ec2/aws4_request"
MACHINES = "AWSStepFunctions."
OF_MACHINES = {"CreateStateMachine", "DeleteStateMachine", "UpdateStateMachine"}
"""What is kept of Step Functions. An execution started once more would do its work once more."""
KEPT = {"REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI", "CONTENT_TYPE"}


def _to_keep(environ: Environ, body: bytes) -> bool:
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target.startswith(MACHINES):
        return target.removeprefix(MACHINES) in OF_MACHINES
    quiet = body.decode("latin-1").startswith(QUIET)
    return not quiet or EC2 in environ.get("HTTP_AUTHORIZATION", "")


class Journal:
    """A WSGI application around moto's. `folder` None: nothing is kept."""

    def __init__(self, moto: Callable[..., Any], folder: Path | None) -> None:
        self._moto = moto
        self._lock = threading.Lock()
        self._file = folder / FILE if folder else None
        self._count = 0
        if self._file is not None:
            for environ in self._written():
                self._replay(environ)

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Any:
        """Note the request, then let moto answer it."""
        if self._file is not None and environ["REQUEST_METHOD"] not in READS:
            size = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(size)
            environ["wsgi.input"] = io.BytesIO(body)
            if _to_keep(environ, body):
                self._note(environ, body)
        return self._moto(environ, start)

    def _note(self, environ: Environ, body: bytes) -> None:
        assert self._file is not None
        kept = {k: v for k, v in environ.items() if k in KEPT or k.startswith("HTTP_")}
        line = orjson.dumps({"environ": kept, "body": base64.b64encode(body).decode()})
        with self._lock, self._file.open("ab") as stream:
            stream.write(line + b"\n")
            self._seed()

    def _seed(self) -> None:
        """The next request's own chance."""
        from moto.moto_api._internal import mock_random

        self._count += 1
        mock_random.seed(SEED + self._count)

    def _written(self) -> Iterator[Environ]:
        """The requests of the journal. A last line that a kill tore is cut off."""
        assert self._file is not None
        if not self._file.exists():
            return
        content = self._file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._file.write_bytes(whole)
        for line in whole.splitlines():
            value = orjson.loads(line)
            body = base64.b64decode(value["body"])
            yield value["environ"] | {
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body),
            }

    def _replay(self, environ: Environ) -> None:
        from werkzeug.test import create_environ, run_wsgi_app

        self._seed()
        run_wsgi_app(self._moto, {**create_environ(), **environ}, buffered=True)
