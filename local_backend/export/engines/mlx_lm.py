"""Run a model folder in mlx-lm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_backend.export.engines.run import Answer, Conversation


class MlxEngine:
    """A model loaded by `mlx_lm.load`."""

    def __init__(self, folder: Path) -> None:
        from importlib.metadata import version

        from mlx_lm import load as load_folder

        self.model: Any
        self.tokenizer: Any
        self.model, self.tokenizer = load_folder(str(folder))[:2]
        self.versions = {name: version(name) for name in ("mlx-lm", "mlx", "transformers")}

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt by mlx-lm's tokenizer."""
        if "text" in conversation:
            return list(self.tokenizer.encode(conversation["text"]))
        ids = self.tokenizer.apply_chat_template(
            conversation["messages"],
            tools=conversation.get("tools"),
            add_generation_prompt=True,
        )
        return list(ids if isinstance(ids, list) else ids["input_ids"])

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer as `mlx_lm.stream_generate` gives it."""
        from mlx_lm import stream_generate

        made, text, finish = [], "", "length"
        for part in stream_generate(self.model, self.tokenizer, ids, max_tokens=max_new_tokens):
            made.append(int(part.token))
            text += part.text
            finish = part.finish_reason or finish
        if finish == "stop":
            made.pop()
        return {"ids": made, "text": text, "finish": finish}

    def score(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each token from `start` on."""
        import mlx.core as mx

        logits = self.model(mx.array([ids]))[0, start - 1 : -1].astype(mx.float32)
        scores = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        taken = mx.take_along_axis(scores, mx.array(ids[start:])[:, None], axis=-1)
        return [float(value) for value in taken[:, 0].tolist()]


def load(folder: Path) -> MlxEngine:
    """Load a model folder."""
    return MlxEngine(folder)
