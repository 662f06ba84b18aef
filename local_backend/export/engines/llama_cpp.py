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
        [model] = self._request("/v1/models")["data"]
        self.context = min(CONTEXT, int(model["meta"]["n_ctx_train"]))
        self.vocabulary = int(model["meta"]["n_vocab"])
        self.letter = int(self._request("/tokenize", {"content": "a"})["tokens"][-1])

    def _request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode(errors='replace')}") from None

    def _check_length(self, ids: list[int]) -> None:
        """Refuse what is beyond the file's own context, which the server only warns of."""
        if len(ids) >= self.context:
            raise ValueError(f"{len(ids)} tokens are beyond the file's context of {self.context}")

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt as the server's chat completions make them."""
        text = conversation.get("text")
        if text is None:
            text = self._request("/apply-template", conversation)["prompt"]
        body = {"content": text, "add_special": True, "parse_special": True}
        ids: list[int] = self._request("/tokenize", body)["tokens"]
        return ids

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer; the file's end tokens end it."""
        self._check_length(ids)
        body = {"prompt": ids, "n_predict": max_new_tokens, "temperature": 0, "return_tokens": True}
        reply = self._request("/completion", body)
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
        self._check_length(ids)
        return [self._score_token(ids[:end], ids[end]) for end in range(start, len(ids))]

    def _score_token(self, before: list[int], token: int) -> float:
        body = {"prompt": before, "n_predict": 1, "temperature": 0, "post_sampling_probs": False}
        forced = {"logit_bias": [[token, FORCED]], "n_probs": 1}
        made = self._request("/completion", {**body, **forced}).get("completion_probabilities")
        if made:
            assert made[0]["id"] == token
            return float(made[0]["logprob"])
        # The server reports neither end tokens nor parts of a character. They are among the
        # alternatives of a token that is reported.
        every = {"logit_bias": [[self.letter, FORCED]], "n_probs": self.vocabulary}
        [made] = self._request("/completion", {**body, **every})["completion_probabilities"]
        found = (one["logprob"] for one in made["top_logprobs"] if one["id"] == token)
        return float(next(found))


def load(model: Path) -> LlamaCppEngine:
    """Load a GGUF file, or the only one of a folder."""
    files = [model] if model.is_file() else sorted(model.glob("*.gguf"))
    if len(files) != 1:
        raise FileNotFoundError(f"{model} has {len(files)} GGUF files; one is needed")
    return LlamaCppEngine(files[0])
