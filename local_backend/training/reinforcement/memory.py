"""What sampling and learning need of memory at most: answers of the greatest length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from local_backend.data.batches import MicroBatchLimit
from local_backend.data.examples import Example
from local_backend.grading.grader import Grade
from local_backend.models.sampling import Sampled
from local_backend.settings import Reinforcement, Settings
from local_backend.training.reinforcement.policy_examples import PolicyExample, build_examples
from local_backend.training.reinforcement.prompts import PromptExample
from local_backend.training.reinforcement.rollouts import CHUNK_ROWS, Group

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LOGIT_COPIES = 4
"""Tensors of the size of the logits that choosing a token allocates."""


def largest_batch(
    prompts: Sequence[Example], settings: Settings, limit: MicroBatchLimit
) -> list[PolicyExample]:
    """Return the examples of a step with the longest prompts and the longest answers."""
    reinforcement = settings.reinforcement
    assert reinforcement is not None
    longest = sorted(prompts, key=lambda prompt: len(prompt.ids))[-settings.batch_size :]
    groups = [
        _longest_group(prompt, reinforcement)
        for prompt in longest
        if isinstance(prompt, PromptExample)
    ]
    return build_examples(groups, reinforcement, limit)


def _longest_group(prompt: PromptExample, settings: Reinforcement) -> Group:
    token = int(prompt.ids[0])
    answer = Sampled([token] * settings.max_new_tokens, False, 0.0)
    # Different rewards: a group without a better answer would not be learned from.
    grades = [Grade(float(number == 0), {}) for number in range(settings.samples_per_prompt)]
    return Group(prompt, [answer] * settings.samples_per_prompt, grades)


def rollout_bytes(config: PreTrainedConfig, settings: Settings, longest: int, size: int) -> int:
    """Return the bytes of keys, values and logits while a chunk of answers is sampled.

    `longest` is the length of the longest prompt, `size` that of a number in bytes. An upper bound
    for both samplers: the packed one keeps a prompt once for all of its answers.
    """
    reinforcement = settings.reinforcement
    assert reinforcement is not None
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    rows = max(
        reinforcement.samples_per_prompt,
        min(CHUNK_ROWS, settings.batch_size * reinforcement.samples_per_prompt),
    )
    per_token = 2 * int(text.num_hidden_layers) * kv_heads * width * size
    cache = rows * (longest + reinforcement.max_new_tokens) * per_token
    return cache + LOGIT_COPIES * rows * int(text.vocab_size) * 4
