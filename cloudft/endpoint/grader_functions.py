"""Lambda functions that grade: those that `--grader ARN=FILE` names, and those that moto keeps.

They run by the grader program of the trainer, so that a job, an Invoke and a training on this
machine give the same rewards. moto itself would need Docker.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cloudft.backends.aws_base.grader_package import (
    DIGEST_TAG,
    HANDLERS,
    pack_grader,
)
from cloudft.backends.local.trainer_program import run_trainer_program
from cloudft.endpoint.moto.function_code import find_stored_function
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import ACCOUNT
from cloudft.errors import CloudftError
from cloudft.spec.grader_file import HANDLER

PROGRAM = "local_backend.grading.invoke"
DEFAULT_TIMEOUT_S, DEFAULT_MEMORY_MB = 30, 512
"""Limits of a function that --grader names: the defaults of the job file."""
PLATFORMS = {handler: platform for platform, handler in HANDLERS.items()}
FUNCTION_ARN = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[\w.-]+(:(\$LATEST|[\w-]+))?"
)
"""Source: Bedrock API reference, LambdaGraderConfig."""


@dataclass(frozen=True)
class GraderFunction:
    """A function that this machine can run: its file, the function in it, and its limits.

    `platform` is whose event and reply it has: a key of grader_package.HANDLERS.
    """

    arn: str
    path: Path
    handler: str
    timeout_seconds: int
    memory_mb: int
    platform: str = "bedrock"


class GraderFunctions:
    """Operations of Lambda on functions that this machine runs, and what jobs are graded by.

    `named` maps ARNs to files. The code of moto's functions is unpacked below `folder`.
    """

    def __init__(self, named: Mapping[str, Path], region: str, folder: Path) -> None:
        self._named = dict(named)
        self._region = region
        self._folder = folder
        self._lock = threading.Lock()

    def find(self, name: str) -> GraderFunction | None:
        """Return the function with a name or an ARN; None if there is none.

        Raise ServiceError for one that this machine can't run.
        """
        arn = self._arn(name)
        path = self._named.get(arn)
        if path is not None:
            limits = (DEFAULT_TIMEOUT_S, DEFAULT_MEMORY_MB)
            return GraderFunction(arn, path, HANDLER, *limits)
        stored = find_stored_function(arn)
        if stored is None:
            return None
        # The adapter of a package for SageMaker is the trainer's own: only its name is needed.
        platform = PLATFORMS.get(stored.handler, "bedrock")
        own = stored.handler if platform == "bedrock" else HANDLERS["bedrock"]
        module, _, handler = own.rpartition(".")
        path = self._unpack(stored.archive) / f"{module.replace('.', '/')}.py"
        if not path.is_file():
            message = f"The function {arn} has no file {path.name} for its handler {stored.handler}"
            raise ServiceError("InvalidParameterValueException", message)
        limits = (stored.timeout_seconds, stored.memory_mb)
        return GraderFunction(arn, path, handler, *limits, platform)

    def require_grader(self, arn: str) -> GraderFunction:
        """Return the function that grades a job's answers.

        Raise ServiceError where there is none, or none that the trainer can call.
        """
        function = self.find(arn)
        if function is None or function.handler != HANDLER or function.platform != "bedrock":
            message = (
                f"The grader function {arn} does not exist, or its handler is not {HANDLER}. Name"
                " its file with `cloudft endpoint --grader ARN=FILE`, or create it here."
            )
            raise ServiceError("ValidationException", message)
        return function

    def _arn(self, name: str) -> str:
        if name.startswith("arn:"):
            return name
        own = name.rpartition("function:")[2]
        return f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{own}"

    def _unpack(self, archive: bytes) -> Path:
        """Return the folder with the files of an archive, unpacked once by its digest."""
        folder = self._folder / hashlib.sha256(archive).hexdigest()
        with self._lock:
            if folder.exists():
                return folder
            part = folder.with_suffix(".part")
            part.mkdir(parents=True, exist_ok=True)
            try:
                with zipfile.ZipFile(io.BytesIO(archive)) as files:
                    files.extractall(part)  # it keeps names within the folder
            except zipfile.BadZipFile as error:
                message = "Could not unzip uploaded file. Please check your file, then try again."
                raise ServiceError("InvalidParameterValueException", message) from error
            part.rename(folder)
        return folder

    def offers(self, operation: str, name: str) -> bool:
        """Return whether an operation is performed here: moto does all else."""
        return operation == "Invoke" or self._arn(name) in self._named

    def get_function(self, request: Mapping[str, Any]) -> Response:
        """Return a function of --grader, as if its file had been deployed by cloudft."""
        function = self.find(request["FunctionName"])
        assert function is not None
        package = pack_grader(function.path.read_bytes())
        configuration = {
            "FunctionName": function.arn.rpartition(":function:")[2],
            "FunctionArn": function.arn,
            "Handler": package.handler,
            "CodeSha256": package.code_sha256,
            "CodeSize": len(package.content),
            "Timeout": function.timeout_seconds,
            "MemorySize": function.memory_mb,
            "LastModified": datetime.now(timezone.utc).isoformat(),
            "State": "Active",
            "LastUpdateStatus": "Successful",
        }
        tags = {DIGEST_TAG: package.grader_sha256}
        return {"Configuration": configuration, "Tags": tags}

    def invoke(self, request: Mapping[str, Any]) -> Response:
        """Run a function on this machine and return what it returns; only RequestResponse."""
        function = self.find(request["FunctionName"])
        if function is None:
            message = f"Function not found: {self._arn(request['FunctionName'])}"
            raise ServiceError("ResourceNotFoundException", message)
        kind = request.get("InvocationType", "RequestResponse")
        if kind != "RequestResponse":
            message = f"InvocationType {kind} is not offered by this endpoint"
            raise ServiceError("InvalidParameterValueException", message)
        try:
            event = json.loads(request.get("Payload") or b"{}")
        except ValueError as error:
            message = "Could not parse request body into json"
            raise ServiceError("InvalidRequestContentException", message) from error
        return _to_invoke_response(run_function(function, event))


def run_function(function: GraderFunction, event: object) -> Mapping[str, Any]:
    """Return `{"value"}` or `{"failure": {"type", "message"}}` of one call."""
    request = {
        "path": str(function.path),
        "handler": function.handler,
        "timeoutSeconds": function.timeout_seconds,
        "memoryMb": function.memory_mb,
        "platform": function.platform,
        "event": event,
    }
    try:
        [reply] = run_trainer_program([PROGRAM], os.environ, request=request)
    except CloudftError as error:
        raise ServiceError("ServiceException", error.message) from error
    return reply


def _to_invoke_response(reply: Mapping[str, Any]) -> Response:
    shared = {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    failure = reply.get("failure")
    if failure is None:
        return {**shared, "Payload": json.dumps(reply["value"]).encode()}
    payload = {"errorMessage": failure["message"], "errorType": failure["type"]}
    return {**shared, "FunctionError": "Unhandled", "Payload": json.dumps(payload).encode()}
