"""Propose what to write in the job file for records that nothing reads, or that have two readings.

Every proposal is a line that works when it is pasted: its columns are the record's own. There are
two where either may be meant; nothing is chosen.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from cloudft.data.formats.key_roles import is_descriptive
from cloudft.data.formats.pairs import COMPLETION_KEYS, PROMPT_KEYS
from cloudft.data.formats.record import BadRecord, RawRecord
from cloudft.data.formats.record_format import RecordFormat

SHOWN_KEYS = 8
PROMPT_NAMES = (
    *PROMPT_KEYS,
    "text",
    "message",
    "sentence",
    "document",
    "article",
    "dialogue",
    "content",
)
LABEL_NAMES = (
    *COMPLETION_KEYS,
    *("label", "category", "intent", "class", "target", "summary", "sentiment", "reply", "tag"),
)
COLUMN_FOR = {
    "system": "system",
    "system_prompt": "system",
    "system_message": "system",
    "context": "context",
    "passage": "context",
    "document": "context",
    "reasoning": "reasoning",
    "thinking": "reasoning",
    "rationale": "reasoning",
    "tools": "tools",
    "history": "history",
}
"""Further keys of a pair, by the names that people's columns have."""
_PLAIN = re.compile(r"[A-Za-z_][\w.-]*")


def columns_line(columns: Mapping[str, str]) -> str:
    """Return `data.columns: {prompt: question, ...}`, quoted where YAML needs it."""
    pairs = ", ".join(f"{name}: {_quote(column)}" for name, column in columns.items())
    return f"data.columns: {{{pairs}}}"


def _quote(column: str) -> str:
    is_word = _PLAIN.fullmatch(column) and column.lower() not in (
        "null",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
    )
    return column if is_word else json.dumps(column, ensure_ascii=False)


def explain_unknown(value: RawRecord, *, is_labeled: bool) -> BadRecord:
    """Return the error for a record in no known format: its columns, and the lines to paste."""
    texts = [
        key for key, item in value.items() if isinstance(item, str) and not is_descriptive(key)
    ]
    texts = texts or [key for key, item in value.items() if isinstance(item, str)]
    message = f"no known format has these keys: {list_columns(value)}"
    proposals = _propose(texts, value, is_labeled=is_labeled)
    if not proposals:
        return BadRecord("WrongKeys", message, _manual_fix(value, is_labeled=is_labeled))
    return BadRecord("WrongKeys", message, " or ".join(map(columns_line, proposals)))


def _manual_fix(value: RawRecord, *, is_labeled: bool) -> str:
    needs = '{"prompt": ..., "completion": ...}' if is_labeled else '{"text": ...}'
    return f"write each record as {needs}"


def _propose(texts: Sequence[str], value: RawRecord, *, is_labeled: bool) -> list[dict[str, str]]:
    """Return the columns to name: one choice, two where the direction is unclear, or none."""
    if not is_labeled:
        longest = sorted(texts, key=lambda key: -len(str(value[key])))
        return [{"text": key} for key in longest[:2]]
    numbers = [
        key
        for key, item in value.items()
        if isinstance(item, (int, float)) and not isinstance(item, bool) and _in(key, LABEL_NAMES)
    ]
    prompts = [key for key in texts if _in(key, PROMPT_NAMES)]
    answers = [key for key in (*texts, *numbers) if _in(key, LABEL_NAMES) and key not in prompts]
    if prompts and answers:
        pairs = [(prompt, answer) for prompt in prompts for answer in answers][:2]
    elif answers and len(rest := [key for key in texts if key not in answers]) >= 1:
        pairs = (
            [(rest[0], answers[0])] if len(rest) == 1 else [(key, answers[0]) for key in rest[:2]]
        )
    elif len(texts) >= 2:
        # Both directions are offered; what is named like a prompt, or is longer, leads.
        by_length = sorted(texts, key=lambda key: -len(str(value[key])))
        longest = sorted(by_length, key=lambda key: key not in prompts)[:2]
        pairs = [(longest[0], longest[1]), (longest[1], longest[0])]
    else:
        return []
    return [{"prompt": prompt, "completion": answer} for prompt, answer in pairs]


def _in(key: str, names: Iterable[str]) -> bool:
    return key.strip().lower() in names


def explain_leftover(
    key: str, value: RawRecord, format: RecordFormat, readings: Sequence[RecordFormat]
) -> BadRecord:
    """Return the error for a key that a reading would leave out although it may carry meaning."""
    message = (
        f"read as {format.title or format.name}, the record would lose {key[:40]!r}"
        f" ({_sample(value[key])}), which may carry meaning"
    )
    proposals = [columns_line(_columns_of(f, value)) for f in readings[:2]]
    further = COLUMN_FOR.get(key.strip().lower())
    if further is not None and further in format.canonical_columns.values():
        both = {**_columns_of(format, value), further: key}
        proposals = [f"{columns_line(both)} to use it, or {proposals[0]} to leave it out"]
    fix = " or ".join(dict.fromkeys(proposals)) or f"take {key[:40]!r} out of the records"
    if further is None and len(proposals) == 1:
        fix = f"to leave it out: {fix}"
    return BadRecord("UnusedKeys", message, fix, key)


def _columns_of(format: RecordFormat, value: RawRecord) -> dict[str, str]:
    """Return the columns that read a record as it is read without them."""
    names = format.canonical_columns
    return {
        canonical: key
        for key, canonical in names.items()
        if value.get(key) not in (None, "", [], {}) or key in format.keys.required
    }


def with_further_column(columns: Mapping[str, str], key: str) -> dict[str, str] | None:
    """Return `data.columns` with a further column, None where it has no name for that one."""
    name = key.strip().lower()
    if name == "input" and columns.get("prompt") == "instruction" and "completion" in columns:
        rest = {k: v for k, v in columns.items() if k not in ("prompt", "completion")}
        names = {"instruction": "instruction", "input": key, "output": columns["completion"]}
        return {**names, **rest}
    further = COLUMN_FOR.get(name, "context" if name == "input" else None)
    if further is None or further in columns or "text" in columns:
        return None
    if "messages" in columns and further not in ("system", "tools"):
        return None  # a chat has no such part
    return {**columns, further: key}


def explain_missing_column(missing: str, columns: Mapping[str, str], value: RawRecord) -> BadRecord:
    """Return the error for a column of `data.columns` that a record lacks."""
    names = [str(key) for key in value]
    same = [name for name in names if name.strip().lower() == missing.strip().lower()]
    near = same or difflib.get_close_matches(missing, names, n=1)
    message = f"no column {missing[:60]!r} (data.columns); the columns are {list_columns(value)}"
    if near:
        right = {k: near[0] if column == missing else column for k, column in columns.items()}
        fix = (
            columns_line(right)
            if set(right.values()) <= set(names)
            else f"did you mean {near[0]!r}?"
        )
    else:
        fix = f"name one of the columns there instead of {missing[:60]!r}"
    return BadRecord("WrongKeys", message, fix, missing)


def list_columns(value: RawRecord) -> str:
    """Return a record's keys, each with its type and the length of a text."""
    shown = [
        f"{str(key)[:40]!r} ({_sample(item)})" for key, item in list(value.items())[:SHOWN_KEYS]
    ]
    more = [f"{len(value) - SHOWN_KEYS} more"] if len(value) > SHOWN_KEYS else []
    return ", ".join([*shown, *more]) or "none"


def _sample(item: object) -> str:
    if isinstance(item, str):
        return f"text, {len(item)} characters"
    names = {dict: "an object", bool: "true or false", type(None): "null"}
    if isinstance(item, list):
        return f"a list of {len(item)}"
    return names.get(type(item), "a number")
