"""Read the rewards in a handler's reply, and name what is wrong with one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from local_backend.grading.shapes import is_wrapped

REWARD_KEY, METRICS_KEY = "aggregate_reward_score", "metrics_list"
REPLY_FIX = (
    "return a list with one {'id': sample['id'], 'aggregate_reward_score': number} for each sample"
    " of the event."
)


@dataclass
class Grade:
    """The reward of a sample, and what else the grader measured."""

    reward: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class BadReplyError(Exception):
    """Raised for a reply that has no reward for each sample. `sample` is the id, where known."""

    message: str
    sample: str | None = None
    fix: str = REPLY_FIX


def read_grades(reply: object, ids: Sequence[str]) -> list[Grade]:
    """Return the grades of the samples `ids`, in their order. Raise BadReplyError."""
    entries = _entries(reply)
    grades: dict[str, Grade] = {}
    known = frozenset(ids)
    for index, entry in enumerate(entries):
        # An entry without an id is about the sample in its position, if about any.
        near = ids[index] if index < len(ids) else ids[-1]
        if not isinstance(entry, Mapping):
            raise BadReplyError(f"entry {index} of its reply is {_describe(entry)}", near)
        if "id" not in entry:
            raise BadReplyError(f"entry {index} of its reply has no id", near)
        identifier = entry["id"]
        if not isinstance(identifier, str) or identifier not in known:
            message = f"entry {index} of its reply has an id that no sample has"
            raise BadReplyError(message, near)
        if identifier in grades:
            raise BadReplyError("its reply has this id twice", identifier)
        grades[identifier] = _grade(entry, identifier)
    missing = [identifier for identifier in ids if identifier not in grades]
    if missing:
        message = f"its reply has {len(entries)} rewards for {len(ids)} samples"
        raise BadReplyError(message, missing[0])
    return [grades[identifier] for identifier in ids]


def _entries(reply: object) -> Sequence[object]:
    if is_wrapped(reply):
        assert isinstance(reply, Mapping)
        status, body = reply["statusCode"], reply["body"]
        if status != 200:
            raise BadReplyError(f"its reply has the statusCode {_describe(status)}")
        if isinstance(body, str):
            try:
                body = json.loads(body)
            except ValueError:
                raise BadReplyError("the body of its reply is not JSON") from None
        reply = body
    if not isinstance(reply, list):
        raise BadReplyError(f"its reply is {_describe(reply)}, not a list")
    return reply


def _grade(entry: Mapping[str, object], identifier: str) -> Grade:
    if REWARD_KEY not in entry:
        raise BadReplyError(f"its reply has no {REWARD_KEY}", identifier)
    reward = entry[REWARD_KEY]
    if not _is_number(reward):
        raise BadReplyError(f"{REWARD_KEY} is {_describe(reward)}", identifier)
    metrics = entry.get(METRICS_KEY) or []
    if not isinstance(metrics, list):
        raise BadReplyError(f"{METRICS_KEY} is {_describe(metrics)}, not a list", identifier)
    return Grade(float(reward), dict(_metric(one, identifier) for one in metrics))  # type: ignore[arg-type]


def _metric(metric: object, identifier: str) -> tuple[str, float]:
    fix = "write each metric as {'name': text, 'value': number, 'type': 'Metric' or 'Reward'}."
    if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
        raise BadReplyError(f"an entry of {METRICS_KEY} has no name", identifier, fix)
    value = metric.get("value")
    if not _is_number(value):
        message = f"the metric {metric['name']!r} is {_describe(value)}"
        raise BadReplyError(message, identifier, fix)
    return metric["name"], float(value)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the range of float
        return False


def _describe(value: object) -> str:
    """Return what a value is, without the texts in it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return (
            "too large a number"
            if isinstance(value, int) and value.bit_length() > 64
            else str(value)
        )
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"
