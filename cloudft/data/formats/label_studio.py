"""Label Studio's exports: JSON (tasks with annotations), and JSON-MIN and CSV (one row for each).

Label Studio documentation, "Export annotations"; the converter of label-studio-sdk 2.1.2.
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
from cloudft.data.formats.pairs import COMPLETION_KEYS
from cloudft.data.formats.proposals import explain_unknown
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    JsonObject,
    OmittedRecord,
    RawRecord,
)
from cloudft.data.formats.record_format import Keys, RecordFormat

NAME, ROWS_NAME = "label-studio", "label-studio-rows"
TOOL = "Label Studio"
TASK_KEYS = Keys(
    ("data", "annotations"),
    (
        *("id", "predictions", "drafts", "meta", "project", "inner_id", "file_upload"),
        *("created_at", "updated_at", "updated_by", "allow_skip", "agreement"),
        *(
            "total_annotations",
            "cancelled_annotations",
            "total_predictions",
            "precomputed_agreement",
        ),
        *("comment_count", "unresolved_comment_count", "last_comment_updated_at"),
        *("comment_authors", "is_labeled", "overlap", "avg_lead_time"),
    ),
)
ROW_KEYS = ("id", "annotation_id", "annotator", "lead_time")
ROW_FIELDS = (*ROW_KEYS, "created_at", "updated_at", "agreement")
"""What the short exports add to a task's data and its answers."""


def flatten_task(value: RawRecord, columns: Mapping[str, str]) -> RawRecord:
    """Return a task as a row: the data's fields, and the answers by their control's name."""
    task = _read_task(value)
    refuse_unanswered(task, columns)
    data = value["data"]
    return {**(data if isinstance(data, dict) else {}), **task.answers}


def parse_task(value: RawRecord) -> Conversation:
    """Parse a task with its annotations. Raises BadRecord; OmittedRecord without an answer."""
    return to_conversation(NAME, _read_task(value), value)


def _read_task(value: RawRecord) -> Annotated:
    data, annotations = value["data"], value["annotations"]
    if not isinstance(data, dict) or not isinstance(annotations, list):
        message = "a task has 'data', an object, and 'annotations', a list"
        raise BadRecord("WrongType", message, "export the project again", "annotations")
    done = [a for a in annotations if isinstance(a, dict) and a.get("result")]
    done = [a for a in done if not a.get("was_cancelled")]
    truth = [annotation for annotation in done if annotation.get("ground_truth")]
    answers = [dict(_read_results(annotation["result"])) for annotation in truth or done]
    agreed = agree([answer for answer in answers if answer], TOOL)
    inputs, further = split_inputs(data)
    return Annotated(inputs, agreed, further)


def _read_results(results: object) -> Iterator[tuple[str, object]]:
    """Yield the name of each control with what was answered in it."""
    seen = set()
    for result in results if isinstance(results, list) else ():
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            continue
        name = str(result.get("from_name"))
        if name in seen:
            message = f"{name[:40]!r} has two answers, as for parts of a text or of a picture"
            fix = "keep one answer to the whole, or write the parts as the text to be learned"
            raise BadRecord("SeveralAnswers", message, fix, name)
        seen.add(name)
        yield name, _read_value(name, result["value"])


def _read_value(name: str, value: JsonObject) -> object:
    if "start" in value or "x" in value or "points" in value:
        message = f"{name[:40]!r} marks a part of a text or of a picture: no text is the answer"
        fix = "write the parts as the text to be learned, as JSON for example"
        raise BadRecord("UnsupportedContent", message, fix, name)
    for key in ("choices", "labels", "taxonomy"):
        labels = value.get(key)
        if isinstance(labels, list):
            parts = [" / ".join(map(str, x)) if isinstance(x, list) else x for x in labels]
            return join_labels(parts)
    texts = value.get("text")
    if isinstance(texts, list) and len(texts) == 1:
        return texts[0]
    for key in ("text", "rating", "number", "datetime", "selected"):
        if isinstance(value.get(key), (str, int, float)):
            return value[key]
    message = f"{name[:40]!r} has an answer that is no text, no choice and no number"
    raise BadRecord("UnsupportedContent", message, "write the answer as a text", name)


def flatten_row(value: RawRecord, columns: Mapping[str, str]) -> RawRecord:
    """Return a row of the short exports with its answers as texts."""
    row = {key: _read_cell(item) for key, item in value.items()}
    # A task that nobody answered lacks the columns of answers.
    row |= {column: None for column in columns.values() if column not in row}
    refuse_unanswered(Annotated({}, row), columns)
    return row


def parse_row(value: RawRecord) -> Conversation:
    """Parse a row of the short exports. Raises BadRecord; OmittedRecord without an answer."""
    if value["annotation_id"] in (None, ""):
        message = "a record that nobody has answered is left out"
        raise OmittedRecord("NoAnswer", message, "")
    row = {k: _read_cell(item) for k, item in value.items() if k not in ROW_FIELDS}
    fields, further = split_inputs(row)
    # The short exports do not mark what is an answer.
    answers = {key: item for key, item in fields.items() if key in COMPLETION_KEYS}
    inputs = {key: item for key, item in fields.items() if key not in answers}
    if len(fields) > 1 and not answers:
        raise explain_unknown(fields, is_labeled=True)
    return to_conversation(ROWS_NAME, Annotated(inputs, answers, further), value)


def _read_cell(item: object) -> object:
    """Return a cell's labels as one text: several are JSON, also in CSV."""
    import orjson

    if isinstance(item, str) and item.startswith('{"'):
        try:
            item = orjson.loads(item)
        except orjson.JSONDecodeError:
            return item
    if isinstance(item, dict) and len(item) == 1:
        [(key, labels)] = item.items()
        if key in ("choices", "labels") and isinstance(labels, list):
            return join_labels(labels)
    return item


def _describe_task(values: Sequence[RawRecord]) -> str:
    record = next((task for task in map(_try_task, values) if task is not None), None)
    if record is None or len(record.inputs) != 1:
        return "tasks with 'data' and 'annotations'"
    return f"tasks with {next(iter(record.inputs))!r} answered in {next(iter(record.answers))!r}"


def _try_task(value: RawRecord) -> Annotated | None:
    try:
        task = _read_task(value)
    except BadRecord:
        return None
    return task if task.answers else None


def _describe_rows(values: Sequence[RawRecord]) -> str:
    return "rows with " + " and ".join(map(repr, ROW_KEYS))


def _is_task(value: RawRecord) -> bool:
    annotations = value["annotations"]
    return isinstance(value["data"], dict) and isinstance(annotations, list)


FORMATS = (
    RecordFormat(
        name=NAME,
        title="Label Studio's tasks",
        keys=TASK_KEYS,
        recognizes=_is_task,
        parse=parse_task,
        flatten=flatten_task,
        describe=_describe_task,
    ),
    RecordFormat(
        name=ROWS_NAME,
        title="Label Studio's rows (JSON-MIN, CSV)",
        keys=Keys(ROW_KEYS, ROW_FIELDS[len(ROW_KEYS) :]),
        parse=parse_row,
        flatten=flatten_row,
        reads_all_keys=True,
        describe=_describe_rows,
    ),
)
