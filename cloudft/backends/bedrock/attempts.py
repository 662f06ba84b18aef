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

from cloudft.documents import decode
from cloudft.files import as_store_error, private_folder, write_whole

VERSION = 1
VARYING = ("clientRequestToken", "tags")
"""What differs from one attempt at the same thing to the next."""


@dataclass(frozen=True)
class Attempt:
    """A creation that was begun. `arn` is what AWS answered, None before it did."""

    operation: str
    parameters: dict[str, Any]
    arn: str | None = None

    def makes(self, call: Mapping[str, Any]) -> bool:
        """Return whether this is an attempt at what `call` makes."""
        return self.operation == call["operation"] and _fixed(self.parameters) == _fixed(
            call["parameters"]
        )


def _fixed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key not in VARYING}


class Attempts:
    """The attempts of one home, by the name of what they make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def unanswered(self, name: str, call: Mapping[str, Any]) -> Attempt | None:
        """Return the attempt at `call` that was cut off before its answer, if there is one.

        Raise BadDocument for a damaged file.
        """
        path = self._path(name)
        with as_store_error(f"what was begun of {name} can't be read", path):
            content = path.read_bytes() if path.exists() else None
        if content is None:
            return None
        found = decode(content, Attempt, file=path, versions=(VERSION,))
        return found if found.arn is None and found.makes(call) else None

    def begin(self, name: str, call: Mapping[str, Any]) -> Attempt:
        """Write down that `call` is about to be sent. Raise StoreError."""
        attempt = Attempt(call["operation"], dict(call["parameters"]))
        self._write(name, attempt)
        return attempt

    def answered(self, name: str, attempt: Attempt, arn: str) -> None:
        """Write down what AWS made of it. Raise StoreError."""
        self._write(name, Attempt(attempt.operation, attempt.parameters, arn))

    def forget(self, name: str) -> None:
        """Remove what was written down: the thing is gone, and its token is used up."""
        path = self._path(name)
        with as_store_error(f"what was begun of {name} can't be removed", path):
            path.unlink(missing_ok=True)

    def _write(self, name: str, attempt: Attempt) -> None:
        path = self._path(name)
        content = {
            "version": VERSION,
            "operation": attempt.operation,
            "parameters": attempt.parameters,
            "arn": attempt.arn,
        }
        with as_store_error(f"what is begun of {name} can't be written down", path):
            private_folder(path.parent)
            write_whole(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
