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

from local_backend.data.batches import IGNORE_INDEX, Example, collate, count_padded_tokens
from local_backend.errors import TrainerError
from local_backend.models.load_model import LoadedModel, autocast
from local_backend.packed import llama
from local_backend.packed.layout import count_packed_tokens, pack_examples


class PaddedLoss:
    """Padded rows through the model's own forward."""

    count_tokens = staticmethod(count_padded_tokens)

    def __init__(self, loaded: LoadedModel, dtype: torch.dtype, device: torch.device) -> None:
        self.loaded, self.dtype, self.device = loaded, dtype, device

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """The negative log-likelihood of the learned tokens in nats, summed; a scalar."""
        pad = self.loaded.tokenizer.pad_token_id or 0
        with autocast(self.dtype, self.device):
            return summed_cross_entropy(self.loaded.model, collate(examples, pad, self.device))

    def enable_gradient_checkpointing(self) -> bool:
        """Nothing is left to be done."""
        return False

    def fsdp_units(self) -> list[nn.Module]:
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

    count_tokens = staticmethod(count_packed_tokens)

    def __init__(
        self,
        loaded: LoadedModel,
        dtype: torch.dtype,
        device: torch.device,
        *,
        sharded: bool = False,
    ) -> None:
        self.device = device
        self.model = llama.PackedLlama(loaded.model, dtype, sharded=sharded)

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """The negative log-likelihood of the learned tokens in nats, summed; a scalar."""
        loss: torch.Tensor = self.model(pack_examples(examples, self.device))
        return loss

    def enable_gradient_checkpointing(self) -> bool:
        """Compute activations again instead of keeping them. False when that is done already."""
        done, self.model.gradient_checkpointing = self.model.gradient_checkpointing, True
        return not done

    def fsdp_units(self) -> list[nn.Module]:
        """What FSDP gathers at a time: each block, then the rest."""
        return [*self.model.blocks, self.model]


def make_loss(
    loaded: LoadedModel, dtype: torch.dtype, device: torch.device, *, sharded: bool = False
) -> PaddedLoss | PackedLoss:
    """The fastest way that is right for this model; `sharded`: one whose weights will be."""
    if llama.is_supported(loaded.model):
        return PackedLoss(loaded, dtype, device, sharded=sharded)
    return PaddedLoss(loaded, dtype, device)


def summed_cross_entropy(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
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
        ignore_index=IGNORE_INDEX,
        reduction="sum",
    )
