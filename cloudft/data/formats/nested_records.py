"""Find the records within a record that holds them, and write the command that takes them out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

MAX_DEPTH = 4
MAX_SETS = 3
_PLAIN = re.compile(r"[A-Za-z_]\w*")
_KEYWORDS = frozenset(
    {"and", "def", "else", "end", "if", "import", "label", "or", "reduce", "then"}
)


def jq_command(program: str, name: str = "PAIRS") -> str:
    """Return the command that writes other records from a file of JSON."""
    return f"jq -c '{program}' FILE > {name}.jsonl"


def jq_path(keys: Sequence[str]) -> str | None:
    """Return the path to a value in jq, None for keys that a shell's quotes can't hold."""
    if any("'" in key or '"' in key or "\\" in key for key in keys):
        return None
    return "".join(
        f".{key}" if _PLAIN.fullmatch(key) and key not in _KEYWORDS else f'.["{key}"]'
        for key in keys
    )


def propose_flattening(value: Mapping[str, object]) -> str:
    """Return how to write the records that a record holds, for each set of them; "" for none."""
    if _is_table_by_id(value):
        return f"for the records under their ids: {jq_command('.[]', 'RECORDS')}"
    found = list(_find_records((), value))[:MAX_SETS]
    chats = [keys for keys, records in found if isinstance(records, list) and _is_chat(records)]
    if chats:
        return _join_chat(chats[0], value)
    return " or ".join(filter(None, (_flatten(keys, records) for keys, records in found)))


def _is_table_by_id(value: Mapping[str, object]) -> bool:
    """Return whether all values are objects with the same keys: records by their ids."""
    records = [item for item in value.values() if isinstance(item, Mapping)]
    shapes = {tuple(sorted(map(str, item))) for item in records}
    has_ids = all(any(map(str.isdigit, key)) for key in value)  # `user` and `bot` are no ids
    return has_ids and 1 < len(records) == len(value) and len(shapes) == 1


def _is_chat(records: list[object]) -> bool:
    return all(isinstance(i, Mapping) and "role" in i and "content" in i for i in records)


def _join_chat(keys: Sequence[str], value: Mapping[str, object]) -> str:
    """Return how to write a nested chat, with the answer that a logged response has beside it."""
    path, answer = jq_path(keys), next(_find_answers((), value), None)
    if path is None:
        return ""
    answer_path = jq_path(answer) if answer else None
    messages = f"({path} + [{answer_path}[0].message])" if answer_path else path
    return f"for the chat in {keys[-1]!r}: {jq_command(f'{{messages: {messages}}}', 'CHATS')}"


def _find_answers(keys: tuple[str, ...], value: object) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to `choices` of a chat completion, as OpenAI's API answers."""
    if not isinstance(value, Mapping) or len(keys) >= MAX_DEPTH:
        return
    for key, item in value.items():
        is_list = key == "choices" and isinstance(item, list) and bool(item)
        if is_list and isinstance(item[0], Mapping) and isinstance(item[0].get("message"), Mapping):
            yield (*keys, str(key))
        else:
            yield from _find_answers((*keys, str(key)), item)


def _flatten(keys: Sequence[str], records: list[object] | dict[str, object]) -> str:
    path = jq_path(keys)
    if path is None:
        return ""
    if isinstance(records, list):
        return f"for what is in {keys[-1]!r}: {jq_command(f'{path}[]', 'RECORDS')}"
    texts = [str(key) for key, item in records.items() if isinstance(item, str)]
    ends = [jq_path([key]) for key in texts]
    if len(texts) != 2 or None in ends:
        return f"for what is in {keys[-1]!r}: {jq_command(path, 'RECORDS')}"
    lines = [
        jq_command(f"{path} | {{prompt: {prompt}, completion: {answer}}}")
        for prompt, answer in (ends, ends[::-1])
    ]
    return " or ".join(lines)


def _find_records(
    keys: tuple[str, ...], value: object
) -> Iterator[tuple[tuple[str, ...], list[object] | dict[str, object]]]:
    """Yield lists of objects, and objects of several texts, with the keys that lead to each."""
    if not isinstance(value, Mapping) or len(keys) >= MAX_DEPTH:
        return
    for key, item in value.items():
        here = (*keys, str(key))
        if isinstance(item, list) and item and all(isinstance(i, dict) for i in item):
            if any(_has_texts(i, 1) for i in item):
                yield here, item
        elif isinstance(item, dict):
            if _has_texts(item, 2):
                yield here, item
            else:
                yield from _find_records(here, item)


def _has_texts(value: object, count: int) -> bool:
    if not isinstance(value, Mapping):
        return False
    return sum(isinstance(i, str) and bool(i.strip()) for i in value.values()) >= count
