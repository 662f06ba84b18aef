"""Run a model folder in OpenVINO, converted by optimum-intel first.

Template, tokenizer and answers are those of openvino-genai. OpenVINO computes in float32 here, with
a key-value cache in float32: its own defaults for CPUs are an 8-bit cache, and bfloat16 where the
CPU has it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_backend.export.engines.run import Answer, Conversation

CONVERTER, CONVERTED = "exporter", "openvino_model.xml"
"""What converts a model folder, and its file: a folder that has that is converted already."""
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}


class OpenVinoEngine:
    """A converted model, run by openvino-genai, and by OpenVINO itself for probabilities."""

    def __init__(self, folder: Path) -> None:
        from importlib.metadata import version

        import openvino
        import openvino_genai

        self.library: Any = openvino_genai
        # The other attention backend of openvino-genai has its own cache and settings.
        self.pipeline: Any = openvino_genai.LLMPipeline(
            str(folder), "CPU", {**EXACT, "ATTENTION_BACKEND": "SDPA"}
        )
        self.tokenizer: Any = self.pipeline.get_tokenizer()
        compiled = openvino.Core().compile_model(str(folder / CONVERTED), "CPU", EXACT)
        self.request: Any = compiled.create_infer_request()
        self.inputs = {name for port in compiled.inputs for name in port.names}
        names = ("openvino", "openvino-genai", "optimum-intel", "transformers")
        self.versions = {name: version(name) for name in names}

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt by openvino-genai's own template engine."""
        text = conversation.get("text")
        is_chat = text is None
        if is_chat:
            text = self.tokenizer.apply_chat_template(
                conversation["messages"], True, tools=conversation.get("tools")
            )
        # LLMPipeline adds no special tokens to what a template wrote.
        ids = self.tokenizer.encode(text, add_special_tokens=not is_chat).input_ids
        return [int(token) for token in ids.data[0]]

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer, ended by the tokens of generation_config.json."""
        import numpy as np
        import openvino

        config = self.pipeline.get_generation_config()
        config.max_new_tokens, config.do_sample = max_new_tokens, False
        reply = self.pipeline.generate(openvino.Tensor(np.array([ids], dtype=np.int64)), config)
        made = [int(token) for token in reply.tokens[0]]
        finish = "stop" if "STOP" in str(reply.finish_reasons[0]) else "length"
        if made and made[-1] in config.stop_token_ids:
            made, finish = made[:-1], "stop"
        return {"ids": made, "text": self.tokenizer.decode(made), "finish": finish}

    def score(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each token from `start` on."""
        import numpy as np

        given = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
            "position_ids": np.arange(len(ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        self.request.reset_state()
        self.request.infer({name: value for name, value in given.items() if name in self.inputs})
        logits = self.request.get_tensor("logits").data[0, start - 1 : -1].astype(np.float64)
        logits = logits - logits.max(-1, keepdims=True)
        scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return [float(value) for value in scores[np.arange(len(ids) - start), ids[start:]]]


def convert_command(folder: Path, out: Path) -> list[str]:
    """Return the command that converts a model folder."""
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino"]
    command += ["--model", str(folder), "--task", "text-generation-with-past"]
    return [*command, "--weight-format", "fp32", str(out)]


def load(folder: Path) -> OpenVinoEngine:
    """Load a converted folder."""
    return OpenVinoEngine(folder)
