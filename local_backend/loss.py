"""The loss of some records: by the packed way where the model has Llama's shape, else by the plain.

Both are the same number. The plain way takes the model's own forward on padded rows, with logits
only where a token is learned: with a vocabulary of 49,152 the output layer is most of a small
model's work, and nearly all of its rows would be thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from local_backend import llama
from local_backend.batches import IGNORED, Example, as_tensors, padded_size
from local_backend.model import Loaded, computing_in
from local_backend.packing import pack, packed_size


class PlainLoss:
    """Padded rows through the model's own forward."""

    size = staticmethod(padded_size)

    def __init__(self, loaded: Loaded, dtype: torch.dtype, device: torch.device) -> None:
        self.loaded, self.dtype, self.device = loaded, dtype, device

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """The negative log-likelihood of the learned tokens in nats, summed; a scalar."""
        pad = self.loaded.tokenizer.pad_token_id or 0
        with computing_in(self.dtype, self.device):
            return summed_loss(self.loaded.model, as_tensors(examples, pad, self.device))

    def save_memory(self) -> bool:
        """Nothing is left to be done."""
        return False


class PackedLoss:
    """Records one behind the other; what they all begin with, once."""

    size = staticmethod(packed_size)

    def __init__(self, loaded: Loaded, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.model = llama.Llama(loaded.model, dtype)

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """The negative log-likelihood of the learned tokens in nats, summed; a scalar."""
        return self.model.summed_loss(pack(examples, self.device))

    def save_memory(self) -> bool:
        """Compute activations again instead of keeping them. False when that is done already."""
        done, self.model.thrifty = self.model.thrifty, True
        return not done


def loss_of(loaded: Loaded, dtype: torch.dtype, device: torch.device) -> PlainLoss | PackedLoss:
    """The fastest way that is right for this model."""
    way = PackedLoss if llama.fits(loaded.model) else PlainLoss
    return way(loaded, dtype, device)


def summed_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The negative log-likelihood of the batch's learned tokens in nats, summed; a scalar.

    Equal to the sum over the model's full logits: only positions that no row of the batch learns
    from are left out (`logits_to_keep`).
    """
    targets = batch["labels"][:, 1:]
    kept = batch["kept"]
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=kept
    ).logits
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        targets[:, kept].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
