"""Run a GGUF file in llama.cpp's server, by xllamacpp: what Ollama and LM Studio build on.

All goes through the server's HTTP API, so that template, tokenizer and end tokens are those that
its users get. Numbers are computed in the file's own format: the key-value cache is float32 here,
not llama.cpp's default of float16, so that a difference is the file's.
"""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_backend.export.engines.run import Answer, Conversation

CONTEXT = 4096
"""Tokens of the server's context; a model whose own context is shorter gets that."""
FORCED = 1e9
"""Added to a token's logit to have it sampled. Its probability is reported without."""


class LlamaCppEngine:
    """llama.cpp's server with one GGUF file."""

    def __init__(self, path: Path) -> None:
        from importlib.metadata import version

        import xllamacpp

        parameters: Any = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = CONTEXT
        parameters.n_parallel = 1
        parameters.n_gpu_layers = 0
        parameters.warmup = False
        parameters.use_jinja = True
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        kinds = xllamacpp.llama_flash_attn_type
        parameters.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # Threads that wait for work by turning a core are the slowest where others need it.
        parameters.cpuparams.n_threads = os.cpu_count() or 1
        parameters.cpuparams.poll = 0
        self.server: Any = xllamacpp.Server(parameters)
        self.versions = {"xllamacpp": version("xllamacpp")}

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode(errors='replace')}") from None

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt as the server's chat completions make them."""
        text = conversation.get("text")
        if text is None:
            text = self._post("/apply-template", conversation)["prompt"]
        body = {"content": text, "add_special": True, "parse_special": True}
        ids: list[int] = self._post("/tokenize", body)["tokens"]
        return ids

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer; the file's end tokens end it."""
        body = {"prompt": ids, "n_predict": max_new_tokens, "temperature": 0, "return_tokens": True}
        reply = self._post("/completion", body)
        finish = "stop" if reply["stop_type"] == "eos" else "length"
        made: list[int] = reply["tokens"]
        if finish == "stop" and len(made) == reply["tokens_predicted"]:
            made = made[:-1]
        return {"ids": made, "text": reply["content"], "finish": finish}

    def score(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each token from `start` on, one request each.

        The server does not score prompts. Each token is forced in turn, and the cached prefix
        makes that one step.
        """
        scores = []
        for end in range(start, len(ids)):
            body = {
                "prompt": ids[:end],
                "n_predict": 1,
                "temperature": 0,
                "logit_bias": [[ids[end], FORCED]],
                "n_probs": 1,
                "post_sampling_probs": False,
            }
            [made] = self._post("/completion", body)["completion_probabilities"]
            assert made["id"] == ids[end]
            scores.append(float(made["logprob"]))
        return scores


def load(model: Path, work: Path) -> LlamaCppEngine:
    """Load a GGUF file, or the only one of a folder."""
    files = [model] if model.is_file() else sorted(model.glob("*.gguf"))
    if len(files) != 1:
        raise FileNotFoundError(f"{model} has {len(files)} GGUF files; one is needed")
    return LlamaCppEngine(files[0])
