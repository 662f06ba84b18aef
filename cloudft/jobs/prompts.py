"""Build the prompts for generation: one from the command line, or the records of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.catalogue import is_text_only
from cloudft.data.findings import Findings
from cloudft.data.formats.chat_writers import converse_block, converse_tool_config
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Conversation, Document, PromptWithReference, Turn
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import CheckFailed, UsageError
from cloudft.inference import Message, Prompt, message_text

THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""Marks around reasoning within a text, as in local_backend/data/template_support.py."""


@dataclass(frozen=True)
class GenerationPrompt:
    """A prompt, its text for people, and the reference answer of its record, if it has one.

    `reply` is the reference as a message where it is more than a text.
    """

    prompt: Prompt
    shown: str
    reference: str | None = None
    reply: Message | None = None


def build_prompts(
    customization_type: str,
    *,
    prompt: str | None = None,
    system: str | None = None,
    file: Path | None = None,
) -> list[GenerationPrompt]:
    """Return the prompts from `prompt` (with `system`) or from `file`.

    After continued pre-training a model continues raw text; a fine-tuned model answers messages.
    Raise UsageError for neither or both sources, CheckFailed with every error of the file.
    """
    if (prompt is None) == (file is None):
        raise UsageError("add either --prompt or --file", fix="see `cloudft generate --help`.")
    raw = is_text_only(customization_type)
    if system is not None and (raw or file is not None):
        raise UsageError(
            "--system needs --prompt, and a fine-tuned model",
            fix="leave out --system; the records of a file have their own system messages.",
        )
    if file is not None:
        return _read_prompts(file, raw=raw)
    assert prompt is not None
    if not prompt.strip():
        raise UsageError("the prompt is empty", fix="write a prompt with text.")
    if raw:
        return [GenerationPrompt(Prompt(text=prompt), prompt)]
    return [GenerationPrompt(Prompt(_messages((system,) if system else (), prompt)), prompt)]


def _messages(system: tuple[str, ...], prompt: str) -> list[dict[str, str]]:
    head = [{"role": "system", "content": "\n".join(system)}] if system else []
    return [*head, {"role": "user", "content": prompt}]


def _read_prompts(file: Path, *, raw: bool) -> list[GenerationPrompt]:
    findings = Findings()
    prompts = []
    for source in SourceResolver(Path.cwd(), findings).resolve("--file", [str(file)]):
        reading = ReadContext(source, findings)
        for row in read_rows(reading):
            try:
                prompts.append(_parse_record(row.value, raw=raw))
            except BadRecord as error:
                findings.add(
                    error.code,
                    error.message,
                    error.fix,
                    file=source.display_name,
                    line=row.line,
                    field=error.field,
                )
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return prompts


def _parse_record(value: object, *, raw: bool) -> GenerationPrompt:
    """Return the prompt of one raw record, which may also be {"prompt": ...} alone."""
    assert isinstance(value, Mapping)
    if set(value) == {"prompt"} and isinstance(value["prompt"], str) and not raw:
        return GenerationPrompt(Prompt(_messages((), value["prompt"])), value["prompt"])
    return prompt_of_record(parse_record(dict[str, Any](value), {}), raw=raw)


def prompt_of_record(record: Conversation | Document, *, raw: bool) -> GenerationPrompt:
    """Return a record as prompt and reference.

    With `raw` the model continues text. Raise BadRecord for a record of the other kind.
    """
    if isinstance(record, Document):
        if not raw:
            fix = 'use labeled records, or {"prompt": ...} alone'
            raise BadRecord("WrongTask", "unlabeled text for a fine-tuned model", fix)
        return GenerationPrompt(Prompt(text=record.text), record.text)
    if raw:
        fix = 'use {"text": ...} records'
        raise BadRecord("WrongTask", "labeled records for a model that continues text", fix)
    if isinstance(record, PromptWithReference):
        return _prompt_for_grader(record)
    return _prompt_of_conversation(record)


def _prompt_for_grader(record: PromptWithReference) -> GenerationPrompt:
    """Return all turns as the prompt; the reference is what the grader gets, as a text."""
    turns = [_to_message(turn) for turn in record.turns]
    reference = record.reference
    if reference is not None and not isinstance(reference, str):
        reference = json.dumps(reference, ensure_ascii=False)
    tools = converse_tool_config(record.tools) if record.tools else None
    prompt = Prompt([*_system_messages(record), *turns], tool_config=tools)
    return GenerationPrompt(prompt, message_text(turns[-1]), reference)


def _system_messages(record: Conversation) -> list[Message]:
    return [{"role": "system", "content": "\n".join(record.system)}] if record.system else []


def _prompt_of_conversation(record: Conversation) -> GenerationPrompt:
    """Return all turns but the last as the prompt, and the last one as the reference.

    Reasoning is no part of the reference, as it is none of a model's answer.
    """
    *turns, reply = map(_to_message, record.turns)
    reference = _without_reasoning(record.answer)
    is_plain = isinstance(reply["content"], str) and reference == record.answer
    tools = converse_tool_config(record.tools) if record.tools else None
    return GenerationPrompt(
        Prompt([*_system_messages(record), *turns], tool_config=tools),
        message_text(turns[-1]),
        reference,
        None if is_plain else reply,
    )


def _without_reasoning(answer: str) -> str:
    """Return an answer without the reasoning that its text begins with, between tags."""
    for opening, closing in THINK_TAGS:
        if answer.lstrip().startswith(opening) and closing in answer:
            return answer.partition(closing)[2].strip() or answer
    return answer


def _to_message(turn: Turn) -> dict[str, object]:
    if all(isinstance(block, str) for block in turn.content):
        return {"role": turn.role, "content": turn.text}
    return {"role": turn.role, "content": [converse_block(block) for block in turn.content]}
