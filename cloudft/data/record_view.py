"""Describe a record for a page: who says what, of whatever format it is.

Of a pair of answers it marks the words in which they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

import orjson

from cloudft.data.formats.record import (
    Block,
    Conversation,
    Document,
    Media,
    PreferencePair,
    PromptWithReference,
    Reasoning,
    Record,
    ToolCall,
    ToolResult,
    Turn,
    block_text,
)
from cloudft.data.formats.registry import format_title

MAX_COMPARED_WORDS = 2000
"""Words of an answer up to which two are compared word by word; longer ones by both ends alone."""
_WORD = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class Span:
    """A part of a text. `differs` if the other answer of the pair does not have it."""

    text: str
    differs: bool = False


@dataclass(frozen=True)
class Part:
    """A part of a turn: a text, or what `kind` names. `spans` are its text."""

    kind: str
    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        """Return the whole text."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True)
class TurnView:
    """What one side says. `is_learned` if training learns it."""

    role: str
    parts: tuple[Part, ...]
    is_learned: bool = False

    @property
    def text(self) -> str:
        """Return all parts as one text."""
        return "\n".join([part.text for part in self.parts])


@dataclass(frozen=True)
class RecordView:
    """A record as turns, and in words what it was read as.

    `left_out` are keys that say nothing to a model. Of a pair, the last two turns are `chosen` and
    `rejected`.
    """

    format: str
    turns: tuple[TurnView, ...]
    left_out: tuple[str, ...] = ()

    def question_and_answer(self) -> tuple[str, str]:
        """Return what a list shows of a record: its last question and its answer, "" without."""
        context = [turn.text for turn in self.turns if not turn.is_learned]
        learned = [turn.text for turn in self.turns if turn.is_learned]
        if self.turns[-1].role == "rejected":
            context = context[:-1]
        return (context or [""])[-1], (learned or [""])[-1]


def view_record(record: Record) -> RecordView:
    """Return the view of a record."""
    turns = tuple(_turns_of(record))
    return RecordView(format_title(record.format), turns, record.left_out)


def _turns_of(record: Record) -> Iterable[TurnView]:
    if isinstance(record, Document):
        yield TurnView("text", (_text_part(record.text),), is_learned=True)
        return
    yield from _context_of(record)
    if isinstance(record, PreferencePair):
        yield from map(_view_turn, record.turns[: record.prompt_length])
        yield from _view_answers(*record.answers())
        return
    yield from map(_view_turn, record.turns)
    if isinstance(record, PromptWithReference):
        yield TurnView("reference answer", (_text_part(_as_text(record.reference)),))
        if record.extra_fields:
            fields = _as_text(dict(record.extra_fields))
            yield TurnView("for the grader", (_text_part(fields, "fields"),))


def _context_of(record: Conversation) -> Iterable[TurnView]:
    if record.system:
        yield TurnView("system", tuple(map(_text_part, record.system)))
    if record.tools:
        tools = [
            _text_part(f"{tool.name}: {tool.description}\n{_as_text(tool.parameters)}", "tool")
            for tool in record.tools
        ]
        yield TurnView("tools", tuple(tools))


def _view_turn(turn: Turn) -> TurnView:
    parts = tuple(map(_view_block, turn.content))
    return TurnView(turn.role, parts, turn.role == "assistant" and turn.is_learned)


def _view_block(block: Block) -> Part:
    if isinstance(block, str):
        return _text_part(block)
    if isinstance(block, Media):
        return _text_part(_describe_media(block), block.kind)
    return _text_part(block_text(block), _kind_of(block))


def _kind_of(block: Reasoning | ToolCall | ToolResult) -> str:
    if isinstance(block, Reasoning):
        return "reasoning"
    if isinstance(block, ToolCall):
        return "tool call"
    return "tool result (an error)" if block.is_error else "tool result"


def _describe_media(media: Media) -> str:
    """Return a placeholder for a picture or a file: its format, where it is, or its size."""
    facts: list[str] = []
    stack: list[object] = [media.block]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            stack += one.values()
        elif isinstance(one, list):
            stack += one
        elif isinstance(one, str):
            is_data = one.startswith("data:") or len(one) > 300
            facts.append(f"{len(one):,} characters of data" if is_data else one)
    return f"[{media.kind}: {', '.join(reversed(facts))}]"


def _view_answers(chosen: str, rejected: str) -> Iterable[TurnView]:
    better, worse = mark_differences(chosen, rejected)
    yield TurnView("chosen", (Part("text", better),), is_learned=True)
    yield TurnView("rejected", (Part("text", worse),))


def mark_differences(one: str, other: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Return two texts as spans: those that only one of them has are marked."""
    left, right = _WORD.findall(one), _WORD.findall(other)
    if max(len(left), len(right)) > MAX_COMPARED_WORDS:
        return _mark_middle(left, right), _mark_middle(right, left)
    marks: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for operation, i, j, k, m in matcher.get_opcodes():
        marks[0].extend((word, operation != "equal") for word in left[i:j])
        marks[1].extend((word, operation != "equal") for word in right[k:m])
    return _to_spans(marks[0]), _to_spans(marks[1])


def _mark_middle(words: Sequence[str], others: Sequence[str]) -> tuple[Span, ...]:
    """Return words as spans: marked from the first to the last that differs."""
    shorter = min(len(words), len(others))
    start = next((n for n in range(shorter) if words[n] != others[n]), shorter)
    left = shorter - start
    end = next((n for n in range(left) if words[-1 - n] != others[-1 - n]), left)
    last = len(words) - end
    return _to_spans([(word, start <= n < last) for n, word in enumerate(words)])


def _to_spans(words: Iterable[tuple[str, bool]]) -> tuple[Span, ...]:
    return tuple(
        Span("".join(word for word, _ in group), differs)
        for differs, group in groupby(words, key=lambda word: word[1])
    )


def _text_part(text: str, kind: str = "text") -> Part:
    return Part(kind, (Span(text),))


def _as_text(value: object) -> str:
    """Return a value as text: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
