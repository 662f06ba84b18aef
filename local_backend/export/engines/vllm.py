"""Run a model folder in vLLM, on a GPU or by its build for CPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_backend.export.engines.run import Answer, Conversation

CONTEXT = 4096
"""Tokens of a request at most; a model whose own context is shorter gets that."""


class VllmEngine:
    """A model loaded by `vllm.LLM`; an adapter's folder beside its base."""

    def __init__(self, folder: Path) -> None:
        import vllm

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
        self.model: Any = vllm.LLM(
            str(base),
            tokenizer=str(folder),
            dtype="auto",
            max_model_len=min(CONTEXT, own.get("max_position_embeddings") or CONTEXT),
            enforce_eager=True,
            max_num_seqs=1,
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

    def score(self, ids: list[int]) -> list[float]:
        """Return the log-probability of each token after the first."""
        reply = self._run([{"prompt_token_ids": ids}], "generate", max_tokens=1, prompt_logprobs=0)
        scored = zip(ids[1:], reply.prompt_logprobs[1:], strict=True)
        return [float(found[token].logprob) for token, found in scored]


def load(folder: Path, work: Path) -> VllmEngine:
    """Load a model folder, or an adapter's."""
    return VllmEngine(folder)
