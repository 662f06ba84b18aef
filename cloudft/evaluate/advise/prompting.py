"""Build the prompts of the methods that need no training."""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.evaluate.advise.bm25 import Bm25Index
from cloudft.evaluate.held_out import EvalExample
from cloudft.evaluate.metrics.tasks import Task
from cloudft.inference import Prompt

SHOTS = 4
"""Examples before a question."""
PASSAGES = 2
"""Passages before a question."""
MAX_LISTED_LABELS = 30
"""More labels than this are not listed in a prompt."""


def zero_shot_prompt(example: EvalExample, task: Task) -> Prompt:
    """Return the question; for a classification task, list the possible labels after it."""
    named = [label for label in task.labels if label.lower() in example.input_text.lower()]
    too_many = len(task.labels) > MAX_LISTED_LABELS
    if not task.labels or too_many or len(named) == len(task.labels):
        return example.prompt
    labels = ", ".join(task.labels)
    return _with_question(
        example, f"{example.input_text}\n\nAnswer with one of these alone: {labels}."
    )


def few_shot_prompt(
    example: EvalExample, train_examples: Sequence[EvalExample], index: Bm25Index
) -> Prompt:
    """Return the question after the most similar examples as turns, the most similar one last."""
    turns: list[dict[str, str]] = []
    for i in reversed(index.search(example.input_text, SHOTS)):
        shot = train_examples[i]
        turns.append({"role": "user", "content": shot.input_text})
        turns.append({"role": "assistant", "content": shot.reference})
    messages = example.prompt.messages
    system = [m for m in messages if m["role"] == "system"]
    return Prompt([*system, *turns, *(m for m in messages if m["role"] != "system")])


def retrieval_prompt(example: EvalExample, index: Bm25Index) -> Prompt:
    """Return the question after the best matching passages, the best one last."""
    passages = [index.texts[i] for i in reversed(index.search(example.input_text, PASSAGES))]
    if not passages:
        return example.prompt
    context = "\n\n".join(passages)
    return _with_question(
        example,
        f"Use this information:\n\n{context}\n\nQuestion: {example.input_text}",
    )


def _with_question(example: EvalExample, text: str) -> Prompt:
    """Return the example's conversation with another last user message."""
    return Prompt([*example.prompt.messages[:-1], {"role": "user", "content": text}])


def count_characters(prompt: Prompt) -> int:
    """Return the number of characters of a prompt."""
    if prompt.text is not None:
        return len(prompt.text)
    return sum(len(message["content"]) for message in prompt.messages)
