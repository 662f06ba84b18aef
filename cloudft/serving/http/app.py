"""The application: its routes, and how a request becomes answers of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from cloudft.errors import CloudftError
from cloudft.serving.engine import Engine, EngineModel
from cloudft.serving.http.access import AccessMiddleware, AccessRules
from cloudft.serving.http.answers import AnswerRun
from cloudft.serving.http.body import MAX_BODY_BYTES
from cloudft.serving.http.chat_request import make_chat_request, parse_chat
from cloudft.serving.http.chat_response import ChatStream, WholeChat
from cloudft.serving.http.completion_request import make_completion_request, parse_completion
from cloudft.serving.http.completion_response import CompletionStream, WholeCompletion
from cloudft.serving.http.errors import ApiError, engine_failed, model_not_found
from cloudft.serving.http.exchange import exchange_of
from cloudft.serving.http.metrics import ServerMetrics
from cloudft.serving.http.objects import BASE, tuned_first
from cloudft.serving.http.responses import StreamResponse, WholeResponse
from cloudft.serving.http.tokenizer_routes import (
    FindModel,
    detokenize,
    show_tokenizer,
    tokenize,
)

if TYPE_CHECKING:
    from starlette.requests import Request

Value = TypeVar("Value")
CHAT, TEXT = "chat", "text_completion"
"""Names of the operations in metrics, as OpenTelemetry has them."""


class OpenAIServer:
    """Answers OpenAI's operations with an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.metrics = ServerMetrics(engine)
        self._created = int(time.time())

    async def create_chat_completion(self, request: Request) -> Response:
        """Answer a conversation."""
        exchange_of(request.scope).operation = CHAT
        body = parse_chat(await _read_body(request))
        model = self._find_model(request, body.model)
        chat = make_chat_request(body, model)
        run = AnswerRun(self.engine, model, chat.members)
        run.start(chat.requests)
        if chat.stream:
            return StreamResponse(run, self.metrics, ChatStream(chat))
        return WholeResponse(run, self.metrics, WholeChat(chat))

    async def create_completion(self, request: Request) -> Response:
        """Continue texts."""
        exchange_of(request.scope).operation = TEXT
        body = parse_completion(await _read_body(request))
        model = self._find_model(request, body.model)
        completion = make_completion_request(body, model)
        run = AnswerRun(self.engine, model, completion.members)
        run.start(completion.requests)
        if completion.stream:
            return StreamResponse(run, self.metrics, CompletionStream(completion))
        return WholeResponse(run, self.metrics, WholeCompletion(completion))

    def _find_model(self, request: Request, name: str) -> EngineModel:
        """Return the model that a request names, a tuned one also by its job's id.

        Raise ApiError.
        """
        models = {model.name: model for model in self.engine.models}
        by_id = {model.job_id: model for model in self.engine.models if model.variant != BASE}
        model = models.get(name) or by_id.get(name)
        if model is None:
            raise model_not_found(name, [one.name for one in tuned_first(models.values())])
        exchange_of(request.scope).model = model.name
        return model

    async def list_served_models(self, request: Request) -> Response:
        """Return the models that requests can name."""
        data = [self._card(model) for model in tuned_first(self.engine.models)]
        return _json({"object": "list", "data": data})

    async def retrieve_model(self, request: Request) -> Response:
        """Return one model."""
        return _json(self._card(self._find_model(request, request.path_params["name"])))

    async def tokenize(self, request: Request) -> Response:
        """Return the tokens of a text or conversation."""
        raw = await _read_body(request)
        return _json(await run_in_threadpool(tokenize, self.engine, self._finder(request), raw))

    async def detokenize(self, request: Request) -> Response:
        """Return the text of tokens."""
        raw = await _read_body(request)
        return _json(await run_in_threadpool(detokenize, self.engine, self._finder(request), raw))

    async def show_tokenizer(self, request: Request) -> Response:
        """Return special tokens and chat template."""
        return _json(await run_in_threadpool(show_tokenizer, self.engine, self._finder(request)))

    def _finder(self, request: Request) -> FindModel:
        def find(name: str | None) -> EngineModel:
            first = tuned_first(self.engine.models)[0].name
            return self._find_model(request, first if name is None else name)

        return find

    def _card(self, model: EngineModel) -> dict[str, Any]:
        """Return a model as OpenAI's API describes it; `max_model_len` is vLLM's."""
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "cloudft",
            "root": model.job_id or model.name,
            "max_model_len": model.context,
        }

    async def check_health(self, request: Request) -> Response:
        """Return 200 while the engine answers, else 503."""
        await _call_engine(self.engine.stats)
        return _json({"status": "ok"})

    async def export_metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus."""
        text = await _call_engine(self.metrics.to_text)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _call_engine(call: Callable[[], Value]) -> Value:
    """Call what waits for the engine's reply, in a thread. Raise ApiError where there is none."""
    try:
        return await run_in_threadpool(call)
    except CloudftError as error:
        raise engine_failed(error) from error


async def _read_body(request: Request) -> bytes:
    """Return the body. Raise ApiError for one that is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            message = f"The body is larger than {MAX_BODY_BYTES} bytes."
            raise ApiError(413, message, code="request_too_large")
    return bytes(body)


def _json(value: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


async def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Return the error of a path or a method that the server does not have."""
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path[:200]}"
    headers = error.headers or {}
    return ApiError(error.status_code, message, code="unknown_url", headers=headers).response()


def build_app(engine: Engine, rules: AccessRules) -> Starlette:
    """Return the application that serves an engine's models."""
    server = OpenAIServer(engine)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", server.create_chat_completion, methods=["POST"]),
            Route("/v1/completions", server.create_completion, methods=["POST"]),
            Route("/v1/models", server.list_served_models, methods=["GET"]),
            Route("/v1/models/{name:path}", server.retrieve_model, methods=["GET"]),
            Route("/tokenize", server.tokenize, methods=["POST"]),
            Route("/detokenize", server.detokenize, methods=["POST"]),
            Route("/tokenizer_info", server.show_tokenizer, methods=["GET"]),
            Route("/health", server.check_health, methods=["GET"]),
            Route("/metrics", server.export_metrics, methods=["GET"]),
        ],
        middleware=[Middleware(AccessMiddleware, rules=rules, metrics=server.metrics)],
        exception_handlers={
            ApiError: _answer_api_error,
            HTTPException: _answer_http_error,
        },
    )
