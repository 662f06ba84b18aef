"""Run a model folder in transformers, or an adapter's with its base by peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local_backend.export.engines.run import Answer, Conversation


class TransformersEngine:
    """A model loaded by AutoModelForCausalLM, as its configuration says."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers
        from transformers import AutoModelForCausalLM, AutoTokenizer

        # A folder with adapter_config.json loads its base and the adapter, by peft.
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        self.model: Any = model.eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}

    def render(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a prompt by the folder's template."""
        if "text" in conversation:
            return list(self.tokenizer(conversation["text"])["input_ids"])
        encoded = self.tokenizer.apply_chat_template(
            conversation["messages"],
            tools=conversation.get("tools"),
            add_generation_prompt=True,
            return_dict=True,
        )
        return list(encoded["input_ids"])

    def answer(self, ids: list[int], max_new_tokens: int) -> Answer:
        """Return the greedy answer, ended by the tokens of generation_config.json."""
        import torch

        prompt = torch.tensor([ids])
        output = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        made = output[0, len(ids) :].tolist()
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        finish = "stop" if made and made[-1] in ends else "length"
        made = made[:-1] if finish == "stop" else made
        text = self.tokenizer.decode(made, skip_special_tokens=True)
        return {"ids": made, "text": text, "finish": finish}

    def score(self, ids: list[int], start: int) -> list[float]:
        """Return the log-probability of each token from `start` on."""
        import torch

        with torch.inference_mode():
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].float()
        following = torch.tensor(ids[start:])[:, None]
        scores: list[float] = logits.log_softmax(-1).gather(1, following)[:, 0].tolist()
        return scores


def load(folder: Path) -> TransformersEngine:
    """Load a model folder."""
    return TransformersEngine(folder)
