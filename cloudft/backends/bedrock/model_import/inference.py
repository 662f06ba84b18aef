"""Generate with an imported model: by Converse where its family supports it, else OpenAI's forms.

Source of the bodies: Bedrock user guide, "Invoke your imported model".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypedDict, cast

import orjson
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cloudft.aws.client import Aws
from cloudft.backends.bedrock.api_shapes import ImportedModel as ImportedModelResponse
from cloudft.backends.bedrock.inference import FAILURE, DeployedModel, Generate, converse
from cloudft.catalogue import load_import_rules
from cloudft.errors import CloudUnreachable, UsageError
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt

WARM_UP_TIMEOUT_S = 600.0
"""How long to wait for a model that Bedrock has unloaded; it is meant to be ready in 5 minutes."""
TUNED, BASE = "tuned", "base"


class _Message(TypedDict):
    content: str


class _Choice(TypedDict, total=False):
    message: _Message
    text: str
    finish_reason: str


class _Usage(TypedDict):
    completion_tokens: int


class _OpenAiResponse(TypedDict):
    choices: list[_Choice]
    usage: _Usage


def supports_converse(model: ImportedModelResponse) -> bool:
    """Return whether Converse works: the model has a chat template, and its family Converse."""
    architecture = load_import_rules().architectures.get(str(model.get("modelArchitecture")))
    is_supported = architecture is None or architecture.converse
    return bool(model.get("instructSupported")) and is_supported


class ImportedModel(DeployedModel):
    """An imported model, the variant `tuned`."""

    def __init__(self, aws: Aws, model: ImportedModelResponse) -> None:
        super().__init__(aws, {TUNED: model["modelArn"]})
        self.uses_converse = supports_converse(model)

    def generate_one(
        self, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
    ) -> Answer:
        """Return one answer. Wait minutes for a model that Bedrock has unloaded."""
        generate: Generate = converse if self.uses_converse else chat_completion
        generate = text_completion if prompt.text is not None else generate
        retrying = Retrying(
            retry=retry_if_exception(_is_not_ready),
            stop=stop_after_delay(WARM_UP_TIMEOUT_S),
            wait=wait_random_exponential(multiplier=1, max=30),
            reraise=True,
        )
        return retrying(generate, self.aws, self.ids[variant], index, variant, prompt, decoding)


def _is_not_ready(error: BaseException) -> bool:
    return isinstance(error, CloudUnreachable) and "ModelNotReadyException" in error.message


def chat_completion(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, config: GenerationConfig
) -> Answer:
    """Return a reply to a conversation in OpenAI's chat form, for families without Converse.

    Raise UsageError for tools and reasoning: the guide describes none in this form.
    """
    if prompt.tool_config or any(not isinstance(m["content"], str) for m in prompt.messages):
        raise UsageError(
            "tools and reasoning can't be sent to this imported model: Converse does not support"
            " its family",
            fix="evaluate the local job that it was imported from: its own models answer.",
        )
    messages = [dict(message) for message in prompt.messages]
    response = _invoke_model(aws, model, {"messages": messages, **_openai_parameters(config)})
    [choice] = response["choices"]
    text, tokens = choice["message"]["content"], response["usage"]["completion_tokens"]
    return Answer(index, variant, text, tokens, choice["finish_reason"])


def text_completion(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, config: GenerationConfig
) -> Answer:
    """Return a continuation of raw text in OpenAI's completion form."""
    response = _invoke_model(aws, model, {"prompt": prompt.text, **_openai_parameters(config)})
    [choice] = response["choices"]
    tokens = response["usage"]["completion_tokens"]
    return Answer(index, variant, choice["text"], tokens, choice["finish_reason"])


def _openai_parameters(config: GenerationConfig) -> dict[str, int | float]:
    return {
        "max_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
    }


def _invoke_model(aws: Aws, model: str, body: Mapping[str, object]) -> _OpenAiResponse:
    content = orjson.dumps(body)
    response = aws.call(FAILURE, "bedrock-runtime", "invoke_model", modelId=model, body=content)
    with aws.translate_errors(FAILURE, "bedrock-runtime"):
        return cast("_OpenAiResponse", orjson.loads(response["body"].read()))


class ImportedModelWithLocalBase(InferenceSession):
    """An imported model, and the open base model that it was trained from, on this machine.

    The base model is loaded when it is needed for the first time.
    """

    def __init__(self, tuned: ImportedModel, open_base: Callable[[], InferenceSession]) -> None:
        self._tuned, self._open_base = tuned, open_base
        self._base: InferenceSession | None = None

    def _session(self, variant: str) -> InferenceSession:
        if variant == TUNED:
            return self._tuned
        if self._base is None:
            self._base = self._open_base()
        return self._base

    def model_identities(self) -> Mapping[str, str]:
        """Return the imported model's ARN, and the sha256 of the base model's weights."""
        base = self._session(BASE).model_identities()[BASE]
        return {**self._tuned.model_identities(), BASE: base}

    def answer_keys(self) -> Mapping[str, str]:
        """Return the key of the imported model, and that of the local base model."""
        base = self._session(BASE).answer_keys()[BASE]
        return {**self._tuned.answer_keys(), BASE: base}

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield all answers of one variant, then those of the next."""
        for variant in variants:
            yield from self._session(variant).generate(prompts, [variant], decoding)

    def close(self) -> None:
        """Close the base model's session, if it was opened."""
        if self._base is not None:
            self._base.close()
