"""Propose what to write in the job file for records that nothing reads, or that have two readings.

Every proposal is a line that works when it is pasted: its columns are the record's own. There are
two where either may be meant; nothing is chosen.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudft.data.formats.columns_line import columns_line
from cloudft.data.formats.key_roles import is_descriptive, is_meaningful
from cloudft.data.formats.multiple_choice import propose_choice
from cloudft.data.formats.nested_records import propose_flattening
from cloudft.data.formats.pairs import COMPLETION_KEYS, PROMPT_KEYS
from cloudft.data.formats.record import BadRecord, RawRecord
from cloudft.data.formats.record_format import RecordFormat
from cloudft.data.formats.text_lists import propose_lists

SHOWN_KEYS = 8
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
TEXT_TASK = "customization_type: CONTINUED_PRE_TRAINING"
SHOWN_LOST_KEYS = 3
PROMPT_NAMES = (
    *PROMPT_KEYS,
    *("text", "message", "sentence", "dialogue", "content", "article", "document", "input_text"),
    *("user_text", "user_message", "user_input", "user_query", "user_question", "user_prompt"),
)
LABEL_NAMES = (
    *COMPLETION_KEYS,
    *("label", "category", "intent", "class", "target", "summary", "sentiment", "reply", "tag"),
    *("answers", "target_text", "label_text"),
)
FURTHER_COLUMNS = {
    **dict.fromkeys(("system", "system_prompt", "system_message", "preamble"), "system"),
    **dict.fromkeys(
        ("context", "contexts", "passage", "passages", "document", "documents", "docs"), "context"
    ),
    **dict.fromkeys(
        ("knowledge", "background", "evidence", "facts", "choices", "options"), "context"
    ),
    **dict.fromkeys(
        ("reasoning", "reasoning_content", "thinking", "thought", "thoughts"), "reasoning"
    ),
    **dict.fromkeys(("rationale", "explanation", "cot", "chain_of_thought"), "reasoning"),
    **dict.fromkeys(("tools", "functions"), "tools"),
    **dict.fromkeys(("history", "chat_history", "conversation_history"), "history"),
}
"""Columns that say more about a prompt and its answer, by the names that people give them."""


def explain_unknown(value: RawRecord, *, is_labeled: bool) -> BadRecord:
    """Return the error for a record in no known format: its columns, and the lines to paste."""
    message = f"no known format has these keys: {list_columns(value)}"
    choice = propose_rewriting(value) if is_labeled else ""
    proposals = [] if choice else propose_columns(value, is_labeled=is_labeled)
    fix = choice or _join_lines(proposals)
    if not fix:
        return BadRecord("WrongKeys", message, _manual_fix(value, is_labeled=is_labeled))
    named = {key for columns in proposals for key in columns.values()}
    rest = [key for key in _text_keys(value) if key not in named]
    if proposals and is_labeled and rest:
        fix += f", without {_join_names(rest[:SHOWN_LOST_KEYS])}"
    return BadRecord("WrongKeys", message, fix)


def propose_columns(value: RawRecord, *, is_labeled: bool) -> list[dict[str, str]]:
    """Return what `data.columns` may say for a record in no known format.

    One choice, two where either may be meant, or none.
    """
    if is_labeled:
        return [] if propose_rewriting(value) else _propose_pairs(value)
    texts = sorted(_text_keys(value), key=lambda key: -len(str(value[key])))
    return [{"text": key} for key in texts[:2]]


def propose_rewriting(value: RawRecord) -> str:
    """Return the command that makes pairs of a record whose columns are none: "" for another."""
    choice = propose_choice(value)
    if choice:
        return choice
    found = _find_candidates(value)
    used = {*found.prompts, *found.answers, *found.further.values()}
    rest = [key for key in _text_keys(value) if key not in used and not is_descriptive(key)]
    texts = [*found.prompts, *sorted(rest, key=lambda key: -len(str(value[key])))]
    further = {name: key for name, key in found.further.items() if name in ("system", "context")}
    answers = [key for key in found.answers if isinstance(value[key], str)]
    return propose_lists(value, texts, answers, further)


def _join_lines(proposals: Iterable[Mapping[str, str]]) -> str:
    return " or ".join(map(columns_line, proposals))


def _manual_fix(value: RawRecord, *, is_labeled: bool) -> str:
    if not is_labeled:
        return 'write each record as {"text": ...}'
    fix = 'write each record as {"prompt": ..., "completion": ...}'
    texts = _text_keys(value)
    # Ids beside nested records are no texts to train on.
    flattening = "" if not all(map(is_descriptive, texts)) else propose_flattening(value)
    if flattening:
        return f"{flattening} or {fix}"
    if len(texts) != 1 or _lost(value, texts):
        return fix
    line = columns_line({"text": texts[0]})
    return f"{fix}, or train on the text alone: {line} with {TEXT_TASK}"


def may_be_a_label(key: str, value: object) -> bool:
    """Return whether a text's record may have its label here, whatever the value says."""
    if value in (None, "", [], {}):
        return False
    return _in(key, LABEL_NAMES) or not is_descriptive(key)


def _text_keys(value: RawRecord) -> list[str]:
    """Return the keys of texts; those that describe the record only if there is no other.

    A number is none: a table has its class numbers as text.
    """
    texts = [
        key
        for key, item in value.items()
        if isinstance(item, str) and item.strip() and not _NUMBER.fullmatch(item.strip())
    ]
    return [key for key in texts if not is_descriptive(key)] or texts


@dataclass(frozen=True)
class _Candidates:
    """A record's keys by what they may be. `others` are texts under names that say nothing."""

    prompts: list[str]
    answers: list[str]
    others: list[str]
    further: dict[str, str]


def _find_candidates(value: RawRecord) -> _Candidates:
    texts = _text_keys(value)
    scalars = [
        key
        for key, item in value.items()
        if isinstance(item, (str, int, float)) and item != "" and not isinstance(item, bool)
    ]
    answers = [key for key in scalars if _in(key, LABEL_NAMES)]
    answers = [key for key in answers if not is_descriptive(key)] or answers
    prompts = [key for key in texts if _in(key, PROMPT_NAMES) and key not in answers]
    further = find_further_columns(value)
    used = {*answers, *further.values()}
    if set(prompts) - used:
        prompts = [key for key in prompts if key not in used]
    else:  # the text that would be a context is all that there is to ask about
        further = {name: key for name, key in further.items() if key not in prompts}
    used = {*prompts, *answers, *further.values()}
    others = [key for key in texts if key not in used and not _is_judgment(key)]
    if len(prompts) + len(answers) + len(others) < 2:  # `source` and `target`: all that there is
        strings = [key for key, item in value.items() if isinstance(item, str) and item.strip()]
        others = [key for key in strings if key not in used and not _is_judgment(key)]
        others = others if len(prompts) + len(answers) + len(others) == 2 else []
    return _Candidates(prompts, answers, others, further)


def _is_judgment(key: str) -> bool:
    """Return whether a key says something about an answer (`winner`): not a prompt, no answer."""
    return is_meaningful(key) and len(key.strip()) > 1


def find_further_columns(value: RawRecord) -> dict[str, str]:
    """Return the columns of a system prompt, a context, reasoning, tools and a history."""
    further: dict[str, str] = {}
    for key, item in value.items():
        name = FURTHER_COLUMNS.get(key.strip().lower())
        if name is not None and _fits(name, item):
            further.setdefault(name, key)
    return further


def _fits(name: str, item: object) -> bool:
    """Return whether a value can be read as that column."""
    if item in (None, "", [], {}):
        return False
    if isinstance(item, str):
        return name != "history"
    if name in ("tools", "history"):
        return isinstance(item, list)
    return isinstance(item, list) and all(isinstance(part, str) for part in item)


def _propose_pairs(value: RawRecord) -> list[dict[str, str]]:
    """Return the columns to name: one choice, two where the direction is unclear, or none."""
    found = _find_candidates(value)
    proposals = [
        {**pair, **{name: key for name, key in found.further.items() if name not in pair}}
        for pair in _choose_pairs(found, value)
    ]
    return [columns for columns in proposals if not _lost(value, columns.values())]


def _choose_pairs(found: _Candidates, value: RawRecord) -> list[dict[str, str]]:
    def pair(prompt: str, completion: str, **more: str) -> dict[str, str]:
        return {"prompt": prompt, "completion": completion, **more}

    order = list(value)

    def longest(keys: Iterable[str]) -> list[str]:
        # In the record's own order: most tables have the question left of its answer.
        chosen = sorted(keys, key=lambda key: -len(str(value[key])))[:2]
        return sorted(chosen, key=order.index)

    if found.prompts and found.answers:
        return [pair(p, a) for p in found.prompts for a in found.answers][:2]
    if found.answers:
        if len(found.others) == 2 and "context" not in found.further:
            first, second = found.others
            answer = found.answers[0]
            return [pair(second, answer, context=first), pair(first, answer, context=second)]
        return [pair(key, found.answers[0]) for key in longest(found.others)]
    texts = longest([*found.prompts, *found.others])
    if len(found.prompts) == 1 and found.others:  # what is named like a prompt leads
        others = longest(found.others)
        if len(others) > 1:
            return [pair(found.prompts[0], other) for other in others]
        texts = [found.prompts[0], others[0]]
    if len(texts) != 2:
        return []
    classes = [key for key, item in value.items() if _is_class_number(key, item)]
    if len(classes) == 1 and not found.prompts:
        first, second = sorted(texts, key=list(value).index)
        return [pair(second, classes[0], context=first), pair(first, second)]
    return [pair(texts[0], texts[1]), pair(texts[1], texts[0])]


def _is_class_number(key: str, item: object) -> bool:
    """Return whether a value may be the class of two texts: a digit, as a number or as text."""
    is_number = isinstance(item, (int, str)) and not isinstance(item, bool)
    return is_number and bool(_DIGIT.fullmatch(str(item).strip())) and not is_descriptive(key)


def _lost(value: RawRecord, used: Iterable[str]) -> list[str]:
    """Return the keys of lists and objects that carry meaning and that no proposal can use."""
    columns = set(used)
    return [
        key
        for key, item in value.items()
        if key not in columns and isinstance(item, (list, dict)) and item and is_meaningful(key)
    ]


def _in(key: str, names: Iterable[str]) -> bool:
    return key.strip().lower() in names


def explain_leftover(
    lost: Sequence[str], value: RawRecord, format: RecordFormat, readings: Sequence[RecordFormat]
) -> BadRecord:
    """Return the error for keys that a reading would leave out although they may carry meaning.

    Its fix offers to use those that a column can hold, and to leave them out.
    """
    shown = ", ".join(f"{key[:40]!r} ({_sample(value[key])})" for key in lost[:SHOWN_LOST_KEYS])
    more = f" and {len(lost) - SHOWN_LOST_KEYS} more" if len(lost) > SHOWN_LOST_KEYS else ""
    message = (
        f"read as {format.title or format.name}, the record would lose {shown}{more}, which may"
        " carry meaning"
    )
    choice = propose_rewriting(value)
    if choice and (choice == propose_choice(value) or any(repr(key) in choice for key in lost)):
        return BadRecord("UnusedKeys", message, choice, lost[0])
    lines = [columns_line(columns_of(f, value)) for f in readings[:2] if f.canonical_columns]
    if not lines:
        fix = f"take {' and '.join(repr(key[:40]) for key in lost)} out of the records"
        return BadRecord("UnusedKeys", message, fix, lost[0])
    columns = columns_of(format, value)
    used = _usable_columns({key: value[key] for key in lost}, format, columns)
    lines = list(dict.fromkeys(lines))
    if used:
        lines = [
            f"to use {_join_names(used.values())}: {columns_line({**columns, **used})}",
            *lines,
        ]
        lines[1] = f"to leave {'it' if len(lost) == 1 else 'all'} out: {lines[1]}"
    elif len(lines) == 1:
        lines[0] = f"to leave {'it' if len(lost) == 1 else 'them'} out: {lines[0]}"
    return BadRecord("UnusedKeys", message, " or ".join(lines), lost[0])


def _join_names(keys: Iterable[str]) -> str:
    return " and ".join(repr(key[:40]) for key in keys)


def _usable_columns(
    lost: RawRecord, format: RecordFormat, columns: Mapping[str, str]
) -> dict[str, str]:
    """Return the columns of lost keys that the format has, and that no other key takes."""
    known = set(format.canonical_columns.values())
    usable: dict[str, str] = {}
    for name, key in find_further_columns(lost).items():
        if name == "context" and name not in known:
            # Chats have no context beside the system prompt, Alpaca's is its input.
            name = "input" if "input" in known else "system"
        if name in known and name not in columns:
            usable.setdefault(name, key)
    return usable


def columns_of(format: RecordFormat, value: RawRecord) -> dict[str, str]:
    """Return the columns that read a record as it is read without them."""
    columns: dict[str, str] = {}
    for key, name in format.canonical_columns.items():
        is_empty = value.get(key) in (None, "", [], {})
        if key in value and (name not in columns or not is_empty):
            columns[name] = key
    return columns


def with_further_column(columns: Mapping[str, str], key: str) -> dict[str, str] | None:
    """Return `data.columns` with a further column, None where it has no name for that one."""
    name = key.strip().lower()
    if name == "input" and columns.get("prompt") == "instruction" and "completion" in columns:
        rest = {k: v for k, v in columns.items() if k not in ("prompt", "completion")}
        names = {"instruction": "instruction", "input": key, "output": columns["completion"]}
        return {**names, **rest}
    further = FURTHER_COLUMNS.get(name, "context" if name == "input" else None)
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
