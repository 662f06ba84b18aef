"""Propose how to write pairs of records that have a list of prompts or of answers.

Several phrasings of a question, several right answers and several labels are not one prompt and
one answer. The remedy is a line that writes such pairs; a person decides what of a list is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloudft.data.formats.key_roles import is_descriptive, is_meaningful
from cloudft.data.formats.nested_records import jq_command, jq_path
from cloudft.data.formats.pairs import COMPLETION_KEYS, PROMPT_KEYS

PROMPT_LISTS = frozenset(
    {*PROMPT_KEYS, *(f"{key}s" for key in PROMPT_KEYS), "queries", "patterns", "utterances"}
)
CLASS_LISTS = frozenset(
    {"label", "labels", "class", "classes", "intent", "intents", "target", "targets"}
    | {"tag", "category", "categories", "emotions"}
)
ANSWER_LISTS = frozenset(
    {*COMPLETION_KEYS, *(f"{key}s" for key in COMPLETION_KEYS), "reply", "replies", "summary"}
    | {"summaries", "references", "captions", "highlights"}
)
SHOWN_KEYS = 3
INNER_KEYS = ("text", "value", "answer", "content")
"""Where an answer that is an object has its text, or a list of texts: `answers.text` in SQuAD."""


def propose_lists(
    value: Mapping[str, object],
    texts: Sequence[str],
    answers: Sequence[str],
    further: Mapping[str, str],
) -> str:
    """Return how to write pairs, "" for a record without a list of prompts or answers.

    `texts` are its keys that may be prompts or answers, the likeliest first, `answers` those that
    are named like an answer, and `further` the keys of a system prompt and a context.
    """
    if any(_is_judgment(key, item) for key, item in value.items()):
        return ""  # of several answers: the first is not the best
    prompts = next((key for key in value if _is_list_of(value[key], key, PROMPT_LISTS)), None)
    found = next(_find_answers(value, is_alone=len(texts) == 1), None)
    beside = {name: key for name, key in further.items() if isinstance(value.get(key), str)}
    if prompts is not None:
        # A question that is there besides is one more prompt, not an answer.
        named = [key for key in texts if key.strip().lower() not in PROMPT_KEYS]
        choices = [found] if found is not None else []
        choices += [_Answer(key, "", "$a", "") for key in answers or named or texts]
    elif found is not None and texts:
        choices = [found]
    else:
        return ""
    prompt = prompts or texts[0]
    if prompt.strip().lower() in ("instruction", "instructions"):
        beside.update(("input", key) for key in texts if key.strip().lower() == "input")
    is_list = prompts is not None
    lines = [_write_pairs(prompt, answer, beside, is_list=is_list) for answer in choices[:2]]
    fix = " or ".join(filter(None, lines))
    left = [key for key in texts[1:] if key not in beside.values() and not is_list]
    return f"{fix}, without {' and '.join(map(repr, left[:SHOWN_KEYS]))}" if fix and left else fix


@dataclass(frozen=True)
class _Answer:
    """The key of answers, the rest of the path to them, what is learned, and that in words."""

    key: str
    end: str
    learned: str
    words: str


def _write_pairs(prompt: str, answer: _Answer, beside: Mapping[str, str], *, is_list: bool) -> str:
    """Return the command that writes each pair, with the texts that belong to it."""
    names = ("prompt", "completion")
    names = ("question", "answer") if "context" in beside else names
    names = ("instruction", "output") if "input" in beside else names
    paths = {key: jq_path([key]) for key in (prompt, answer.key, *beside.values())}
    if None in paths.values():
        return ""
    source = f"{paths[answer.key]}{answer.end}"
    if answer.learned != "$a" and not answer.end:
        source = _flatten(source, answer.key)
    items = [f"{name}: {paths[key]}" for name, key in beside.items()]
    items.append(f"{names[0]}: {'$p' if is_list else paths[prompt]}")
    pair = f"{{{', '.join([*items, f'{names[1]}: {answer.learned}'])}}}"
    words = f"{answer.words} {answer.key!r}".strip()
    if is_list:
        each = f"{_flatten(str(paths[prompt]), prompt)}[] as $p"
        line = jq_command(f"{source} as $a | {each} | {pair}")
        return f"for each of {prompt!r} with {words}: {line}"
    test = "$a" if answer.learned == "$a" else "$a[0]"
    return f"to learn {words}: {jq_command(f'{source} as $a | select({test}) | {pair}')}"


def _flatten(path: str, key: str) -> str:
    """Return the expression for a list that other records may have a text for (`answer`)."""
    name = key.strip().lower()
    is_plural = name.endswith("s") and name != "class"
    return path if is_plural else f"([{path}] | flatten)"


def _find_answers(value: Mapping[str, object], *, is_alone: bool) -> Iterator[_Answer]:
    """Yield several answers.

    Names that may say where a record is from (`categories`) are answers beside one text alone.
    """
    for key, item in value.items():
        if is_descriptive(key) and not is_alone:
            continue
        if _is_list_of(item, key, CLASS_LISTS, int):
            yield _Answer(key, "", '($a | join(", "))', "all of")
        elif _is_list_of(item, key, ANSWER_LISTS):
            yield _Answer(key, "", "$a[0]", "the first of")
        elif isinstance(item, Mapping) and key.strip().lower() in ANSWER_LISTS:
            for inner in INNER_KEYS:
                text = item.get(inner)
                if isinstance(text, str):
                    yield _Answer(key, f".{inner}", "$a", f"{inner!r} of")
                elif _is_list(text, str):
                    yield _Answer(key, f".{inner}", "$a[0]", f"the first {inner!r} of")


def _is_list_of(item: object, key: str, names: frozenset[str], *types: type) -> bool:
    return key.strip().lower() in names and _is_list(item, str, *types)


def _is_list(item: object, *types: type) -> bool:
    return (
        isinstance(item, list)
        and bool(item)
        and all(isinstance(part, types) and not isinstance(part, bool) for part in item)
    )


def _is_judgment(key: str, item: object) -> bool:
    """Return whether a value judges each of several answers: `scores`, `ranks`."""
    name = key.strip().lower()
    return (
        _is_list(item, int, float)
        and name not in CLASS_LISTS
        and (is_meaningful(key) or name in ("ranks", "ranking"))
    )
