"""The engine in a process of the trainer: JSON lines, multiplexed by request."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudft.backends.local.model_process import prompt_to_request
from cloudft.errors import (
    EngineBusy,
    EngineFailed,
    PromptTooLong,
    RequestRefused,
    TrainerError,
    UsageError,
)
from cloudft.inference import Answer, Prompt
from cloudft.serving.engine import (
    Engine,
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineFailure,
    EngineModel,
    EngineRequest,
    EngineStats,
    ScoredPrompt,
    SupportsTokenizer,
    TokenizerInfo,
    TokenLogprob,
)

if TYPE_CHECKING:
    from cloudft.backends.local.backend import LocalBackend

PROGRAM = "local_backend.serving"
ROWS = 32
"""Answers made at once."""
MAX_WAITING = 256
"""Requests that may wait for a place beside them."""
ANSWER_S = 60.0
"""How long the process may take to count tokens or to report what it does."""
TOP_LOGPROBS_MAX = 20
ERRORS: Mapping[str | None, tuple[type[TrainerError], str | None]] = {
    "prompt": (RequestRefused, "prompt"),
    "promptTooLong": (PromptTooLong, "prompt"),
    "schema": (RequestRefused, "json_schema"),
    "modelFailed": (EngineFailed, None),
}
"""Code of an error in local_backend/errors.py -> its class here, and the field at fault."""


@dataclass(frozen=True)
class ServedJob:
    """A job whose models are served. `folder` has its job.json.

    `name` is what requests call its tuned model, None to leave that out (of a folder of a base
    model there is none); `base` what they call its base.
    """

    folder: Path
    job_id: str
    name: str | None
    base: str | None


def open_engine(
    jobs: Sequence[ServedJob],
    environment: Mapping[str, str],
    *,
    dtype: str = "auto",
    rows: int = ROWS,
    max_waiting: int = MAX_WAITING,
) -> EngineProcess:
    """Load the models of some jobs, which share one base, in a process of their own.

    `dtype` is `float32`, `bfloat16`, or `auto`: bfloat16 where this machine computes it. Answers
    are those of `generate` in float32. Raise TrainerError where the models can't be loaded.
    """
    return EngineProcess(jobs, environment, dtype, rows, max_waiting)


def describe_local_job(
    backend: LocalBackend, job_id: str, *, name: str | None = None, base: str | None = None
) -> ServedJob:
    """Return how a local job is served: both of its models, called as they are unless named here.

    Raise JobNotFound, JobStateConflict.
    """
    folder = backend.trained_folder(job_id)
    return ServedJob(folder, job_id, name or job_id, base or _base_name(folder))


def describe_base_model(folder: Path, *, name: str | None = None) -> ServedJob:
    """Return how the base model of `LocalBackend.base_model_folder` is served."""
    return ServedJob(folder, folder.name, None, name or _base_name(folder))


def _base_name(folder: Path) -> str:
    request: Mapping[str, Any] = json.loads((folder / "job.json").read_bytes())
    return str(request["model"]["name"])


@dataclass
class _Open:
    """A request that has no end yet."""

    model: EngineModel
    on_event: Callable[[EngineEvent], None]


class EngineProcess(Engine, SupportsTokenizer):
    """A process that has loaded the models of some jobs. Thread-safe."""

    def __init__(
        self,
        jobs: Sequence[ServedJob],
        environment: Mapping[str, str],
        dtype: str,
        rows: int,
        max_waiting: int,
    ) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._numbers = itertools.count(1)
        self._most_open, self._rows = rows + max_waiting, rows
        self._open: dict[str, _Open] = {}
        self._calls: dict[str, Future[dict[str, Any]]] = {}
        self._failure: TrainerError | None = None
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env=dict(environment),
            start_new_session=True,
        )
        self._models: dict[str, EngineModel] = {}
        self._reader: threading.Thread | None = None
        try:
            self._load(jobs, dtype, rows)
        except BaseException:
            self.close()
            raise
        self._reader = threading.Thread(target=self._read_replies, name="engine", daemon=True)
        self._reader.start()

    def _load(self, jobs: Sequence[ServedJob], dtype: str, rows: int) -> None:
        described = [
            {"folder": str(one.folder), "jobId": one.job_id, "name": one.name, "base": one.base}
            for one in _without_repeated_bases(jobs)
        ]
        self._send(_encode({"open": {"jobs": described, "dtype": dtype, "rows": rows}}))
        first = next(self._lines(), None)
        if first is None:
            raise self._broken_off_error()
        if "error" in first:
            raise TrainerError(first["error"], fix=first["fix"])
        for model in first["models"]:
            self._models[model["name"]] = EngineModel(
                model["name"],
                model["jobId"],
                model["variant"],
                model["context"],
                model["parameters"],
                frozenset(model["features"]),
            )

    @property
    def models(self) -> Sequence[EngineModel]:
        """Return the models that requests can name."""
        return tuple(self._models.values())

    @property
    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return self._failure is None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid

    def submit(self, request: EngineRequest, on_event: Callable[[EngineEvent], None]) -> str:
        """Take a request. Raise EngineBusy, UsageError, EngineFailed."""
        model = self._find_model(request.model)
        number = str(next(self._numbers))
        # Before the request counts as open: one that is nested too deeply fails here.
        line = _encode({"id": number, "submit": _submission(request)})
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if len(self._open) >= self._most_open:
                raise EngineBusy(
                    f"{len(self._open)} requests are open already, {self._rows} of them answered",
                    fix="send it again in a moment, or serve with more rows.",
                )
            self._open[number] = _Open(model, on_event)
        self._send(line)
        return number

    def cancel(self, request_id: str) -> None:
        """End a request within one token."""
        with self._lock:
            is_open = request_id in self._open
        if is_open:
            self._send(_encode({"id": request_id, "cancel": True}))

    def count_tokens(self, model: str, prompt: Prompt) -> int:
        """Return the number of tokens of a prompt. Raise RequestRefused, EngineFailed."""
        self._find_model(model)
        reply = self._call({"count": {"model": model, "prompt": _prompt(prompt)}})
        return int(reply["count"])

    def tokenize(
        self, model: str, prompt: Prompt | str, *, add_special_tokens: bool = True
    ) -> Sequence[int]:
        """Return the tokens of a prompt, or of a text. Raise RequestRefused, EngineFailed."""
        self._find_model(model)
        request: dict[str, object] = {"model": model}
        if isinstance(prompt, str):
            request |= {"text": prompt, "special": add_special_tokens}
        else:
            request["prompt"] = _prompt(prompt)
        ids: list[int] = self._call({"tokenize": request})["ids"]
        return ids

    def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        """Return the text of tokens. Raise RequestRefused, EngineFailed."""
        self._find_model(model)
        reply = self._call({"detokenize": {"model": model, "ids": list(token_ids)}})
        return str(reply["text"])

    def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Return the model's special tokens and chat template. Raise EngineFailed."""
        self._find_model(model)
        found = self._call({"tokenizer": {"model": model}})["tokenizer"]
        return TokenizerInfo(found["bos"], found["eos"], found["pad"], found["template"])

    def stats(self) -> EngineStats:
        """Return what the engine does now. Raise TrainerError for a dead process."""
        stats = self._call({"stats": True})["stats"]
        with self._lock:
            open_now = len(self._open)
        return EngineStats(
            running=stats["running"],
            waiting=max(stats["waiting"], open_now - stats["running"]),
            prompt_tokens=stats["promptTokens"],
            generated_tokens=stats["generatedTokens"],
            steps=stats["steps"],
            cached_tokens=stats["cachedTokens"],
            resident_bytes=stats["residentBytes"],
            shared_tokens=stats["sharedTokens"],
        )

    def close(self) -> None:
        """Kill the process; requests that are open end with an EngineFailure."""
        self._process.kill()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._noise.close()

    def _find_model(self, name: str) -> EngineModel:
        model = self._models.get(name)
        if model is None:
            raise UsageError(
                f"no model is called {name} here", fix=f"use one of {', '.join(self._models)}."
            )
        return model

    def _call(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Return the reply to a request that has one. Raise TrainerError."""
        reply: Future[dict[str, Any]] = Future()
        number = str(next(self._numbers))
        line = _encode({"id": number, **request})
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._calls[number] = reply
        self._send(line)
        try:
            return reply.result(ANSWER_S)
        except TimeoutError:
            raise EngineFailed(
                f"the models' process has not answered for {ANSWER_S:.0f} seconds",
                fix="send it again when fewer requests are open.",
            ) from None

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        # A process that has ended is noticed by the thread that reads its replies.
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def _read_replies(self) -> None:
        """Hand each reply to its request, until the process ends."""
        try:
            for reply in self._lines():
                self._take(reply)
        except BaseException:
            self._process.kill()  # nobody reads its replies any more
            raise
        finally:
            self._fail_all()

    def _take(self, reply: Mapping[str, Any]) -> None:
        number = reply["id"]
        with self._lock:
            call = self._calls.pop(number, None)
            is_last = "delta" not in reply
            request = self._open.pop(number, None) if is_last else self._open.get(number)
        error = _error(reply) if "error" in reply else None
        if call is not None:
            if error is not None:
                call.set_exception(error)
            else:
                call.set_result(dict(reply))
        elif request is not None:
            request.on_event(EngineFailure(error) if error else _event(request.model, reply))

    def _fail_all(self) -> None:
        """End what is open, because the process has ended."""
        self._process.wait()
        failure = self._broken_off_error()
        with self._lock:
            self._failure = failure
            calls, self._calls = self._calls, {}
            requests, self._open = self._open, {}
        for call in calls.values():
            call.set_exception(failure)
        for request in requests.values():
            request.on_event(EngineFailure(failure))

    def _broken_off_error(self) -> EngineFailed:
        status = self._process.wait()
        self._noise.seek(0)
        printed = self._noise.read().decode("utf-8", "replace").strip().splitlines()
        reason = printed[-1] if printed else "no message"
        if status < 0:  # what was printed last is of some request before
            reason = f"signal {-status} ({signal.strsignal(-status)})"
        return EngineFailed(
            f"the models' process exited: {reason}",
            fix="if memory ran out, answer fewer requests at once; then start it again.",
        )


def _without_repeated_bases(jobs: Sequence[ServedJob]) -> Iterator[ServedJob]:
    """Yield the jobs, each base named once: they share it."""
    seen: set[str] = set()
    for job in jobs:
        base = None if job.base in seen else job.base
        seen.update([base] if base else [])
        if job.name is not None or base is not None:
            yield ServedJob(job.folder, job.job_id, job.name, base)


def _encode(request: Mapping[str, object]) -> bytes:
    """Return a request as a line of the process's standard input."""
    return json.dumps(request).encode() + b"\n"


def _submission(request: EngineRequest) -> dict[str, object]:
    decoding = request.decoding
    if request.logprobs is not None and not 0 <= request.logprobs <= TOP_LOGPROBS_MAX:
        raise UsageError(f"logprobs is {request.logprobs}", fix=f"use 0 to {TOP_LOGPROBS_MAX}.")
    return {
        "model": request.model,
        "prompt": _prompt(request.prompt),
        "maxNewTokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "topP": decoding.top_p,
        "topK": decoding.top_k,
        "seed": decoding.seed,
        "stop": list(request.stop),
        "logprobs": request.logprobs,
        "scorePrompt": request.score_prompt,
        "jsonSchema": request.json_schema,
    }


def _prompt(prompt: Prompt) -> dict[str, object]:
    if prompt.token_ids is not None:
        return {"text": "", "ids": list(prompt.token_ids)}
    return prompt_to_request(prompt)


def _event(model: EngineModel, reply: Mapping[str, Any]) -> EngineEvent:
    if "delta" in reply:
        return EngineDelta(
            reply["delta"],
            reply["reasoning"],
            reply["tokens"],
            tuple(_token(one) for one in reply["logprobs"]),
            _scored_prompt(reply.get("prompt")),
        )
    end = reply["end"]
    answer = Answer(
        index=0,
        variant=model.variant,
        text=end["text"],
        tokens=end["tokens"],
        finish_reason=end["finishReason"],
        reasoning=end["reasoning"],
        calls=tuple(end["calls"]),
        prompt_tokens=end["promptTokens"],
    )
    return EngineEnd(answer, end["stopSequence"], tuple(end["ids"]), end["firstTokenS"])


def _scored_prompt(value: Mapping[str, Any] | None) -> ScoredPrompt | None:
    if value is None:
        return None
    tokens = tuple(_token(one) for one in value["tokens"])
    return ScoredPrompt(value["text"], value["first"], tokens)


def _error(reply: Mapping[str, Any]) -> TrainerError:
    kind, field = ERRORS.get(reply.get("code"), (TrainerError, None))
    return kind(reply["error"], fix=reply["fix"], field=field)


def _token(value: Mapping[str, Any]) -> TokenLogprob:
    top = tuple(_token(one) for one in value.get("top", ()))
    data = bytes(value["bytes"])
    return TokenLogprob(value["token"], value["text"], data, value["logprob"], top)
