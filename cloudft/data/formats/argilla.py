"""argilla's exports: records with fields and responses, nested (`to_json`) or as rows.

argilla 2.8.0, `records.to_list`, `to_json` and `to_datasets`. A response that was discarded, or is
a draft, has a status in the rows alone; in nested records only a completed one shows that there is
a response that counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cloudft.data.formats.annotations import (
    Annotated,
    agree,
    join_labels,
    refuse_unanswered,
    split_inputs,
    to_conversation,
)
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    JsonObject,
    OmittedRecord,
    RawRecord,
)
from cloudft.data.formats.record_format import Keys, RecordFormat

NAME, ROWS_NAME = "argilla", "argilla-rows"
TOOL = "argilla"
RESPONSES, SUGGESTION = ".responses", ".suggestion"
RECORD_KEYS = Keys(
    ("fields", "responses", "suggestions"), ("id", "metadata", "vectors", "status", "_server_id")
)
ROW_KEYS = Keys(("id", "status"), ("_server_id",))


def parse_nested(value: RawRecord) -> Conversation:
    """Parse a nested record. Raises BadRecord; OmittedRecord without a response that counts."""
    return to_conversation(NAME, _read_nested(value), value)


def flatten_nested(value: RawRecord, columns: Mapping[str, str]) -> RawRecord:
    """Return a nested record as a row: its fields, metadata and responses by name."""
    record = _read_nested(value)
    refuse_unanswered(record, columns)
    fields, metadata = _object(value, "fields"), _object(value, "metadata")
    return {**metadata, **fields, **record.answers}


def _read_nested(value: RawRecord) -> Annotated:
    fields, responses = _object(value, "fields"), _object(value, "responses")
    if responses and value.get("status") == "pending":
        message = "a record that is not completed is left out: its responses may be drafts"
        raise OmittedRecord("NoAnswer", message, "")
    answers: JsonObject = {}
    for question, given in responses.items():
        entries = given if isinstance(given, list) else []
        texts = [_read_value(question, e["value"]) for e in entries if _has_value(e)]
        if texts:
            name = question if question not in fields else question + RESPONSES
            answers |= agree([{name: text} for text in texts], TOOL)
    inputs, further = split_inputs(fields)
    described = [f"metadata.{key}" for key in _object(value, "metadata")]
    return Annotated(inputs, answers, (*further, *described))


def _object(value: RawRecord, key: str) -> JsonObject:
    item = value.get(key)
    return item if isinstance(item, dict) else {}


def _has_value(entry: object) -> bool:
    return isinstance(entry, dict) and entry.get("value") not in (None, "", [])


def _read_value(question: str, value: object) -> object:
    if isinstance(value, list):
        if any(isinstance(part, (dict, list)) for part in value):
            message = f"{question[:40]!r} marks parts of a text, or ranks: no text is the answer"
            raise BadRecord("UnsupportedContent", message, "write the answer as a text", question)
        return join_labels(value)
    return value


def parse_row(value: RawRecord) -> Conversation:
    """Parse a row. Raises BadRecord; OmittedRecord without a submitted response."""
    return to_conversation(ROWS_NAME, _read_row(value), value)


def flatten_row(value: RawRecord, columns: Mapping[str, str]) -> RawRecord:
    """Return a row with each question's responses as the one answer that they give."""
    record = _read_row(value)
    answers = dict.fromkeys((key for key in value if key.endswith(RESPONSES)), None)
    # The statuses are those of the responses, of which one answer is left.
    own = {k: item for k, item in value.items() if not k.endswith(f"{RESPONSES}.status")}
    row = {**own, **answers, **record.answers}
    refuse_unanswered(Annotated({}, row), columns)
    return row


def _read_row(value: RawRecord) -> Annotated:
    questions = [key.removesuffix(RESPONSES) for key in value if key.endswith(RESPONSES)]
    questions += [key.removesuffix(SUGGESTION) for key in value if key.endswith(SUGGESTION)]
    answers: JsonObject = {}
    for question in dict.fromkeys(questions):
        texts = [_read_value(question, text) for text in _submitted(value, question + RESPONSES)]
        if texts:
            answers |= agree([{question + RESPONSES: text} for text in texts], TOOL)
    own = tuple(f"{question}{end}" for question in questions for end in (RESPONSES, SUGGESTION))
    fields = {k: item for k, item in value.items() if not k.startswith(own)}
    inputs, further = split_inputs({k: v for k, v in fields.items() if k not in ROW_FIELDS})
    suggestions = [key for key in value if key.endswith(SUGGESTION) and value[key] is not None]
    return Annotated(inputs, answers, (*further, *suggestions))


ROW_FIELDS = frozenset({*ROW_KEYS.required, *ROW_KEYS.optional})


def _submitted(value: RawRecord, key: str) -> Iterator[object]:
    """Yield the responses that were submitted; all of them where no status is known."""
    responses, statuses = value.get(key), value.get(f"{key}.status")
    entries = responses if isinstance(responses, list) else [responses]
    states = statuses if isinstance(statuses, list) else []
    for at, response in enumerate(entries):
        state = states[at] if at < len(states) else None
        if state in (None, "submitted") and response not in (None, "", []):
            yield response


def _is_row(value: RawRecord) -> bool:
    return any(key.endswith((RESPONSES, SUGGESTION)) for key in value)


def _is_nested(value: RawRecord) -> bool:
    return all(isinstance(value[key], dict) for key in RECORD_KEYS.required)


def _describe(values: Sequence[RawRecord]) -> str:
    keys = RECORD_KEYS.required if _is_nested_like(values) else ("id", "status")
    return "records with " + " and ".join(map(repr, keys))


def _is_nested_like(values: Sequence[RawRecord]) -> bool:
    return all("fields" in value for value in values)


FORMATS = (
    RecordFormat(
        name=NAME,
        title="argilla's records",
        keys=RECORD_KEYS,
        recognizes=_is_nested,
        parse=parse_nested,
        flatten=flatten_nested,
        describe=_describe,
    ),
    RecordFormat(
        name=ROWS_NAME,
        title="argilla's rows",
        keys=ROW_KEYS,
        recognizes=_is_row,
        parse=parse_row,
        flatten=flatten_row,
        reads_all_keys=True,
        describe=_describe,
    ),
)
