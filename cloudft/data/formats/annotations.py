"""Read what annotation tools export: one input, and the answer that people gave to it.

A record is read if it has one input and people gave one answer. Without an answer it is left out on
a warning; where people disagree, or several fields may be meant, a person decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudft.data.formats.key_roles import is_descriptive
from cloudft.data.formats.proposals import explain_unknown
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    JsonObject,
    OmittedRecord,
    RawRecord,
    Turn,
    require_text,
)
from cloudft.data.formats.record_format import get_text

SEPARATOR = ", "
"""Between the labels of an answer that has several."""
_MEDIA = re.compile(
    r"(?i)(data:(image|audio|video)/.*|\S+\.(png|jpe?g|gif|webp|bmp|tiff?|mp[34]|mov|wav|flac|pdf))"
    r"(\?\S*)?",
    re.DOTALL,
)

_LABELS_IN_CSV = re.compile(r'\{"(choices|labels)": ?\["[^"]*", ?"')


@dataclass(frozen=True)
class Annotated:
    """A record of an annotation tool: its inputs and answers by name, and further fields."""

    inputs: JsonObject
    answers: JsonObject
    further: tuple[str, ...] = ()

    def to_row(self) -> JsonObject:
        """Return inputs and answers as a row, whose columns `data.columns` can name."""
        return {**self.inputs, **self.answers}


def split_inputs(fields: Mapping[str, object]) -> tuple[JsonObject, tuple[str, ...]]:
    """Return the fields that may be an input, and the names of those that describe the record."""
    inputs = {key: value for key, value in fields.items() if not is_descriptive(key)}
    inputs = {key: value for key, value in inputs.items() if value not in (None, "", [], {})}
    return inputs, tuple(key for key in fields if key not in inputs and fields[key] is not None)


def to_conversation(name: str, record: Annotated, value: RawRecord) -> Conversation:
    """Return the one input with the one answer. Raises BadRecord where more may be meant."""
    if not record.answers:
        raise OmittedRecord("NoAnswer", "a record that nobody has answered is left out", "")
    if len(record.inputs) != 1 or len(record.answers) != 1:
        raise explain_unknown(record.to_row() or value, is_labeled=True)
    [(input_key, _)], [(answer_key, _)] = record.inputs.items(), record.answers.items()
    prompt = get_text(record.inputs, input_key)
    if _MEDIA.fullmatch(prompt.strip()):
        message = f"{input_key[:40]!r} is the address of a picture, a sound or a document"
        fix = "give the answers to a text, or records of the form that the base model takes"
        raise BadRecord("UnsupportedContent", message, fix, input_key)
    answer = require_text(get_text(record.answers, answer_key), repr(answer_key), answer_key)
    turns = (Turn("user", (prompt,)), Turn("assistant", (answer,)))
    return Conversation(name, (), turns, left_out=record.further)


def agree(answers: Sequence[JsonObject], tool: str) -> JsonObject:
    """Return the answers that all annotators gave. Raises OmittedRecord if they differ."""
    texts = {json.dumps(answer, sort_keys=True) for answer in answers}
    if len(texts) > 1:
        message = "a record with different answers of several people is left out"
        fix = f"to use it, decide in {tool} and export again"
        raise OmittedRecord("DifferentAnswers", message, fix)
    return answers[0] if answers else {}


def join_labels(labels: Iterable[object]) -> str:
    """Return the labels of one answer as a text."""
    return SEPARATOR.join(str(label) for label in labels)


def refuse_unanswered(record: Annotated, columns: Mapping[str, str]) -> None:
    """Raise OmittedRecord if the column that is the answer is empty in this record."""
    column = columns.get("completion") or columns.get("output")
    if column is not None and record.to_row().get(column) in (None, "", [], {}):
        message = "a record that nobody has answered is left out"
        raise OmittedRecord("NoAnswer", message, "", column)


def holds_several_labels(value: object) -> bool:
    """Return whether an answer in a record of an annotation tool has more than one label."""
    if isinstance(value, dict):
        return any(
            (key in ("choices", "labels", "value") and _are_labels(item))
            or holds_several_labels(item)
            for key, item in value.items()
        )
    if isinstance(value, list):
        return any(map(_are_labels, value)) or any(map(holds_several_labels, value))
    return isinstance(value, str) and bool(_LABELS_IN_CSV.match(value))


def _are_labels(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) > 1 and all(isinstance(part, str) for part in value)
    )
