"""The ways to get an answer without training: what the base model is asked in each."""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.backends.base import Prompt
from cloudft.evaluate.advise.retrieve import Index
from cloudft.evaluate.held_out import Item
from cloudft.evaluate.tasks import Task

SHOTS = 4
"""Examples that stand before a question."""
PASSAGES = 2
"""Passages that stand before a question."""
LABELS_NAMED = 30
"""More labels than this are not listed in a prompt."""


def zero_shot(item: Item, task: Task) -> Prompt:
    """The question, with the labels to choose from where the answers are labels."""
    named = [label for label in task.labels if label.lower() in item.shown.lower()]
    if not task.labels or len(task.labels) > LABELS_NAMED or len(named) == len(task.labels):
        return item.prompt
    labels = ", ".join(task.labels)
    return _last(item, f"{item.shown}\n\nAnswer with one of these alone: {labels}.")


def few_shot(item: Item, examples: Sequence[Item], index: Index) -> Prompt:
    """The examples most like the question before it, the likest last, as turns of the talk."""
    turns: list[dict[str, str]] = []
    for place in reversed(index.find(item.shown, SHOTS)):
        example = examples[place]
        turns.append({"role": "user", "content": example.shown})
        turns.append({"role": "assistant", "content": example.reference})
    asked = item.prompt.messages
    system = [m for m in asked if m["role"] == "system"]
    return Prompt([*system, *turns, *(m for m in asked if m["role"] != "system")])


def retrieval(item: Item, index: Index) -> Prompt:
    """The passages that share most with the question before it, the best one next to it."""
    found = [index.texts[place] for place in reversed(index.find(item.shown, PASSAGES))]
    if not found:
        return item.prompt
    passages = "\n\n".join(found)
    return _last(
        item,
        f"Use this information:\n\n{passages}\n\nQuestion: {item.shown}",
    )


def _last(item: Item, text: str) -> Prompt:
    """The item's conversation with another last question."""
    return Prompt([*item.prompt.messages[:-1], {"role": "user", "content": text}])


def characters(prompt: Prompt) -> int:
    """How much a prompt says."""
    if prompt.text is not None:
        return len(prompt.text)
    return sum(len(message["content"]) for message in prompt.messages)
