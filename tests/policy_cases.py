"""A small model and sampled answers for it: what GRPO losses are compared on, here and in TRL.

All numbers come from numpy's generator, so that every machine has the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

VOCABULARY = 120
PROMPTS = ((5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), (40, 41, 42))
LENGTHS = (6, 9, 4, 1, 7, 3, 12, 5)
"""Lengths of the answers: four to each prompt."""


def _rows() -> list[dict[str, Any]]:
    draw = np.random.default_rng(4)
    rows = []
    for number, length in enumerate(LENGTHS):
        log_probs = draw.normal(-4.8, 0.4, length)
        rows.append(
            {
                "prompt": number // 4,
                "answer": draw.integers(1, VOCABULARY, length).tolist(),
                "advantage": float(draw.normal()),
                "old": log_probs.tolist(),
                "reference": (log_probs + draw.normal(0, 0.3, length)).tolist(),
            }
        )
    return rows


ROWS = _rows()
_PLAIN = {"beta": 0.0, "epsilon": 0.2, "temperature": 1.0, "max_new_tokens": 16, "has_old": False}
CASES: dict[str, dict[str, Any]] = {
    **{name: {**_PLAIN, "loss_type": name} for name in ("dapo", "grpo", "bnpo", "dr_grpo")},
    "clipped": {**_PLAIN, "loss_type": "dapo", "has_old": True},
    "divergence": {**_PLAIN, "loss_type": "grpo", "beta": 0.1},
    "all": {**_PLAIN, "loss_type": "bnpo", "beta": 0.05, "has_old": True, "epsilon": 0.1},
    "temperature": {**_PLAIN, "loss_type": "dapo", "temperature": 0.7, "has_old": True},
}


def build_model() -> Any:
    """Return a Llama of 2 layers and 32 dimensions in float32, with known weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).float()
    draw = np.random.default_rng(9)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            scale = 0.1 if weight.dim() > 1 else 0.02
            values = draw.normal(0, scale, tuple(weight.shape)).astype(np.float32)
            weight.copy_(torch.from_numpy(values) + (1 if weight.dim() == 1 else 0))
    model.config.use_cache = False
    return model


def summarize_gradients(model: Any) -> dict[str, list[float]]:
    """Return each gradient's norm, and its products with two random directions."""
    summary = {}
    draw = np.random.default_rng(2)
    for name, weight in sorted(model.named_parameters()):
        gradient = weight.grad.double().numpy().ravel()
        directions = draw.normal(size=(2, len(gradient)))
        summary[name] = [float(np.linalg.norm(gradient)), *map(float, directions @ gradient)]
    return summary
