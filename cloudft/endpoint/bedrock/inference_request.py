"""A request to a model, whichever API it came by: a conversation, its tools, and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.inference import LocalGenerationConfig, Message, Prompt

if TYPE_CHECKING:
    from cloudft.endpoint.bedrock.shapes import InferenceConfig

DEFAULT_MAX_TOKENS = 256
"""Length of an answer that the caller does not limit."""


@dataclass(frozen=True)
class ModelRef:
    """A model that answers: that of a local job, or without one the open weights of `model`.

    `variant` is `tuned` or `base`.
    """

    local_job_id: str | None
    model: str = ""
    variant: str = "tuned"


@dataclass(frozen=True)
class ToolUse:
    """The tools that a model may call. `config` is Converse's `toolConfig` without its choice.

    The model must call one of the tools `forced`; it chooses for itself where there are none. A
    call of a tool in `strict` keeps the schema of its input. Of several calls in one answer the
    first is taken unless they may be `parallel`.
    """

    config: Mapping[str, Any] | None = None
    forced: tuple[str, ...] = ()
    strict: frozenset[str] = frozenset()
    parallel: bool = True

    @property
    def input_schemas(self) -> dict[str, Mapping[str, Any]]:
        """Return the schema of each tool's input, by the tool's name."""
        specs = [tool["toolSpec"] for tool in (self.config or {}).get("tools", ())]
        return {spec["name"]: spec["inputSchema"].get("json") or {} for spec in specs}


@dataclass(frozen=True)
class InferenceRequest:
    """A conversation, or raw text to continue; and the limits, by the names of Converse.

    `top_k` limits sampling to the likeliest tokens; 0 is no limit. The answer's text is JSON that
    keeps `json_schema`. With `logprobs` its tokens are scored, and so many likeliest ones of each.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    tools: ToolUse = field(default_factory=ToolUse)
    inference_config: InferenceConfig | None = None
    top_k: int = 0
    json_schema: Mapping[str, Any] | None = None
    seed: int | None = None
    logprobs: int | None = None

    @property
    def prompt(self) -> Prompt:
        """Return the prompt for the model."""
        turns = () if self.text is not None else self.messages
        return Prompt(turns, self.text, self.tools.config)

    @property
    def generation_config(self) -> LocalGenerationConfig:
        """Return how to decode: greedily unless a temperature is given."""
        config = self.inference_config or {}
        decoding = LocalGenerationConfig(
            max_new_tokens=int(config.get("maxTokens") or DEFAULT_MAX_TOKENS),
            temperature=float(config.get("temperature") or 0.0),
            top_p=float(config.get("topP") or 1.0),
            top_k=self.top_k,
            seed=LocalGenerationConfig.seed if self.seed is None else self.seed,
        )
        return decoding

    @property
    def stop_sequences(self) -> Sequence[str]:
        """Return the texts that end an answer."""
        return (self.inference_config or {}).get("stopSequences") or ()


def block_kinds(messages: Sequence[Message]) -> set[str]:
    """Return the kinds of a conversation's blocks, besides plain texts."""
    contents = [message["content"] for message in messages]
    blocks = [block for content in contents if not isinstance(content, str) for block in content]
    return {kind for block in blocks for kind in block}


def unsupported_block(kind: str) -> ServiceError:
    """Return the error for a content block that a model does not take, in Bedrock's words.

    Source of the words: boto/boto3, issue 4581.
    """
    message = f"This model doesn't support the {kind} content block that you provided."
    return ServiceError("ValidationException", f"{message} Update the content block and try again.")


def require_abilities(request: InferenceRequest, features: frozenset[str]) -> None:
    """Raise ServiceError, in Bedrock's words, for what the model's chat template leaves out.

    `features` are what the template renders besides texts.
    """
    kinds = block_kinds(request.messages)
    needs_tools = request.tools.config is not None or bool(kinds & {"toolUse", "toolResult"})
    if needs_tools and not {"tools", "calls", "results"} <= features:
        # The words are Bedrock's for DeepSeek-R1 (langchain-ai/langchain-aws, issue 447).
        raise ServiceError("ValidationException", "This model doesn't support tool use.")
    if "reasoningContent" in kinds and "reasoning" not in features:
        raise unsupported_block("reasoningContent")
