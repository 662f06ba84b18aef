"""Run a model folder in vLLM, on a GPU or by its build for CPUs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_backend.export.engines.run import Answer, Conversation

CONTEXT = 4096
"""Tokens of a request at most; a model whose own context is shorter gets that."""
SPARE_CACHE = 1 << 28
"""Bytes of cache beyond what one request needs by the configuration."""


class VllmEngine:
    """A model loaded by `vllm.LLM`; an adapter's folder beside its base."""

    def __init__(self, folder: Path) -> None:
        # In this process, so that an error is the one that occurred, and nothing outlives it.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        import vllm
        from vllm.platforms import current_platform

        adapter = folder / "adapter_config.json"
        settings: dict[str, Any] = {}
        self.adapter: Any = None
        base = folder
        if adapter.is_file():
            from vllm.lora.request import LoRARequest

            config = json.loads(adapter.read_text(encoding="utf-8"))
            base = Path(config["base_model_name_or_path"])
            settings = {"enable_lora": True, "max_lora_rank": config["r"]}
            self.adapter = LoRARequest("tuned", 1, str(folder))
        own = json.loads((base / "config.json").read_text(encoding="utf-8"))
        length = min(CONTEXT, own.get("max_position_embeddings") or CONTEXT)
        if current_platform.is_cpu():
            # Its own default is 0.92 of the memory, all of it written at the start.
            settings["kv_cache_memory_bytes"] = cache_size(own, length)
        self.model: Any = vllm.LLM(
            str(base),
            tokenizer=str(folder),
            # "auto" computes a float32 checkpoint in half precision.
            dtype=own.get("torch_dtype") or own.get("dtype") or "auto",
            max_model_len=length,
            enforce_eager=True,
            max_num_seqs=1,
            distributed_executor_backend="uni",
            **settings,
        )
        self.versions = {"vllm": vllm.__version__}

    def _run(self, prompt: Any, call: str, **parameters: Any) -> Any:
        from vllm import SamplingParams

        options = {"use_tqdm": False, "lora_request": self.adapter}
        options |= parameters.pop("options", {})
        sampling = SamplingParams(temperature=0, **parameters)
        [reply] = getattr(self.model, call)(prompt, sampling, **options)
        return reply

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt as `LLM.chat` makes them."""
        if "text" in conversation:
            reply = self._run([conversation["text"]], "generate", max_tokens=1)
        else:
            options = {"tools": conversation.get("tools")}
            reply = self._run(conversation["messages"], "chat", max_tokens=1, options=options)
        return list(reply.prompt_token_ids)

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer; the folder's end tokens end it."""
        reply = self._run([{"prompt_token_ids": ids}], "generate", max_tokens=max_new_tokens)
        [made] = reply.outputs
        tokens = list(made.token_ids)
        finish = "stop" if made.finish_reason == "stop" else "length"
        return {
            "ids": tokens[:-1] if finish == "stop" else tokens,
            "text": made.text,
            "finish": finish,
        }

    def score(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each token from `start` on."""
        reply = self._run([{"prompt_token_ids": ids}], "generate", max_tokens=1, prompt_logprobs=0)
        scored = zip(ids[start:], reply.prompt_logprobs[start:], strict=True)
        return [float(found[token].logprob) for token, found in scored]


def cache_size(config: dict[str, Any], tokens: int) -> int:
    """Return the bytes of a cache that keys and values of one request surely fit into."""
    text = config.get("text_config") or config
    heads = text.get("num_attention_heads") or 1
    groups = text.get("num_key_value_heads") or heads
    head = text.get("head_dim") or -(-text["hidden_size"] // heads)
    # Keys and values of 4 bytes; twice, since vLLM rounds blocks and heads up.
    return int(2 * 2 * 4 * text["num_hidden_layers"] * groups * head * tokens) + SPARE_CACHE


def load(folder: Path) -> VllmEngine:
    """Load a model folder, or an adapter's."""
    return VllmEngine(folder)
