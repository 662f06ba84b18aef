"""Asking a tuned model that is served, and its base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.backends.bedrock.converse import converse_request, parse_converse_response
from cloudft.errors import UnknownModel
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt

MAX_CONCURRENT_REQUESTS = 4
"""Questions on their way at a time: what default quotas of requests a minute bear."""


def catalogue_model(job: Mapping[str, Any]) -> catalogue.Model | None:
    """The catalogue's model that a job customized."""
    try:
        return catalogue.find_model(str(job["baseModelArn"]))
    except UnknownModel:
        return None


def base_model_id(job: Mapping[str, Any]) -> str:
    """The base model's id for inference: without the context suffix of customization."""
    identifier = str(job["baseModelArn"]).rpartition("/")[2]
    head, _, suffix = identifier.rpartition(":")
    return head if suffix.endswith("k") else identifier


class DeployedModel(InferenceSession):
    """A job's base and what serves its tuned model. Questions go out a few at a time."""

    def __init__(self, aws: Aws, ids: Mapping[str, str]) -> None:
        self.aws, self.ids = aws, ids

    def model_identities(self) -> Mapping[str, str]:
        """The ids that answer."""
        return self.ids

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Answers in the order of the prompts."""

        def one(asked: tuple[int, Prompt]) -> list[Answer]:
            index, prompt = asked
            return [self.generate_one(index, variant, prompt, decoding) for variant in variants]

        pool = ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS)
        try:
            for found in pool.map(one, enumerate(prompts)):
                yield from found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def generate_one(
        self, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
    ) -> Answer:
        """One answer."""
        ask = complete_text if prompt.text is not None else converse
        return ask(self.aws, self.ids[variant], index, variant, prompt, decoding)

    def close(self) -> None:
        """Nothing is held."""


def converse(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
) -> Answer:
    """Converse's answer to a conversation."""
    asked, what = converse_request(prompt, decoding), "the model can't be asked"
    answer = aws.call(what, "bedrock-runtime", "converse", modelId=model, **asked)
    return parse_converse_response(answer, index, variant)


def complete_text(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
) -> Answer:
    """Raw text gone on with, in the body of Titan Text, the one family that was pre-trained so."""
    settings = {
        "maxTokenCount": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "topP": decoding.top_p,
    }
    body = {"inputText": prompt.text, "textGenerationConfig": settings}
    what = "the model can't be asked"
    answer = aws.call(
        what, "bedrock-runtime", "invoke_model", modelId=model, body=orjson.dumps(body)
    )
    with aws.translate_errors(what):
        [result] = orjson.loads(answer["body"].read())["results"]
    stop = "length" if result["completionReason"] == "LENGTH" else "stop"
    return Answer(index, variant, result["outputText"], result["tokenCount"], stop)
