"""Prompts, answers and open models: the values of inference, whatever runs the model."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
"""A turn: `role`, and `content` as a text or as a list of blocks of Bedrock's Converse API."""


def message_text(message: Message) -> str:
    """Return what a message says, as one text: tool calls and JSON results as JSON."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(text for block in content for text in _block_texts(block))


def _block_texts(block: Mapping[str, Any]) -> Iterator[str]:
    if "toolUse" in block:
        use = block["toolUse"]
        call = {"name": use["name"], "arguments": use["input"]}
        yield json.dumps(call, ensure_ascii=False)
    elif "toolResult" in block:
        for part in block["toolResult"]["content"]:
            yield part["text"] if "text" in part else json.dumps(part["json"], ensure_ascii=False)
    elif "reasoningContent" in block:
        yield block["reasoningContent"]["reasoningText"]["text"]
    elif "text" in block:
        yield block["text"]


@dataclass(frozen=True)
class Prompt:
    """A conversation to answer, or (with `text`) raw text to continue.

    `messages` are in order; the first may have the role `system`. `tool_config` is Converse's: the
    tools that may be called.
    """

    messages: Sequence[Message] = ()
    text: str | None = None
    tool_config: Mapping[str, Any] | None = None


FILTERED = "filtered"
"""Finish reason of an answer that a content filter or guardrail has replaced or cut."""


@dataclass(frozen=True)
class GenerationConfig:
    """Decoding parameters. `temperature` 0 is greedy decoding."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 7


@dataclass(frozen=True)
class LocalGenerationConfig(GenerationConfig):
    """Decoding parameters of models on this machine; `top_k` 0 is no limit."""

    top_k: int = 0


@dataclass(frozen=True)
class Answer:
    """One generated answer. `index` is the prompt's position; `variant` is `tuned` or `base`.

    `text` is the answer without its reasoning, with tool calls as JSON (`join_answer` in
    data/formats/record.py). `reasoning` is "" where the model wrote none. Of local models, `calls`
    are the tool calls by themselves (`name`, `arguments`), and `prompt_tokens` counts the prompt.
    """

    index: int
    variant: str
    text: str
    tokens: int
    finish_reason: str
    reasoning: str = ""
    calls: Sequence[Mapping[str, Any]] = ()
    prompt_tokens: int = 0


@dataclass(frozen=True)
class ScoringRequest:
    """A continuation whose log-likelihood is measured, given `prompt`.

    With `reply` it is that message as the model would write it (with its tool calls), of which
    `text` is what people read.
    """

    prompt: Prompt
    text: str
    reply: Message | None = None


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a text: the sum over its `tokens` of ln p, in nats.

    `greedy` is True when each token was the most likely one at its position.
    """

    index: int
    variant: str
    log_likelihood: float
    tokens: int
    greedy: bool


@dataclass(frozen=True)
class LmEvalMetric:
    """One figure of an lm-eval task: a metric, with its filter (`METRIC,FILTER`) if it has one.

    `base` and `tuned` are lm-eval's figures over `records` documents; `base_scores` and
    `tuned_scores` are the documents' own, in the same order, empty where the figure is not their
    mean. `higher_is_better` is what the task states, None where it does not.
    """

    task: str
    figure: str
    records: int
    base: float | None
    tuned: float | None
    higher_is_better: bool | None
    base_scores: Sequence[float]
    tuned_scores: Sequence[float]


class InferenceSession(ABC):
    """The models of one job, loaded or reachable, until `close`. Not thread-safe."""

    @abstractmethod
    def model_identities(self) -> Mapping[str, str]:
        """Return each variant's identity: the sha256 of its weights, or the ARN that answers.

        Two variants that can only answer alike (an adapter that was never trained) share one.
        """

    @abstractmethod
    def answer_keys(self) -> Mapping[str, str]:
        """Return for each variant a key of all that decides its answer to a request.

        Besides the weights these are the tokenizer, the chat template, stop tokens, precision and
        the versions of what runs the model; of a service, its endpoint.
        """

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield an answer for each prompt and variant, in order of completion."""

    @abstractmethod
    def close(self) -> None:
        """Release the models."""


class SupportsLogLikelihood(ABC):
    """An InferenceSession that can score given text."""

    @abstractmethod
    def loglikelihood(
        self, requests: Sequence[ScoringRequest], variants: Sequence[str]
    ) -> Iterator[Likelihood]:
        """Yield the likelihood of each continuation, without its end token, for each variant."""

    @abstractmethod
    def loglikelihood_rolling(
        self, texts: Sequence[str], variants: Sequence[str], *, window: int | None = None
    ) -> Iterator[Likelihood]:
        """Yield the likelihood of each whole document for each variant.

        Documents are scored in overlapping windows of `window` tokens (the context length at
        most). Every token but the first is predicted once, from at least half a window of the
        tokens before it where there are that many. `greedy` has no meaning here and is False.
        """
