"""Run a GGUF file in llama.cpp's server, in a process of its own.

llama.cpp ends the whole process when it finds a fault in a file. `python tests/llama_cpp_runs.py`
reads a request as JSON from standard input, and writes a LlamaCppRun as JSON.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict


class LlamaCppRun(TypedDict):
    """What llama.cpp answered."""

    answers: list[list[int]]
    """The greedy tokens after each prompt, with the end token of an answer that ended."""
    log_probabilities: list[list[list[float]]]
    """For each prompt and each of its new tokens, those of the whole vocabulary by id."""
    stops: list[str]
    """Why each answer ended: `eos`, `word` or `limit`."""
    tokens: list[list[int]]
    """The tokens of each text, special tokens in it recognized."""
    prompt_lengths: list[int]
    """The tokens of each chat's prompt, if chats are completed too."""
    rendered: list[str]
    """Each chat as the file's template renders it."""
    properties: dict[str, Any]


class LlamaCppError(AssertionError):
    """llama.cpp refused the file; the text is its log."""


def run_llama_cpp(
    path: Path,
    *,
    prompts: Sequence[Sequence[int]] = (),
    new_tokens: int = 8,
    texts: Sequence[str] = (),
    chats: Sequence[Any] = (),
    complete_chats: bool = False,
    vocabulary: int = 0,
    request: dict[str, Any] | None = None,
) -> LlamaCppRun:
    """Load `path`, run the prompts and return the answers.

    `request` has more settings of a completion; greedy decoding if it is not given.
    """
    order = {
        "path": str(path),
        "prompts": [list(prompt) for prompt in prompts],
        "new_tokens": new_tokens,
        "texts": list(texts),
        "chats": list(chats),
        "complete_chats": complete_chats,
        "vocabulary": vocabulary,
        "request": {"temperature": 0, "samplers": ["temperature"]} if request is None else request,
    }
    found = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    if found.returncode != 0:
        raise LlamaCppError(found.stderr[-3000:])
    run: LlamaCppRun = json.loads(found.stdout.rpartition("\nRUN ")[2])
    return run


def main() -> None:
    """Serve the file, and send the requests."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    order = json.load(sys.stdin)
    settings = xllamacpp.CommonParams()
    settings.model.path = order["path"]
    settings.n_ctx = order.get("context", 512)
    settings.n_parallel = 1
    settings.cpuparams.n_threads = 1
    settings.warmup = False
    settings.port = 0
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.endpoint_props = True
    server = xllamacpp.Server(settings)
    address = server.listening_address

    def send(path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        sent = urllib.request.Request(address + path, data, {"content-type": "application/json"})
        return json.loads(urllib.request.urlopen(sent).read())

    run: dict[str, Any] = {"answers": [], "log_probabilities": [], "stops": []}
    for prompt in order["prompts"]:
        body = {"prompt": prompt, "n_predict": order["new_tokens"], "return_tokens": True}
        body |= {"n_probs": order["vocabulary"], "cache_prompt": False} | order["request"]
        answer = send("/completion", body)
        run["answers"].append(answer["tokens"])
        run["stops"].append(answer["stop_type"])
        run["log_probabilities"].append(
            [
                _by_id(step.get("top_logprobs") or step["top_probs"], order["vocabulary"])
                for step in answer.get("completion_probabilities", [])
            ]
        )
    run["tokens"] = [
        send("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
        for text in order["texts"]
    ]
    run["rendered"] = [
        send("/apply-template", {"messages": chat})["prompt"] for chat in order["chats"]
    ]
    run["prompt_lengths"] = [
        send("/v1/chat/completions", {"messages": chat, "max_tokens": 1})["usage"]["prompt_tokens"]
        for chat in (order["chats"] if order["complete_chats"] else [])
    ]
    run["properties"] = send("/props")
    sys.stdout.write("\nRUN " + json.dumps(run))
    sys.stdout.flush()
    os._exit(0)


def _by_id(candidates: list[dict[str, Any]], vocabulary: int) -> list[float]:
    """Return the log-probabilities by token; what is missing has probability 0.

    With `post_sampling_probs` in the request, those from which the token was drawn.
    """
    values = [-math.inf] * vocabulary
    for candidate in candidates:
        if candidate.get("prob"):
            values[candidate["id"]] = math.log(candidate["prob"])
        elif candidate.get("logprob") is not None:
            values[candidate["id"]] = candidate["logprob"]
    return values


if __name__ == "__main__":
    main()
