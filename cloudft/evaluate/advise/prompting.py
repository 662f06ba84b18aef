"""Build the prompts of the methods that need no training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from cloudft.evaluate.advise.bm25 import Bm25Index
from cloudft.evaluate.held_out import EvalExample
from cloudft.evaluate.metrics.tasks import Task
from cloudft.inference import Message, Prompt, message_text

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
    if not example.has_plain_question:
        return example.prompt
    labels = ", ".join(task.labels)
    return example.with_question(
        f"{example.input_text}\n\nAnswer with one of these alone: {labels}."
    )


def few_shot_prompt(
    example: EvalExample, train_examples: Sequence[EvalExample], index: Bm25Index
) -> Prompt:
    """Return the question after the most similar examples as turns, the most similar one last."""
    turns: list[Message] = []
    for i in reversed(index.search(example.input_text, SHOTS)):
        turns += _shot_turns(train_examples[i])
    messages = example.prompt.messages
    system = [m for m in messages if m["role"] == "system"]
    rest = [m for m in messages if m["role"] != "system"]
    return replace(example.prompt, messages=[*system, *turns, *rest])


def _shot_turns(shot: EvalExample) -> list[Message]:
    """Return an example as turns: its last question, the tool calls since, and its answer."""
    messages = shot.prompt.messages
    first = max((i for i, m in enumerate(messages) if isinstance(m["content"], str)), default=0)
    reply = shot.reply or {"role": "assistant", "content": shot.reference}
    return [*messages[first:], reply]


def retrieval_prompt(example: EvalExample, index: Bm25Index) -> Prompt:
    """Return the question after the best matching passages, the best one last."""
    passages = [index.texts[i] for i in reversed(index.search(example.input_text, PASSAGES))]
    if not passages or not example.has_plain_question:
        return example.prompt
    context = "\n\n".join(passages)
    return example.with_question(
        f"Use this information:\n\n{context}\n\nQuestion: {example.input_text}",
    )


def count_characters(prompt: Prompt) -> int:
    """Return the number of characters of a prompt."""
    if prompt.text is not None:
        return len(prompt.text)
    tools = json.dumps(prompt.tool_config) if prompt.tool_config else ""
    return len(tools) + sum(len(message_text(message)) for message in prompt.messages)
