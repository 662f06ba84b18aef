"""Start vLLM or llama.cpp on an exported model, wait until it answers, and stop it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cloudft.backends.local.environment import SECRET_NAME, filter_environment
from cloudft.errors import TrainerError, UsageError
from cloudft.runtimes.llama_cpp_program import KEY_VARIABLE
from cloudft.runtimes.openai_client import OpenAIClient

VLLM, LLAMA_CPP = "vllm", "llama.cpp"
STARTABLE = (VLLM, LLAMA_CPP)
MODEL_NAME = "tuned"
"""What the started server calls the model."""
START_TIMEOUT_S = 900.0
"""vLLM compiles and captures graphs before it answers, which takes minutes for a large model."""
SETTINGS = ("VLLM_", "GGML_", "LLAMA_")
"""Beginnings of the variables that vLLM and llama.cpp are set up by."""
POLL_S = 0.1
LOG_LINES = 3


@dataclass(frozen=True)
class Program:
    """A command that serves a model, its secret environment, and name and version of the engine."""

    command: Sequence[str]
    environment: Mapping[str, str]
    version: str


def find_program(engine: str, model: Path, port: int, key: str) -> Program:
    """Return how to serve the exported `model`. Raise UsageError where it is not installed."""
    if engine == LLAMA_CPP:
        return _find_llama_cpp(find_gguf(model), port, key)
    path = shutil.which("vllm")
    if path is None:
        raise UsageError(
            "vLLM is not installed here: there is no program `vllm`",
            fix="pip install vllm, or serve the export elsewhere and name it:"
            " --engine openai:http://HOST:8000/v1",
        )
    command = [path, "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", MODEL_NAME]
    return Program(command, {"VLLM_API_KEY": key}, "vLLM")


def _find_llama_cpp(file: Path, port: int, key: str) -> Program:
    if importlib.util.find_spec("xllamacpp") is not None:
        command = [sys.executable, "-m", "cloudft.runtimes.llama_cpp_program", str(file)]
        version = f"xllamacpp {metadata.version('xllamacpp')}"
        return Program([*command, str(port), MODEL_NAME], {KEY_VARIABLE: key}, version)
    path = shutil.which("llama-server")
    if path is None:
        raise UsageError(
            "llama.cpp is not installed here: neither the package xllamacpp nor `llama-server`",
            fix="pip install 'cloudft[llama-cpp]'",
        )
    command = [path, "--model", str(file), "--host", "127.0.0.1", "--port", str(port), "--jinja"]
    command += ["--alias", MODEL_NAME]
    return Program(command, {"LLAMA_API_KEY": key}, "llama.cpp")


def find_gguf(model: Path) -> Path:
    """Return the GGUF file of an export: the file itself, or the only one in the folder."""
    if model.is_file():
        return model
    # Of a model in parts, llama.cpp takes the first and finds the others.
    found = [
        path
        for path in sorted(model.glob("*.gguf"))
        if "-of-" not in path.name or "-00001-of-" in path.name
    ]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UsageError(
            f"{model} must have one GGUF file, and has {names}",
            fix="name the file: --engine-dir FILE.gguf",
        )
    return found[0]


@contextlib.contextmanager
def started_server(engine: str, model: Path) -> Iterator[tuple[OpenAIClient, str]]:
    """Yield a server of the exported `model`, and name and version of what runs it.

    It ends with the block, and with this process. Raise TrainerError where it does not start.
    """
    key, port = secrets.token_urlsafe(24), _free_port()
    program = find_program(engine, model, port, key)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cloudft.runtimes.supervise", *program.command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(program),
            start_new_session=True,  # Ctrl-C is for cloudft, which then ends it
        )
        server = OpenAIClient(f"http://127.0.0.1:{port}", api_key=key)
        try:
            _wait_until_ready(process, server, engine, log.fileno())
            yield server, program.version
        finally:
            server.close()
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def _environment(program: Program) -> dict[str, str]:
    """Return the environment of a server: what the trainer's programs get, and its own settings.

    Keys for other servers, of the Hub and of AWS are not among them.
    """
    kept = filter_environment(os.environ, hub=False)
    settings = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(SETTINGS) and not SECRET_NAME.search(name)
    }
    return {**kept, **settings, **program.environment}


def _wait_until_ready(
    process: subprocess.Popen[bytes], server: OpenAIClient, engine: str, log: int
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TrainerError(
                f"{engine} ended with status {process.returncode} before it answered:"
                f" {_last_lines(log)}",
                fix="see whether it runs by itself, and needs other versions or more memory.",
            )
        if server.is_healthy():
            return
        time.sleep(POLL_S)
    raise TrainerError(
        f"{engine} does not answer after {START_TIMEOUT_S:.0f} seconds: {_last_lines(log)}",
        fix="serve the export by yourself and name it: --engine openai:http://HOST:PORT/v1",
    )


def _last_lines(log: int) -> str:
    size = os.fstat(log).st_size
    text = os.pread(log, 4096, max(0, size - 4096)).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-LOG_LINES:])[:600] or "no message"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
