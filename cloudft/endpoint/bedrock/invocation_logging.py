"""Invocation logging: its configuration, one for account and Region, and the logs in S3.

Layout and records are AWS's (user guide, "Monitor model invocation using CloudWatch Logs and Amazon
S3"): gzipped JSON lines below
PREFIX/AWSLogs/ACCOUNT/BedrockModelInvocationLogs/REGION/YYYY/MM/DD/HH, and bodies above 100 KB as
objects of their own. AWS gathers calls for some minutes; here each call
is an object, which is there before its answer. A CloudWatch configuration is kept, and nothing is
written to it.
"""

from __future__ import annotations

import base64
import gzip
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from cloudft.endpoint.bedrock.shapes import LoggingConfigurationRequest
from cloudft.endpoint.protocols.messages import Parameters, Response, ServiceError
from cloudft.endpoint.request_context import request_id
from cloudft.endpoint.state import ACCOUNT, State, now

if TYPE_CHECKING:
    from botocore.client import BaseClient

MAX_BODY_BYTES = 100 * 1024
"""Largest body within a record; the user guide says 100 KB."""
PERMISSION_CHECK = "amazon-bedrock-logs-permission-check"
"""Object by which AWS checks that it may write, when logging is configured."""
CALLER = f"arn:aws:iam::{ACCOUNT}:root"
"""The identity in the logs: the endpoint knows one account and no callers in it."""


@dataclass(frozen=True)
class LoggedCall:
    """A call of a model, with its answer. Bodies are JSON values; tokens are the stand-in's."""

    operation: str
    model_id: str
    metadata: Mapping[str, str] | None
    input_body: object
    output_body: object
    input_tokens: int
    output_tokens: int


class InvocationLogging:
    """Operations on the configuration, and the writing of logs by it.

    `s3` returns a client with all permissions. `warn` gets a sentence about logs that can't be
    written: the call itself has its answer.
    """

    def __init__(
        self, state: State, s3: Callable[[], BaseClient], warn: Callable[[str], object]
    ) -> None:
        self.state = state
        self.s3 = s3
        self.warn = warn

    def put_model_invocation_logging_configuration(
        self, request: LoggingConfigurationRequest
    ) -> Response:
        """Keep the configuration: from now on calls are logged to its S3 location.

        Raises ServiceError (ValidationException) where the bucket can't be written.
        """
        config = dict(request["loggingConfig"])
        s3_config = config.get("s3Config")
        if isinstance(s3_config, Mapping):
            key = f"{self._prefix(s3_config)}{PERMISSION_CHECK}"
            try:
                self.s3().put_object(Bucket=s3_config["bucketName"], Key=key, Body=b"")
            except Exception as error:
                raise ServiceError(
                    "ValidationException",
                    f"Failed to validate permissions for S3 bucket: {s3_config['bucketName']}."
                    " Verify the bucket policy is correct.",
                ) from error
        with self.state.lock:
            self.state.logging = config
            self.state.save()
        return {}

    def get_model_invocation_logging_configuration(self, request: Parameters) -> Response:
        """Return the configuration; nothing where there is none."""
        with self.state.lock:
            return {"loggingConfig": self.state.logging}

    def delete_model_invocation_logging_configuration(self, request: Parameters) -> Response:
        """Delete the configuration. Logs that were written stay."""
        with self.state.lock:
            self.state.logging = None
        return {}

    def log(self, call: LoggedCall) -> None:
        """Write a call to S3, where logging of texts is configured."""
        with self.state.lock:
            config = self.state.logging
        s3_config = (config or {}).get("s3Config")
        if config is None or not isinstance(s3_config, Mapping):
            return
        if config.get("textDataDeliveryEnabled") is False:
            return
        try:
            self._write(call, s3_config)
        except Exception as error:  # the bucket was deleted, or may no longer be written
            self.warn(f"an invocation log can't be written: {error}")

    def _write(self, call: LoggedCall, s3_config: Mapping[str, str]) -> None:
        time, called_by = now(), request_id()
        folder = f"{self._prefix(s3_config)}{time:%Y/%m/%d/%H}/"
        sides: dict[str, dict[str, object]] = {}
        for side, body, tokens in (
            ("input", call.input_body, call.input_tokens),
            ("output", call.output_body, call.output_tokens),
        ):
            raw = orjson.dumps(body, default=_encode_bytes)
            part: dict[str, object] = {f"{side}ContentType": "application/json"}
            if len(raw) > MAX_BODY_BYTES:
                key = f"{folder}data/{called_by}_{side}.json.gz"
                self._put(s3_config, key, raw)
                part[f"{side}BodyS3Path"] = f"s3://{s3_config['bucketName']}/{key}"
            else:
                part[f"{side}BodyJson"] = orjson.loads(raw)
            sides[side] = part | {f"{side}TokenCount": tokens}
        record: dict[str, object] = {
            "timestamp": f"{time:%Y-%m-%dT%H:%M:%SZ}",
            "accountId": ACCOUNT,
            "identity": {"arn": CALLER},
            "region": self.state.region,
            "requestId": called_by,
            "operation": call.operation,
            "modelId": call.model_id,
            **sides,
            **({"requestMetadata": dict(call.metadata)} if call.metadata else {}),
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
        }
        stamp = f"{time:%Y%m%dT%H%M%S}{time.microsecond // 1000:03}Z"
        name = f"{stamp}_{secrets.token_hex(8)}.json.gz"
        self._put(s3_config, f"{folder}{name}", orjson.dumps(record) + b"\n")

    def _prefix(self, s3_config: Mapping[str, str]) -> str:
        own = str(s3_config.get("keyPrefix") or "").strip("/")
        root = f"AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/{self.state.region}/"
        return f"{own}/{root}" if own else root

    def _put(self, s3_config: Mapping[str, str], key: str, content: bytes) -> None:
        self.s3().put_object(
            Bucket=s3_config["bucketName"], Key=key, Body=gzip.compress(content, mtime=0)
        )


def _encode_bytes(value: object) -> str:
    """Return the bytes of a picture or a document as JSON has them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(type(value).__name__)
