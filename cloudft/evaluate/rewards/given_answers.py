"""Answers of a file for a grader: each line is a prompt's record with `answer` or `answers`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudft.data.findings import Findings
from cloudft.data.formats import reinforcement
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Document
from cloudft.data.records import LocatedRecord
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import CheckFailed, UsageError
from cloudft.evaluate.rewards.prompts import GradedPrompt, prompt_for_grader

ANSWER_KEYS = ("answers", "answer")
EXAMPLE = '{"messages": [...], "reference_answer": "4", "answers": ["4", "five"]}'


def read_given_answers(file: Path) -> list[tuple[GradedPrompt, list[str]]]:
    """Return the prompts of a file with their answers. Lines with one prompt are one group.

    Raise CheckFailed with every bad line, UsageError for a file without any.
    """
    findings = Findings()
    groups: dict[str, tuple[GradedPrompt, list[str]]] = {}
    for source in SourceResolver(Path.cwd(), findings).resolve("--answers", [str(file)]):
        context = ReadContext(source, findings)
        for row in read_rows(context):
            try:
                record, answers = _split(row.value)
                located = LocatedRecord(source.display_name, row.line, record)
            except BadRecord as bad:
                context.add_bad_record(bad, row.line)
                continue
            prompt = prompt_for_grader(located)
            key = json.dumps([prompt.messages, prompt.metadata], sort_keys=True)
            groups.setdefault(key, (prompt, []))[1].extend(answers)
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    if not groups:
        raise UsageError(f"there are no answers in {file}", fix=f"write lines such as {EXAMPLE}")
    return list(groups.values())


def _split(value: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Return a line's record and its answers. Raise BadRecord."""
    key = next((key for key in ANSWER_KEYS if key in value), None)
    if key is not None:
        answers = list(_texts(value[key], key))
        if not answers:
            raise _no_answer(key)
        rest = {name: item for name, item in value.items() if name != key}
        parsed = parse_record(rest, {}, reinforcement.NAME)
        if isinstance(parsed, Document):
            raise BadRecord("WrongTask", "a text without a prompt", f"write {EXAMPLE}")
        return reinforcement.to_prompt_with_reference(parsed), answers
    return _split_messages(value)


def _split_messages(value: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Take the last message as the answer: what a grader gets, saved."""
    found = value.get("messages")
    messages: list[Any] = found if isinstance(found, list) else []
    last = messages[-1] if len(messages) > 1 else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        raise _no_answer("answers")
    metadata = value.get("metadata")
    rest = {**value, **(metadata if isinstance(metadata, dict) else {}), "messages": messages[:-1]}
    rest.pop("metadata", None)
    parsed = parse_record(rest, {}, reinforcement.NAME)
    return reinforcement.to_prompt_with_reference(parsed), list(
        _texts(last.get("content"), "messages")
    )


def _no_answer(field: str) -> BadRecord:
    return BadRecord(
        "MissingField", "a record without an answer to grade", f"write {EXAMPLE}", field
    )


def _texts(value: object, field: str) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str):
            fix = "write it as text, or several as a list of texts"
            raise BadRecord("WrongType", "an answer that is no text", fix, field)
        yield item
