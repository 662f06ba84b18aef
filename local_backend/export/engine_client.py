"""Start a runtime as a process in any interpreter, and send it requests (`engines/run.py`)."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from local_backend.errors import TrainerError
from local_backend.export.engines import run

PROGRAM = Path(run.__file__)
LEAVE_S = 10.0
"""Seconds that a process has to remove its files once nothing is requested any more."""
SHOWN_LINES = 5
"""Lines of a runtime's log that are shown when it ends without a word."""
MODULES = {
    "llama.cpp": "llama_cpp",
    "ollama": "llama_cpp",
    "mlx": "mlx_lm",
    "onnxruntime": "onnxruntime_genai",
    "openvino": "openvino",
    "transformers": "transformers",
    "vllm": "vllm",
}
"""File in `engines/` of each name of `--for`. Ollama runs llama.cpp on the same file."""
PACKAGES = {
    "llama_cpp": "xllamacpp",
    "mlx_lm": "mlx-lm",
    "onnxruntime_genai": "onnxruntime-genai onnxruntime onnx-ir torch transformers",
    "openvino": "'optimum-intel[openvino]' openvino-genai",
    "transformers": "torch transformers",
    "vllm": "vllm",
}
"""What to install in the interpreter of each runtime."""
MISSING_MODULE = "ModuleNotFoundError"


class EngineRefused(TrainerError):
    """A runtime does not load the model, or fails at a request; its own words are the message."""


class EngineProcess:
    """A model in a runtime of its own process. Use it as a context manager."""

    versions: dict[str, str]

    def __init__(self, runtime: str, model: Path, python: str) -> None:
        """Start `python` with `runtime`'s file in `engines/` and load `model`.

        Raise EngineRefused if it can't be loaded.
        """
        self.runtime, self._python = runtime, python
        command = [python, str(PROGRAM), runtime, str(model)]
        # The runtime's own packages, not those that this process was started with.
        environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=environ,
            )
        except OSError as error:
            raise TrainerError(
                f"{python} can't be started: {error.strerror}.",
                fix="name the interpreter of an environment that has the runtime.",
            ) from error
        self._log: collections.deque[str] = collections.deque(maxlen=SHOWN_LINES)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self.versions = self._read_reply()["versions"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, which removes what it converted the model to."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:  # it converts, or computes an answer
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._log.append(line.rstrip())

    def _read_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._reader.join()
            log = " | ".join(self._log) or "no log"
            raise EngineRefused(f"{self.runtime} ended with status {status}: {log}")
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise TrainerError(
                f"{self._python} answers as no interpreter of Python: {line.strip()[:200]}",
                fix="name the interpreter of an environment that has the runtime.",
            ) from error
        if "error" in reply:
            raise self._refusal(reply["error"])
        return reply

    def _refusal(self, message: str) -> EngineRefused:
        fix = None
        if message.startswith(MISSING_MODULE):
            fix = (
                f"`pip install {PACKAGES[self.runtime]}` in an environment of its own, and name its"
                " interpreter with --runtime-python."
            )
        return EngineRefused(f"{self.runtime}: {message}", fix=fix)

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it left to read says why
        return self._read_reply()

    def render(self, conversation: dict[str, Any]) -> list[int]:
        """Return the prompt's tokens as the runtime makes them."""
        ids: list[int] = self._request({"do": "render", **conversation})["ids"]
        return ids

    def answer(self, ids: Sequence[int], max_new_tokens: int) -> run.Answer:
        """Return the greedy answer to a prompt's tokens."""
        request = {"do": "answer", "ids": list(ids), "maxNewTokens": max_new_tokens}
        reply = self._request(request)
        return {"ids": reply["ids"], "text": reply["text"], "finish": reply["finish"]}

    def score(self, ids: Sequence[int], start: int = 1) -> list[float]:
        """Return the log-probability of each token from `start` on, given those before it."""
        reply = self._request({"do": "score", "ids": list(ids), "start": start})
        scores: list[float] = reply["logProbabilities"]
        return scores
