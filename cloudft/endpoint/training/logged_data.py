"""Training data from invocation logs: select the records as Bedrock does, and write them as a file.

Bedrock converts logs of InvokeModel and Converse by itself (user guide, "Creating a distilled model
using production data"; for reinforcement "Prepare data for reinforcement fine-tuning").
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.aws.s3 import split_s3_uri
from cloudft.data.formats.record import BadRecord, Conversation, PromptWithReference
from cloudft.data.formats.registry import encode_record
from cloudft.data.invocation_logs import LOG_KEY, LogCounts, Selection, select_records
from cloudft.endpoint.bedrock.shapes import CreateCustomizationJobRequest, TrainingDataConfig
from cloudft.endpoint.protocols.messages import ServiceError

if TYPE_CHECKING:
    from botocore.client import BaseClient

LOGGED_TYPES = ("DISTILLATION", "REINFORCEMENT_FINE_TUNING")
"""The customization types that can train on invocation logs."""


def require_one_data_source(config: TrainingDataConfig, kind: str) -> None:
    """Raise ServiceError unless a request names a file, or logs for a type that takes them."""
    if ("s3Uri" in config) == ("invocationLogsConfig" in config):
        what = "trainingDataConfig needs either s3Uri or invocationLogsConfig."
        raise ServiceError("ValidationException", what)
    if "invocationLogsConfig" in config and kind not in LOGGED_TYPES:
        what = f"invocationLogsConfig is not supported for {kind}."
        raise ServiceError("ValidationException", what)


def write_selected_logs(s3: BaseClient, request: CreateCustomizationJobRequest, to: Path) -> Path:
    """Write the records of the logs that the request selects as the job's training file.

    Raises ServiceError where no log record can be used, and what S3 raises.
    """
    kind = request.get("customizationType", "FINE_TUNING")
    config = request["trainingDataConfig"]["invocationLogsConfig"]
    counts = LogCounts()
    selection = Selection(
        config.get("requestMetadataFilters"),
        # The reference of a reinforcement record is the logged answer.
        config.get("usePromptResponse", False) or kind == "REINFORCEMENT_FINE_TUNING",
        _teacher(request) if kind == "DISTILLATION" else None,
    )
    with to.open("wb") as stream:
        for record in _select(s3, config["invocationLogSource"]["s3Uri"], selection, counts):
            line = _encode(record, kind)
            if line is not None:
                stream.write(line)
    if not counts.used:
        why = "; ".join(counts.describe_ignored()) or "there are none"
        uri = config["invocationLogSource"]["s3Uri"]
        message = f"No invocation log at {uri} can be used: {why}"
        raise ServiceError("ValidationException", message)
    return to


def _teacher(request: CreateCustomizationJobRequest) -> str:
    config = request["customizationConfig"]["distillationConfig"]
    return config["teacherModelConfig"]["teacherModelIdentifier"]


def _select(
    s3: BaseClient, uri: str, selection: Selection, counts: LogCounts
) -> Iterator[Conversation]:
    bucket, prefix = split_s3_uri(uri)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for key in (item["Key"] for page in pages for item in page.get("Contents", ())):
        if LOG_KEY.fullmatch(key):
            content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            yield from select_records(io.BytesIO(content), key, selection, counts)


def _encode(record: Conversation, kind: str) -> bytes | None:
    """Return a record as a line of the type's format; None for one that it can't hold."""
    target = "distillation"
    if kind == "REINFORCEMENT_FINE_TUNING":
        target = "reinforcement"
        turns, answer = record.turns[:-1], record.answer
        record = PromptWithReference(
            record.format,
            record.system,
            turns,
            tools=record.tools,
            reference=answer,
            extra_fields={},
        )
    try:
        return encode_record(record, target)[0]
    except BadRecord:
        return None
