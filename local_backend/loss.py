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
from torch import nn

from local_backend import llama
from local_backend.batches import IGNORED, Example, as_tensors, padded_size
from local_backend.errors import TrainerError
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

    def units(self) -> list[nn.Module]:
        """What FSDP gathers at a time: each block, then the rest. Raises TrainerError."""
        model = self.loaded.model
        wanted = set(model._no_split_modules or ())  # transformers' own word for a model's blocks
        blocks = [module for module in model.modules() if type(module).__name__ in wanted]
        if not blocks:
            raise TrainerError(
                f"{type(model).__name__} does not say what its blocks are, so it can't be sharded.",
                fix="set local.fsdp: false.",
            )
        return [*blocks, model]


class PackedLoss:
    """Records one behind the other; what they all begin with, once."""

    size = staticmethod(packed_size)

    def __init__(
        self, loaded: Loaded, dtype: torch.dtype, device: torch.device, *, sharded: bool = False
    ) -> None:
        self.device = device
        self.model = llama.Llama(loaded.model, dtype, sharded=sharded)

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """The negative log-likelihood of the learned tokens in nats, summed; a scalar."""
        loss: torch.Tensor = self.model(pack(examples, self.device))
        return loss

    def save_memory(self) -> bool:
        """Compute activations again instead of keeping them. False when that is done already."""
        done, self.model.thrifty = self.model.thrifty, True
        return not done

    def units(self) -> list[nn.Module]:
        """What FSDP gathers at a time: each block, then the rest."""
        return [*self.model.blocks, self.model]


def loss_of(
    loaded: Loaded, dtype: torch.dtype, device: torch.device, *, sharded: bool = False
) -> PlainLoss | PackedLoss:
    """The fastest way that is right for this model; `sharded`: one whose weights will be."""
    if llama.fits(loaded.model):
        return PackedLoss(loaded, dtype, device, sharded=sharded)
    return PlainLoss(loaded, dtype, device)


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
