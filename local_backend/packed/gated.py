"""Gated activations of the MLP: act(gate) * up, of one tensor that holds both."""

from __future__ import annotations

import torch

from local_backend.packed.ops import GatedGelu, SwiGlu, run_function

_GELU = {"gelu": "none", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh"}
"""PyTorch's `approximate` by transformers' name of the activation."""
ACTIVATIONS = ("silu", *_GELU)
"""transformers' names of the activations that the packed path computes."""


def gate(gate_up: torch.Tensor, activation: str, columns: int = 0) -> torch.Tensor:
    """Return act(gate) * up: [tokens, 2 x width] -> [tokens, width].

    `columns`: those of the adapters that the next layer puts beside it.
    """
    if activation == "silu":
        return run_function(SwiGlu, gate_up, columns)
    return run_function(GatedGelu, gate_up, _GELU[activation])
