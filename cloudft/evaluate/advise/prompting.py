"""The ways to get an answer without training: what the base model is asked in each."""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.evaluate.advise.bm25 import Bm25Index
from cloudft.evaluate.held_out import EvalExample
from cloudft.evaluate.metrics.tasks import Task
from cloudft.inference import Prompt

SHOTS = 4
"""Examples that stand before a question."""
PASSAGES = 2
"""Passages that stand before a question."""
MAX_LISTED_LABELS = 30
"""More labels than this are not listed in a prompt."""


def zero_shot_prompt(item: EvalExample, task: Task) -> Prompt:
    """The question, with the labels to choose from where the answers are labels."""
    named = [label for label in task.labels if label.lower() in item.input_text.lower()]
    if not task.labels or len(task.labels) > MAX_LISTED_LABELS or len(named) == len(task.labels):
        return item.prompt
    labels = ", ".join(task.labels)
    return _with_question(item, f"{item.input_text}\n\nAnswer with one of these alone: {labels}.")


def few_shot_prompt(item: EvalExample, examples: Sequence[EvalExample], index: Bm25Index) -> Prompt:
    """The examples most like the question before it, the likest last, as turns of the talk."""
    turns: list[dict[str, str]] = []
    for place in reversed(index.search(item.input_text, SHOTS)):
        example = examples[place]
        turns.append({"role": "user", "content": example.input_text})
        turns.append({"role": "assistant", "content": example.reference})
    asked = item.prompt.messages
    system = [m for m in asked if m["role"] == "system"]
    return Prompt([*system, *turns, *(m for m in asked if m["role"] != "system")])


def retrieval_prompt(item: EvalExample, index: Bm25Index) -> Prompt:
    """The passages that share most with the question before it, the best one next to it."""
    found = [index.texts[place] for place in reversed(index.search(item.input_text, PASSAGES))]
    if not found:
        return item.prompt
    passages = "\n\n".join(found)
    return _with_question(
        item,
        f"Use this information:\n\n{passages}\n\nQuestion: {item.input_text}",
    )


def _with_question(item: EvalExample, text: str) -> Prompt:
    """The item's conversation with another last question."""
    return Prompt([*item.prompt.messages[:-1], {"role": "user", "content": text}])


def count_characters(prompt: Prompt) -> int:
    """How much a prompt says."""
    if prompt.text is not None:
        return len(prompt.text)
    return sum(len(message["content"]) for message in prompt.messages)
