"""Record each attempt to deploy a model, in `CLOUDFT_HOME/servings/NAME.json`.

AWS remembers a client token longer than the resource that was created with it: after a removal, the
same token returns the removed resource, or an error. So each attempt has a token of its own. The
whole request is recorded before it is sent, and a retry after a crash sends that request again. All
attempts share one name, so two of them can't exist at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cloudft.backends.resources import ServingCall
from cloudft.storage.atomic_files import as_store_error, atomic_write, make_private_folder
from cloudft.storage.documents import decode

VERSION = 1
PER_ATTEMPT_PARAMETERS = ("clientRequestToken", "tags")
"""Parameters that differ between attempts at the same deployment."""


@dataclass(frozen=True)
class DeploymentAttempt:
    """A creation that was started. `arn` is that of the response, None before it came."""

    operation: str
    parameters: dict[str, Any]
    arn: str | None = None

    def is_same_request(self, call: ServingCall) -> bool:
        """Return whether this attempt has the request of `call`, but for its own parameters."""
        return self.operation == call["operation"] and _without_per_attempt(
            self.parameters
        ) == _without_per_attempt(call["parameters"])


def _without_per_attempt(parameters: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in parameters.items() if key not in PER_ATTEMPT_PARAMETERS}


class DeploymentAttempts:
    """Attempts recorded in one folder, by the name of the resource that they create."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_unanswered(self, name: str, call: ServingCall) -> DeploymentAttempt | None:
        """Return the attempt at `call` that was interrupted before its response, if any.

        Raise BadDocument for a damaged file.
        """
        path = self._path(name)
        with as_store_error(f"the attempt to create {name} can't be read", path):
            content = path.read_bytes() if path.exists() else None
        if content is None:
            return None
        attempt = decode(content, DeploymentAttempt, file=path, versions=(VERSION,))
        return attempt if attempt.arn is None and attempt.is_same_request(call) else None

    def record_request(self, name: str, call: ServingCall) -> DeploymentAttempt:
        """Record that `call` is about to be sent. Raise StoreError."""
        attempt = DeploymentAttempt(call["operation"], dict(call["parameters"]))
        self._write(name, attempt)
        return attempt

    def record_response(self, name: str, attempt: DeploymentAttempt, arn: str) -> None:
        """Record the ARN of the response. Raise StoreError."""
        self._write(name, DeploymentAttempt(attempt.operation, attempt.parameters, arn))

    def delete(self, name: str) -> None:
        """Remove the record: the resource was deleted, and its token must not be used again."""
        path = self._path(name)
        with as_store_error(f"the attempt to create {name} can't be removed", path):
            path.unlink(missing_ok=True)

    def _write(self, name: str, attempt: DeploymentAttempt) -> None:
        # Atomic: a partly written record would lose the token of a request that was sent.
        path = self._path(name)
        content = {
            "version": VERSION,
            "operation": attempt.operation,
            "parameters": attempt.parameters,
            "arn": attempt.arn,
        }
        with as_store_error(f"the attempt to create {name} can't be written", path):
            make_private_folder(path.parent)
            atomic_write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
