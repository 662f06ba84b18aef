"""Run a model folder in onnxruntime-genai, whose builder converts it to ONNX first.

The builder itself needs torch, transformers and onnx-ir beside onnxruntime-genai.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_backend.export.engines.run import Answer, Conversation

CONVERTER, CONVERTED = "builder", "genai_config.json"
"""What converts a model folder, and its file: a folder that has that is converted already."""


class OnnxEngine:
    """A converted model, run on the CPU in float32."""

    def __init__(self, folder: Path) -> None:
        from importlib.metadata import version

        import onnxruntime_genai

        self.library: Any = onnxruntime_genai
        self.model: Any = onnxruntime_genai.Model(str(folder))
        self.tokenizer: Any = onnxruntime_genai.Tokenizer(self.model)
        config = json.loads((folder / CONVERTED).read_text(encoding="utf-8"))["model"]
        self.context = int(config["context_length"])
        ends = config["eos_token_id"]
        self.ends = ends if isinstance(ends, list) else [ends]
        names = ("onnxruntime-genai", "onnxruntime", "transformers")
        self.versions = {name: version(name) for name in names}

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt by onnxruntime-genai's own template engine."""
        text = conversation.get("text")
        if text is None:
            tools = conversation.get("tools")
            text = self.tokenizer.apply_chat_template(
                json.dumps(conversation["messages"]),
                add_generation_prompt=True,
                **({"tools": json.dumps(tools)} if tools else {}),
            )
        return [int(token) for token in self.tokenizer.encode(text)]

    def _start(self, ids: list[int], length: int) -> Any:
        parameters = self.library.GeneratorParams(self.model)
        length = min(length, self.context)
        parameters.set_search_options(do_sample=False, max_length=length)
        generator = self.library.Generator(self.model, parameters)
        generator.append_tokens(ids)
        return generator

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer, ended by the tokens of genai_config.json."""
        generator = self._start(ids, len(ids) + max_new_tokens)
        made: list[int] = []
        while not generator.is_done():
            generator.generate_next_token()
            made.append(int(generator.get_next_tokens()[0]))
        finish = "stop" if made and made[-1] in self.ends else "length"
        made = made[:-1] if finish == "stop" else made
        return {"ids": made, "text": self.tokenizer.decode(made), "finish": finish}

    def score(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each token from `start` on, one step each."""
        generator = self._start(ids[:start], len(ids) + 1)
        scores = []
        for token in ids[start:]:
            logits = generator.get_logits().reshape(-1).astype("float64")
            top = float(logits.max())
            total = math.log(float(sum(math.exp(value - top) for value in logits.tolist())))
            scores.append(float(logits[token]) - top - total)
            generator.append_tokens([token])
        return scores


def convert_command(folder: Path, out: Path) -> list[str]:
    """Return the command that converts a model folder."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-m", str(folder), "-i", str(folder), "-o", str(out)]
    return [*command, "-p", "fp32", "-e", "cpu", "-c", str(out.parent / "cache")]


def load(folder: Path) -> OnnxEngine:
    """Load a converted folder."""
    return OnnxEngine(folder)
