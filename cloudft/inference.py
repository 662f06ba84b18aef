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
    tools that may be called. With `token_ids`, which an Engine alone takes, the raw text is these
    tokens of the model.
    """

    messages: Sequence[Message] = ()
    text: str | None = None
    tool_config: Mapping[str, Any] | None = None
    token_ids: Sequence[int] | None = None


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


CANCELED = "canceled"
"""Finish reason of a streamed answer that was stopped by `cancel`."""


@dataclass(frozen=True)
class AnswerDelta:
    """What is new in a streamed answer. `tokens` counts those of the answer so far.

    Texts are whole characters, and are never taken back: one after another they are the answer.
    """

    variant: str
    text: str
    reasoning: str
    tokens: int


@dataclass(frozen=True)
class AnswerEnd:
    """The end of a streamed answer: the whole `answer`, whose index is 0.

    `token_ids` are the tokens of a local model, for `token_probabilities`; empty for others.
    """

    answer: Answer
    token_ids: Sequence[int] = ()


StreamEvent = AnswerDelta | AnswerEnd


@dataclass(frozen=True)
class TokenAlternative:
    """A token that a model could have written at some position, and its probability there."""

    token_id: int
    text: str
    probability: float


@dataclass(frozen=True)
class TokenProbability:
    """A token of an answer: its probability at temperature 1 and among all tokens.

    `text` is what it adds to the answer, "" for the first parts of a character. `rank` is 1 for the
    likeliest token of the position; `top` are the likeliest ones.
    """

    token_id: int
    text: str
    probability: float
    rank: int
    top: Sequence[TokenAlternative]


@dataclass(frozen=True)
class ModelDescription:
    """An open model: its context length in tokens, its parameters, and where it is.

    `resident_bytes` is the memory of its process, None where that can't be read.
    """

    context: int
    parameters: int
    device: str
    resident_bytes: int | None


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


class SupportsStreaming(ABC):
    """An InferenceSession that reports answers while they are generated."""

    @abstractmethod
    def stream(
        self, prompt: Prompt, variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[StreamEvent]:
        """Yield the parts of an answer by each variant in turn, and an AnswerEnd after each.

        The answers are those of `generate` for the same prompt, variants and decoding. Closing the
        iterator cancels what is not generated yet.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End the stream that is under way, within one token; do nothing without one.

        It may be called from any thread. The stream yields an AnswerEnd with the finish reason
        CANCELED, and variants that have not begun are left out. The session remains usable.
        """


class SupportsTokens(ABC):
    """An InferenceSession of a model on this machine, whose tokens can be looked into."""

    @abstractmethod
    def token_probabilities(
        self, prompt: Prompt, token_ids: Sequence[int], variants: Sequence[str], *, top: int = 5
    ) -> Mapping[str, Sequence[TokenProbability]]:
        """Return the probability of each token of an answer to `prompt`, by variant.

        The tokens may be an answer of another variant: what would this one have written there?
        """

    @abstractmethod
    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Return the number of tokens of each prompt, as the model gets them."""

    @abstractmethod
    def describe(self) -> ModelDescription:
        """Return the size of the model, and of what it can read."""


def stream_or_generate(
    session: InferenceSession,
    prompt: Prompt,
    variants: Sequence[str],
    decoding: GenerationConfig,
) -> Iterator[StreamEvent]:
    """Yield the parts of the answers to a prompt; whole answers by a session that can't stream."""
    if isinstance(session, SupportsStreaming):
        yield from session.stream(prompt, variants, decoding)
        return
    for answer in session.generate([prompt], variants, decoding):
        yield AnswerDelta(answer.variant, answer.text, answer.reasoning, answer.tokens)
        yield AnswerEnd(answer)
