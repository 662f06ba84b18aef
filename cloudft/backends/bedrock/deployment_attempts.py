"""Remember what is being made to serve a model: `CLOUDFT_HOME/servings/NAME.json`.

AWS remembers a client token longer than the thing that was made with it: the same token after a
removal gives the removed one, or an error. So each attempt has a token of its own. It is written
down, with the whole request, before the request is sent; a retry after a crash sends that request
again, and the name, which all attempts share, keeps two of them from standing at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cloudft.storage.atomic_files import as_store_error, atomic_write, make_private_folder
from cloudft.storage.documents import decode

VERSION = 1
PER_ATTEMPT_PARAMETERS = ("clientRequestToken", "tags")
"""What differs from one attempt at the same thing to the next."""


@dataclass(frozen=True)
class DeploymentAttempt:
    """A creation that was begun. `arn` is what AWS answered, None before it did."""

    operation: str
    parameters: dict[str, Any]
    arn: str | None = None

    def is_same_request(self, call: Mapping[str, Any]) -> bool:
        """Return whether this is an attempt at what `call` makes."""
        return self.operation == call["operation"] and _without_per_attempt(
            self.parameters
        ) == _without_per_attempt(call["parameters"])


def _without_per_attempt(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key not in PER_ATTEMPT_PARAMETERS}


class DeploymentAttempts:
    """The attempts of one home, by the name of what they make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_unanswered(self, name: str, call: Mapping[str, Any]) -> DeploymentAttempt | None:
        """Return the attempt at `call` that was cut off before its answer, if there is one.

        Raise BadDocument for a damaged file.
        """
        path = self._path(name)
        with as_store_error(f"what was begun of {name} can't be read", path):
            content = path.read_bytes() if path.exists() else None
        if content is None:
            return None
        found = decode(content, DeploymentAttempt, file=path, versions=(VERSION,))
        return found if found.arn is None and found.is_same_request(call) else None

    def record_request(self, name: str, call: Mapping[str, Any]) -> DeploymentAttempt:
        """Write down that `call` is about to be sent. Raise StoreError."""
        attempt = DeploymentAttempt(call["operation"], dict(call["parameters"]))
        self._write(name, attempt)
        return attempt

    def record_response(self, name: str, attempt: DeploymentAttempt, arn: str) -> None:
        """Write down what AWS made of it. Raise StoreError."""
        self._write(name, DeploymentAttempt(attempt.operation, attempt.parameters, arn))

    def delete(self, name: str) -> None:
        """Remove what was written down: the thing is gone, and its token is used up."""
        path = self._path(name)
        with as_store_error(f"what was begun of {name} can't be removed", path):
            path.unlink(missing_ok=True)

    def _write(self, name: str, attempt: DeploymentAttempt) -> None:
        path = self._path(name)
        content = {
            "version": VERSION,
            "operation": attempt.operation,
            "parameters": attempt.parameters,
            "arn": attempt.arn,
        }
        with as_store_error(f"what is begun of {name} can't be written down", path):
            make_private_folder(path.parent)
            atomic_write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
