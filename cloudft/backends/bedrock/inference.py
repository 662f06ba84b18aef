"""Generate with a deployed tuned model and with its base model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import orjson

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.bedrock.converse import (
    ConverseResponse,
    converse_request,
    parse_converse_response,
)
from cloudft.backends.bedrock.converse_stream import open_converse_stream, read_converse_stream
from cloudft.backends.bedrock.inference_profiles import ChosenModelId, choose_model_id
from cloudft.errors import PermissionDenied, UnknownModel
from cloudft.inference import (
    Answer,
    AnswerDelta,
    AnswerEnd,
    GenerationConfig,
    InferenceSession,
    Prompt,
    StreamEvent,
    SupportsStreaming,
)

MAX_CONCURRENT_REQUESTS = 4
"""Requests under way at a time: what default quotas of requests per minute allow."""
FAILURE = "the model can't be invoked"
Generate = Callable[[Aws, str, int, str, Prompt, GenerationConfig], Answer]
"""Generates one answer: client, model id, index and variant of the answer, prompt, config."""


def catalogue_model(job: CustomizationJob) -> catalogue.Model | None:
    """Return the catalogue's model that a job customized; None for one that it lacks."""
    try:
        return catalogue.find_model(job["baseModelArn"])
    except UnknownModel:
        return None


def choose_base_model_id(
    aws: Aws, job: CustomizationJob, requested: str | None = None
) -> ChosenModelId:
    """Return the id to call a job's base model by in the job's Region; see choose_model_id."""
    region = parse_arn(job["jobArn"]).region
    return choose_model_id(aws, job["baseModelArn"], region, requested)


def endpoint_answer_keys(aws: Aws, ids: Mapping[str, str]) -> dict[str, str]:
    """Return each model id or ARN with the endpoint: one that plays AWS has models of its own."""
    endpoint = aws.client("bedrock-runtime").meta.endpoint_url
    return {variant: f"{identifier} at {endpoint}" for variant, identifier in ids.items()}


class DeployedModel(InferenceSession, SupportsStreaming):
    """A job's base model and its deployed tuned model, by model id or ARN of each variant.

    Requests are sent a few at a time.
    """

    def __init__(self, aws: Aws, ids: Mapping[str, str]) -> None:
        self.aws, self.ids = aws, ids
        self._canceled = threading.Event()

    def model_identities(self) -> Mapping[str, str]:
        """Return the model id or ARN of each variant."""
        return self.ids

    def answer_keys(self) -> Mapping[str, str]:
        """Return the model id or ARN of each variant, with the endpoint that answers."""
        return endpoint_answer_keys(self.aws, self.ids)

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield the answers of every variant to each prompt, in the order of the prompts."""

        def generate_variants(numbered: tuple[int, Prompt]) -> list[Answer]:
            index, prompt = numbered
            return [self.generate_one(index, variant, prompt, decoding) for variant in variants]

        pool = ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS)
        try:
            for answers in pool.map(generate_variants, enumerate(prompts)):
                yield from answers
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def generate_one(
        self, index: int, variant: str, prompt: Prompt, decoding: GenerationConfig
    ) -> Answer:
        """Return one answer: a continuation of raw text, else a reply to a conversation."""
        generate: Generate = complete_text if prompt.text is not None else converse
        return generate(self.aws, self.ids[variant], index, variant, prompt, decoding)

    def stream(
        self, prompt: Prompt, variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[StreamEvent]:
        """Yield an answer by each variant as it comes.

        It is whole where it continues raw text, and for a caller who may only invoke models without
        a stream.
        """
        self._canceled.clear()
        for variant in variants:
            yield from self._stream_one(prompt, variant, decoding)
            if self._canceled.is_set():
                return

    def _stream_one(
        self, prompt: Prompt, variant: str, decoding: GenerationConfig
    ) -> Iterator[StreamEvent]:
        if prompt.text is None:
            try:
                events = open_converse_stream(self.aws, self.ids[variant], prompt, decoding)
            except PermissionDenied:
                pass
            else:
                yield from read_converse_stream(self.aws, events, variant, self._canceled)
                return
        answer = self.generate_one(0, variant, prompt, decoding)
        yield AnswerDelta(variant, answer.text, answer.reasoning, answer.tokens)
        yield AnswerEnd(answer)

    def cancel(self) -> None:
        """End the stream that is under way, at its next part."""
        self._canceled.set()

    def close(self) -> None:
        """Do nothing: no model is loaded here."""


def converse(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, config: GenerationConfig
) -> Answer:
    """Return a model's reply to a conversation, by Converse."""
    request = converse_request(prompt, config, model)
    response = aws.call(FAILURE, "bedrock-runtime", "converse", modelId=model, **request)
    return parse_converse_response(cast("ConverseResponse", response), index, variant)


def complete_text(
    aws: Aws, model: str, index: int, variant: str, prompt: Prompt, config: GenerationConfig
) -> Answer:
    """Return a model's continuation of raw text.

    The body is that of Titan Text, the only family of Bedrock with continued pre-training.
    """
    settings = {
        "maxTokenCount": config.max_new_tokens,
        "temperature": config.temperature,
        "topP": config.top_p,
    }
    body = orjson.dumps({"inputText": prompt.text, "textGenerationConfig": settings})
    response = aws.call(FAILURE, "bedrock-runtime", "invoke_model", modelId=model, body=body)
    with aws.translate_errors(FAILURE, "bedrock-runtime"):
        [result] = orjson.loads(response["body"].read())["results"]
    finish_reason = "length" if result["completionReason"] == "LENGTH" else "stop"
    return Answer(index, variant, result["outputText"], result["tokenCount"], finish_reason)
