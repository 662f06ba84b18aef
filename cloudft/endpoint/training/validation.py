"""Validate a job's settings and data as Bedrock does before it trains, whatever trainer follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from cloudft.endpoint.training import failure_messages
from cloudft.endpoint.training.job_settings import load_requested_job
from cloudft.endpoint.training.run import TrainingRequest
from cloudft.errors import CheckFailed, CloudftError
from cloudft.jobs.prepare import check_records

Json = Mapping[str, Any]
CONVERSE_BLOCKS = frozenset(
    [
        *("text", "image", "video", "document"),
        *("reasoningContent", "toolUse", "toolResult"),
    ]
)
"""The content blocks of a record in Converse's form."""


def find_refusal(request: TrainingRequest) -> str | None:
    """Return the failure message of a job that Bedrock would refuse; None if it may train."""
    refused = failure_messages.find_other_layout(request)
    if refused is not None:
        return refused
    try:
        job = load_requested_job(request)
        forms = request.record_forms or (job.model.formats[request.customization_type],)
        refused = _find_other_form(request, forms)
        if refused is not None:
            return refused
        report = check_records(job)
    except CheckFailed as error:
        return failure_messages.failure_message_of(request, error)
    except CloudftError as error:
        # The settings came from no command line: leave out where cloudft says they come from.
        return error.message.partition(" (from --")[0]
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        return failure_messages.failure_message_of(request, CheckFailed("", errors))
    return failure_messages.find_blank_line(request, report.findings)


def _find_other_form(request: TrainingRequest, forms: Sequence[str]) -> str | None:
    """Return the failure message for the first record in none of these forms; None if none.

    cloudft converts between forms before it uploads; the service does not. A line that is no JSON
    object is left to the check of the data.
    """
    tests = [RECORD_FORMS[name] for name in forms if name in RECORD_FORMS]
    if len(tests) < len(forms):
        return None
    for role, path in request.data.items():
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = orjson.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and not any(has_form(record) for has_form in tests):
                    return failure_messages.wrong_form(request, role, number, forms[0])
    return None


def _has_texts(*keys: str) -> Callable[[Json], bool]:
    return lambda record: all(isinstance(record.get(key), str) for key in keys)


def _is_converse(record: Json) -> bool:
    system = record.get("system") or []
    return (
        _has_messages(record, _is_block_list)
        and isinstance(system, list)
        and all(isinstance(block, dict) and "text" in block for block in system)
    )


def _has_messages(record: Json, is_content: Callable[[object], bool]) -> bool:
    messages = record.get("messages")
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        return False
    return all(isinstance(t.get("role"), str) and is_content(t.get("content")) for t in messages)


def _is_block_list(content: object) -> bool:
    return isinstance(content, list) and all(
        isinstance(block, dict) and bool(CONVERSE_BLOCKS & block.keys()) and "type" not in block
        for block in content
    )


def _is_claude(record: Json) -> bool:
    return _has_messages(record, lambda content: isinstance(content, str)) and isinstance(
        record.get("system", ""), str
    )


def _is_openai(record: Json) -> bool:
    return _has_messages(record, lambda content: not isinstance(content, dict))


RECORD_FORMS: Mapping[str, Callable[[Json], bool]] = {
    "prompt-completion": _has_texts("prompt", "completion"),
    "input": _has_texts("input"),
    "converse": _is_converse,
    "messages": _is_claude,
    "distillation": _is_converse,
    "claude-messages": _is_claude,
    "reinforcement": _is_openai,
}
"""Whether a record has the form that the service reads, by the name of the record format. Source:
Bedrock user guide, "Prepare your training datasets for fine-tuning", "... for distillation" and
"Prepare data for reinforcement fine-tuning"; for Converse's form also the sample
aws-samples/amazon-nova-samples, nova_ft_dataset_validator.py."""
