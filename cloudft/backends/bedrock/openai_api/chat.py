"""Prompt the models of the OpenAI-compatible API by chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.backends.bedrock.inference import FAILURE, DeployedModel
from cloudft.backends.bedrock.openai_api.request import SERVICE
from cloudft.errors import UsageError
from cloudft.inference import FILTERED, Answer, GenerationConfig, Prompt, message_text

FINISH_REASONS = {"length": "length", "content_filter": FILTERED}
"""Finish reason by that of a chat completion; `stop` for all others. Source: OpenAI API reference,
"Create chat completion"."""


class ChatModels(DeployedModel):
    """A job's fine-tuned model and its base model, which answer without a deployment."""

    def answer_keys(self) -> Mapping[str, str]:
        """Return each model's id, with the endpoint that answers."""
        endpoint = self.aws.client(SERVICE).meta.endpoint_url
        return {variant: f"{identifier} at {endpoint}" for variant, identifier in self.ids.items()}

    def generate_one(
        self, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
    ) -> Answer:
        """Return one answer. Raise UsageError for tools, and for text to continue."""
        if prompt.text is not None or prompt.tool_config:
            what = "tools" if prompt.tool_config else "text without a conversation"
            raise UsageError(
                f"cloudft sends no {what} to a model of Bedrock's OpenAI-compatible API",
                fix="prompt it with conversations of texts.",
            )
        response = self.aws.call(
            FAILURE,
            SERVICE,
            "create_inference",
            model=self.ids[variant],
            messages=[_message(message) for message in prompt.messages],
            max_completion_tokens=decoding.max_new_tokens,
            temperature=float(decoding.temperature),
            top_p=float(decoding.top_p),
        )
        choice = response["choices"][0]
        message, usage = choice["message"], response.get("usage") or {}
        reason = FINISH_REASONS.get(str(choice.get("finish_reason")), "stop")
        return Answer(
            index,
            variant,
            message.get("content") or "",
            int(usage.get("completion_tokens", 0)),
            reason,
            message.get("reasoning_content") or message.get("reasoning") or "",
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
        )


def _message(message: Mapping[str, Any]) -> dict[str, str]:
    return {"role": str(message["role"]), "content": message_text(message)}
