"""Recognize a question whose choices are under several keys, and whose answer names one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TypeGuard

from cloudft.data.formats.key_roles import is_descriptive
from cloudft.data.formats.nested_records import jq_command, jq_path

ANSWER_KEYS = ("label", "answer", "answer_key", "answerkey", "correct", "correct_answer", "gold")
MIN_CHOICES = 2
_CHOICE = re.compile(r"(option|choice|opt?|ending|sol|solution|answer|)_?([a-e0-9])")


def propose_choice(value: Mapping[str, object]) -> str:
    """Return how to write the question with its choices, and the text of the right one.

    "" for a record that is none: the answer must name one of the choices.
    """
    from_list = _propose_from_list(value)
    if from_list:
        return from_list
    choices = _find_choices(value)
    answer = next((key for key in value if _names_a_choice(key, value[key], choices)), None)
    used = {answer, *choices.values()}
    texts = [
        key
        for key, item in value.items()
        if isinstance(item, str) and key not in used and not is_descriptive(key)
    ]
    paths = {key: jq_path([key]) for key in (*texts, *choices.values(), answer or "")}
    if answer is None or not texts or None in paths.values():
        return ""
    lines = [str(paths[key]) for key in texts]
    lines += [f"{json.dumps(f'{name}) ')} + {paths[key]}" for name, key in choices.items()]
    by_name = ", ".join(f'"{name}": {paths[key]}' for name, key in choices.items())
    program = (
        f'{{prompt: ([{", ".join(lines)}] | join("\\n")),'
        f" completion: {{{by_name}}}[{paths[answer]} | tostring | ascii_downcase]}}"
    )
    return f"to learn to write the choice that {answer!r} names: {jq_command(program)}"


def _propose_from_list(value: Mapping[str, object]) -> str:
    """Return how to write a question whose choices are a list, as MMLU and ARC have them.

    MMLU's answer is the place of a choice from 0, ARC's the label of one.
    """
    question, choices = value.get("question"), value.get("choices")
    answer = next((key for key in value if key.strip().lower() in ANSWER_KEYS), None)
    path = jq_path([answer]) if answer is not None else None
    if answer is None or path is None or not isinstance(question, str):
        return ""
    named = value[answer]
    if isinstance(choices, Mapping):
        texts, labels = choices.get("text"), choices.get("label")
        if not _is_texts(texts) or not _is_texts(labels) or named not in labels:
            return ""
        lines = '([.choices.label, .choices.text] | transpose | map(.[0] + ") " + .[1]))'
        right = f".choices as $c | {path} as $a | $c.text[$c.label | index($a)]"
    elif _is_texts(choices) and isinstance(named, int) and not isinstance(named, bool):
        if not 0 <= named < len(choices):
            return ""
        lines = '(.choices | to_entries | map("\\(.key)) \\(.value)"))'
        right = f".choices[{path}]"
    else:
        return ""
    program = f'{{prompt: ([.question] + {lines} | join("\\n")), completion: ({right})}}'
    return f"to learn to write the choice that {answer!r} names: {jq_command(program)}"


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return (
        isinstance(value, list)
        and len(value) >= MIN_CHOICES
        and all(isinstance(item, str) for item in value)
    )


def _find_choices(value: Mapping[str, object]) -> dict[str, str]:
    """Return the keys of the choices by their letter or number; {} unless there are two or more."""
    stems: dict[str, dict[str, str]] = {}
    for key, item in value.items():
        match = _CHOICE.fullmatch(key.strip().lower())
        if match is not None and isinstance(item, str):
            stems.setdefault(match[1], {})[match[2]] = key
    return next((found for found in stems.values() if len(found) >= MIN_CHOICES), {})


def _names_a_choice(key: str, item: object, choices: Mapping[str, str]) -> bool:
    if key in choices.values() or key.strip().lower() not in ANSWER_KEYS:
        return False
    is_name = isinstance(item, (str, int)) and not isinstance(item, bool)
    return is_name and str(item).strip().lower() in choices
