"""Asking an imported model: by Converse where its family has that, else by the OpenAI forms.

Source of the bodies: Bedrock user guide, "Invoke your imported model".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cloudft.aws.client import Aws
from cloudft.backends.base import Answer, Asks, Decoding, Prompt
from cloudft.backends.bedrock.serve import Served, converse
from cloudft.catalogue import import_rules
from cloudft.errors import AwsUnreachable

WARMING_S = 600.0
"""How long a model is waited for that was unloaded; the service means to be ready in five minutes.
"""
TUNED, BASE = "tuned", "base"


def has_converse(model: Mapping[str, Any]) -> bool:
    """True when Converse answers for it: its template is there, and its family has Converse."""
    known = import_rules().architectures.get(str(model.get("modelArchitecture")))
    return bool(model.get("instructSupported")) and (known is None or known.converse)


class Imported(Served):
    """One imported model, `model` as GetImportedModel tells it."""

    def __init__(self, aws: Aws, model: Mapping[str, Any]) -> None:
        super().__init__(aws, {TUNED: str(model["modelArn"])})
        self.talks = has_converse(model)

    def answer(self, index: int, variant: str, prompt: Prompt, decoding: Decoding) -> Answer:
        """One answer. A model that sleeps is woken, which takes minutes."""
        ask = converse if self.talks else chat
        ask = complete if prompt.text is not None else ask
        waking = Retrying(
            retry=retry_if_exception(_sleeps),
            stop=stop_after_delay(WARMING_S),
            wait=wait_random_exponential(multiplier=1, max=30),
            reraise=True,
        )
        return waking(ask, self.aws, self.ids[variant], index, variant, prompt, decoding)


def _sleeps(error: BaseException) -> bool:
    return isinstance(error, AwsUnreachable) and "ModelNotReadyException" in error.message


def chat(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: Decoding
) -> Answer:
    """OpenAI's chat form, for families without Converse."""
    body = {"messages": [dict(message) for message in prompt.messages], **_limits(decoding)}
    said = _invoke(aws, model, body)
    [choice] = said["choices"]
    text, tokens = choice["message"]["content"], said["usage"]["completion_tokens"]
    return Answer(index, variant, text, tokens, choice["finish_reason"])


def complete(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: Decoding
) -> Answer:
    """Raw text gone on with."""
    said = _invoke(aws, model, {"prompt": prompt.text, **_limits(decoding)})
    [choice] = said["choices"]
    tokens = said["usage"]["completion_tokens"]
    return Answer(index, variant, choice["text"], tokens, choice["finish_reason"])


def _limits(decoding: Decoding) -> dict[str, Any]:
    return {
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
    }


def _invoke(aws: Aws, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    what = "the model can't be asked"
    answer = aws.call(
        what, "bedrock-runtime", "invoke_model", modelId=model, body=orjson.dumps(body)
    )
    with aws.errors(what):
        said: Mapping[str, Any] = orjson.loads(answer["body"].read())
    return said


class Beside(Asks):
    """An imported model, and the open base model that it was trained from, on this machine.

    The base is opened when it is asked for the first time.
    """

    def __init__(self, tuned: Imported, open_base: Callable[[], Asks]) -> None:
        self._tuned, self._open = tuned, open_base
        self._base: list[Asks] = []

    def _of(self, variant: str) -> Asks:
        if variant == TUNED:
            return self._tuned
        if not self._base:
            self._base.append(self._open())
        return self._base[0]

    def identities(self) -> Mapping[str, str]:
        """The imported model's ARN, and the sha256 of the base's weights."""
        base = self._of(BASE).identities()[BASE]
        return {**self._tuned.identities(), BASE: base}

    def ask(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: Decoding
    ) -> Iterator[Answer]:
        """All answers of one variant after the other's."""
        for variant in variants:
            yield from self._of(variant).ask(prompts, [variant], decoding)

    def close(self) -> None:
        """Let go of the base."""
        for base in self._base:
            base.close()
