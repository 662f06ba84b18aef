"""Answer requests about a model in one runtime: `PYTHON run.py RUNTIME MODEL [--work DIR]`.

MODEL is a model folder, or a GGUF file. One JSON line on standard input is one request, and gets
one JSON line on standard output, in order. The first line, without a request, has the runtime's
`versions`, once MODEL is loaded. Requests are objects with the key `do`:

- `render`, with `messages` (and `tools`) or `text`: `ids`, the prompt as the runtime's own template
  and tokenizer make it.
- `answer`, with `ids` and `maxNewTokens`: `ids` of the greedy answer without its end token, its
  `text`, and `finish`: `stop` where the runtime ended it by a token of its own, else `length`.
- `score`, with `ids` and `start` (at least 1): `logProbabilities` of each token from that position
  on, given those before it.

A line with `error` says what failed; after one in place of the first line, the program ends. Only
the standard library and the runtime are imported. Files that a runtime makes of the model first
(conversion) are written to DIR. What libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, TypedDict

RUNTIMES = (
    "llama_cpp",
    "mlx_lm",
    "onnxruntime_genai",
    "openvino",
    "transformers",
    "vllm",
)
POLL_S = 0.5
"""Seconds after which a conversion looks whether its result is still of use."""
Conversation = dict[str, Any]
"""`messages` in the form of chat templates, with `tools` where there are any; or `text`."""


class Answer(TypedDict):
    """A greedy answer: tokens without the end token, text, and `stop` or `length`."""

    ids: list[int]
    text: str
    finish: str


class Engine(Protocol):
    """A loaded model of one runtime."""

    versions: dict[str, str]

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt."""

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer to a prompt."""

    def score(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each token from `start` on, given those before it."""


def load_engine(runtime: str, model: Path, work: Path) -> Engine:
    """Load `model` by the file of its runtime, which lies beside this one.

    Where the file has a `convert_command`, a model folder is converted into one in `work` first.
    """
    path = Path(__file__).resolve().with_name(f"{runtime}.py")
    # Not as a plain import: the files are named like the libraries that they import.
    spec = importlib.util.spec_from_file_location(f"engine_{runtime}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if hasattr(module, "convert_command") and not (model / module.CONVERTED).is_file():
        out = work / runtime
        convert(module.CONVERTER, module.convert_command(model, out))
        model = out
    engine: Engine = module.load(model)
    return engine


def convert(converter: str, command: Sequence[str]) -> None:
    """Run the command of a converter. Raise RuntimeError with its last line.

    It is ended when the process that started this one is gone: nobody waits for it then.
    """
    parent = os.getppid()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as process,
    ):
        try:
            while os.getppid() == parent and process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
        finally:
            process.kill()
        status = process.wait()
        log.seek(0)
        text = log.read()
    sys.stderr.write(text)
    if status:
        lines = [line for line in text.splitlines() if line.strip()]
        raise RuntimeError(f"the {converter} failed: {lines[-1] if lines else status}")


def reply_to(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    kind = request.pop("do")
    if kind == "render":
        return {"ids": engine.render(request)}
    if kind == "answer":
        return {**engine.answer(request["ids"], request["maxNewTokens"])}
    if kind == "score":
        return {"logProbabilities": engine.score(request["ids"], request["start"])}
    raise ValueError(f"no such request: {kind}")


def describe_error(error: BaseException) -> str:
    """Return the last line of an error as Python prints it."""
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def serve(runtime: str, model: Path, work: Path, replies: TextIO) -> int:
    """Load the model and answer every line of standard input; return the exit status."""

    def write(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    try:
        engine = load_engine(runtime, model, work)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        write({"error": describe_error(error)})
        return 1
    write({"versions": {"python": sys.version.split()[0], **engine.versions}})
    for line in sys.stdin:
        try:
            write(reply_to(engine, json.loads(line)))
        except Exception as error:
            traceback.print_exc()
            write({"error": describe_error(error)})
    return 0


def take_standard_output() -> TextIO:
    """Return standard output for replies alone; all else, of C code too, goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def main() -> int:
    """Run the runtime until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, help="folder for converted models")
    args = parser.parse_args()
    replies = take_standard_output()
    # This folder has files named like libraries, and Python puts it first.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [path for path in sys.path if path not in ("", here)]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        status = serve(args.runtime, args.model.resolve(), work, replies)
    replies.flush()
    return status


if __name__ == "__main__":
    # Not sys.exit: some runtimes crash or wait while Python takes itself apart.
    os._exit(main())
