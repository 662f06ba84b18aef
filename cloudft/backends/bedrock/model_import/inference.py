"""Asking an imported model: by Converse where its family has that, else by the OpenAI forms.

Source of the bodies: Bedrock user guide, "Invoke your imported model".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cloudft.aws.client import Aws
from cloudft.backends.bedrock.inference import DeployedModel, converse
from cloudft.catalogue import load_import_rules
from cloudft.errors import CloudUnreachable
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt

WARM_UP_TIMEOUT_S = 600.0
"""How long a model is waited for that was unloaded; the service means to be ready in five minutes.
"""
TUNED, BASE = "tuned", "base"


def supports_converse(model: Mapping[str, Any]) -> bool:
    """True when Converse answers for it: its template is there, and its family has Converse."""
    known = load_import_rules().architectures.get(str(model.get("modelArchitecture")))
    return bool(model.get("instructSupported")) and (known is None or known.converse)


class ImportedModel(DeployedModel):
    """One imported model, `model` as GetImportedModel tells it."""

    def __init__(self, aws: Aws, model: Mapping[str, Any]) -> None:
        super().__init__(aws, {TUNED: str(model["modelArn"])})
        self.uses_converse = supports_converse(model)

    def generate_one(
        self, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
    ) -> Answer:
        """One answer. A model that sleeps is woken, which takes minutes."""
        ask = converse if self.uses_converse else chat_completion
        ask = text_completion if prompt.text is not None else ask
        waking = Retrying(
            retry=retry_if_exception(_is_not_ready),
            stop=stop_after_delay(WARM_UP_TIMEOUT_S),
            wait=wait_random_exponential(multiplier=1, max=30),
            reraise=True,
        )
        return waking(ask, self.aws, self.ids[variant], index, variant, prompt, decoding)


def _is_not_ready(error: BaseException) -> bool:
    return isinstance(error, CloudUnreachable) and "ModelNotReadyException" in error.message


def chat_completion(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
) -> Answer:
    """OpenAI's chat form, for families without Converse."""
    body = {
        "messages": [dict(message) for message in prompt.messages],
        **_openai_parameters(decoding),
    }
    said = _invoke_model(aws, model, body)
    [choice] = said["choices"]
    text, tokens = choice["message"]["content"], said["usage"]["completion_tokens"]
    return Answer(index, variant, text, tokens, choice["finish_reason"])


def text_completion(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
) -> Answer:
    """Raw text gone on with."""
    said = _invoke_model(aws, model, {"prompt": prompt.text, **_openai_parameters(decoding)})
    [choice] = said["choices"]
    tokens = said["usage"]["completion_tokens"]
    return Answer(index, variant, choice["text"], tokens, choice["finish_reason"])


def _openai_parameters(decoding: GenerationConfig) -> dict[str, Any]:
    return {
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
    }


def _invoke_model(aws: Aws, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    what = "the model can't be asked"
    answer = aws.call(
        what, "bedrock-runtime", "invoke_model", modelId=model, body=orjson.dumps(body)
    )
    with aws.translate_errors(what):
        said: Mapping[str, Any] = orjson.loads(answer["body"].read())
    return said


class ImportedModelWithLocalBase(InferenceSession):
    """An imported model, and the open base model that it was trained from, on this machine.

    The base is opened when it is asked for the first time.
    """

    def __init__(self, tuned: ImportedModel, open_base: Callable[[], InferenceSession]) -> None:
        self._tuned, self._open = tuned, open_base
        self._base: list[InferenceSession] = []

    def _session(self, variant: str) -> InferenceSession:
        if variant == TUNED:
            return self._tuned
        if not self._base:
            self._base.append(self._open())
        return self._base[0]

    def model_identities(self) -> Mapping[str, str]:
        """The imported model's ARN, and the sha256 of the base's weights."""
        base = self._session(BASE).model_identities()[BASE]
        return {**self._tuned.model_identities(), BASE: base}

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """All answers of one variant after the other's."""
        for variant in variants:
            yield from self._session(variant).generate(prompts, [variant], decoding)

    def close(self) -> None:
        """Let go of the base."""
        for base in self._base:
            base.close()
