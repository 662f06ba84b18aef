"""Events and replies of a grader on Bedrock and on SageMaker, and the adapter between them.

This file imports the standard library alone and no other file: a zip for SageMaker has it beside
the grader's file, and `shapes.lambda_handler` as its handler (for Nova `shapes.nova_handler`).

Bedrock sends a list of `{"id", "messages", "metadata": {"reference_answer", ...}}` and takes a list
of `{"id", "aggregate_reward_score", "metrics_list"}` (user guide, "Setting up reward functions").
SageMaker has `reference_answer` beside `messages`; of an open-weight model's grader it takes
`{"statusCode": 200, "headers", "body": JSON}` (sagemaker 3, `rlvr_reward_verifier`).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

GRADER_MODULE = "grader"
"""The module that a zip for SageMaker has the user's file as."""
SAMPLE_KEYS = ("id", "messages", "metadata")
NOT_METADATA = ("id", "messages", "system", "tools", "schemaVersion")
"""Keys of a record that are no metadata for the grader: its id, and what the model is prompted
with."""


def to_event(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return Bedrock's event for samples."""
    return [{key: sample[key] for key in SAMPLE_KEYS} for sample in samples]


def from_sagemaker_event(event: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return Bedrock's event for one of SageMaker's: what is beside `messages` is metadata."""
    return [
        {
            "id": sample["id"],
            "messages": sample["messages"],
            "metadata": {
                **{key: value for key, value in sample.items() if key not in SAMPLE_KEYS},
                **(sample.get("metadata") or {}),
            },
        }
        for sample in event
    ]


def to_sagemaker_event(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return SageMaker's event for samples."""
    return [
        {**sample["metadata"], "id": sample["id"], "messages": sample["messages"]}
        for sample in samples
    ]


def to_sagemaker_reply(reply: object) -> dict[str, Any]:
    """Return SageMaker's reply of an open-weight model for one of Bedrock's."""
    if is_wrapped(reply):
        return dict(reply)  # type: ignore[call-overload, no-any-return]
    headers = {"Content-Type": "application/json"}
    return {"statusCode": 200, "headers": headers, "body": json.dumps(reply)}


def is_wrapped(reply: object) -> bool:
    """Return whether a reply is an HTTP response with a body, as SageMaker takes it."""
    return isinstance(reply, Mapping) and "statusCode" in reply and "body" in reply


def nova_handler(event: Sequence[Mapping[str, Any]], context: object) -> object:
    """Run the grader that is packed beside this file on SageMaker's event for a Nova model."""
    grader = importlib.import_module(GRADER_MODULE)
    return grader.lambda_handler(from_sagemaker_event(event), context)


def lambda_handler(event: Sequence[Mapping[str, Any]], context: object) -> dict[str, Any]:
    """Run the grader that is packed beside this file on an event of SageMaker."""
    grader = importlib.import_module(GRADER_MODULE)
    return to_sagemaker_reply(grader.lambda_handler(from_sagemaker_event(event), context))
