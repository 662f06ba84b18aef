"""The loss of a micro-batch, on the packed path or through the model's own forward pass.

All ways give the same number. The model's own forward pass sees rows that follow one another
without padding where the family is known to be right so, padded rows otherwise, and one row at a
time where padding is wrong too (models/family_support.py). It computes logits only where a token
has loss: with a vocabulary of 49,152 the output layer is most of a small model's work, and nearly
all of its rows would be discarded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from local_backend.data.batches import IGNORE_INDEX, collate, count_padded_tokens
from local_backend.data.examples import Example, flatten_rows
from local_backend.errors import TrainerError
from local_backend.models import family_support
from local_backend.models.load_model import LoadedModel, autocast
from local_backend.models.token_losses import TokenFunction, TokenLosses
from local_backend.packed import PackedLoss, unsupported_reason
from local_backend.training.objectives import Objective
from local_backend.training.padding_free import (
    count_line_tokens,
    forward_lines,
    forward_row_by_row,
    pack_lines,
)


class LossFunction(Protocol):
    """The loss of examples under a model and an objective, on one of the paths."""

    name: str
    """`packed`, `padding-free`, `padded` or `row-by-row`."""
    reason: str
    """Why this path was chosen, for the log."""

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the objective's loss summed over `examples`, a scalar."""

    def reduce(
        self, examples: Sequence[Example], function: Callable[[TokenLosses], torch.Tensor]
    ) -> torch.Tensor:
        """Return what `function` makes of the losses of `examples` in place of the objective."""

    def count_tokens(self, examples: Sequence[Example]) -> int:
        """Return how many tokens go through the model, padding included."""

    def enable_gradient_checkpointing(self) -> bool:
        """Compute activations again in the backward pass. Return False if that changes nothing."""

    def fsdp_units(self) -> list[nn.Module]:
        """Return what FSDP gathers at a time: each block, then the rest."""


class PaddedTokenLosses:
    """The losses of one padded micro-batch (see TokenLosses)."""

    def __init__(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        self.logits, self.targets = logits, targets

    def sum(self) -> torch.Tensor:
        """Return the sum of all losses, a scalar."""
        losses = F.cross_entropy(
            self.logits.float().flatten(0, 1),
            self.targets.flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )
        return losses

    def by_row(self) -> list[torch.Tensor]:
        """Return each sequence's losses, [its loss tokens], in the order of `flatten_rows`."""
        losses = F.cross_entropy(
            self.logits.float().flatten(0, 1),
            self.targets.flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="none",
        ).view(self.targets.shape)
        has_loss = self.targets != IGNORE_INDEX
        return [row[mask] for row, mask in zip(losses, has_loss, strict=True)]

    def map_sum(
        self,
        function: TokenFunction,
        constants: Sequence[torch.Tensor],
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Return the sum of `function` over all loss tokens, a scalar."""
        scaled = PaddedTokenLosses(self.logits / temperature, self.targets)
        losses = torch.cat(scaled.by_row())
        return function(losses, torch.cat(list(constants)).to(losses.device)).sum()


class OwnForwardLoss(ABC):
    """The loss through the model's own forward pass, whatever form the rows have in it."""

    def __init__(
        self,
        loaded: LoadedModel,
        objective: Objective,
        dtype: torch.dtype,
        device: torch.device,
        *,
        reason: str,
    ) -> None:
        self.loaded, self.objective, self.dtype, self.device = loaded, objective, dtype, device
        self.reason = reason

    @abstractmethod
    def forward(self, rows: Sequence[Example]) -> TokenLosses:
        """Return the losses of sequences."""

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the objective's loss summed over `examples`, a scalar."""
        return self.reduce(examples, lambda losses: self.objective.loss(examples, losses))

    def reduce(
        self, examples: Sequence[Example], function: Callable[[TokenLosses], torch.Tensor]
    ) -> torch.Tensor:
        """Return what `function` makes of the losses of `examples` in place of the objective."""
        with autocast(self.dtype, self.device):
            return function(self.forward(flatten_rows(examples)))

    def enable_gradient_checkpointing(self) -> bool:
        """Return False: the model's own forward pass is left as it is."""
        return False

    def fsdp_units(self) -> list[nn.Module]:
        """Return what FSDP gathers at a time: each block, then the rest. Raise TrainerError."""
        model = self.loaded.model
        # transformers' own list of a model's block classes, which device_map uses as well.
        block_classes = set(model._no_split_modules or ())
        blocks = [module for module in model.modules() if type(module).__name__ in block_classes]
        if not blocks:
            raise TrainerError(
                f"{type(model).__name__} does not name its blocks, so it can't be sharded.",
                fix="set local.fsdp: false.",
            )
        return [*blocks, model]


class PaddedLoss(OwnForwardLoss):
    """The loss on padded rows."""

    name = "padded"
    count_tokens = staticmethod(count_padded_tokens)

    def forward(self, rows: Sequence[Example]) -> TokenLosses:
        """Return the losses of sequences, padded to the longest."""
        return forward_padded(self.loaded.model, collate(rows, self.loaded.pad_id, self.device))


class PaddingFreeLoss(OwnForwardLoss):
    """The loss on rows that follow one another without padding. Only for a family right so."""

    name = "padding-free"
    count_tokens = staticmethod(count_line_tokens)

    def forward(self, rows: Sequence[Example]) -> TokenLosses:
        """Return the losses of sequences."""
        lines = pack_lines(rows, self.loaded.pad_id, self.device)
        return forward_lines(self.loaded.model, lines)


class RowByRowLoss(OwnForwardLoss):
    """The loss on one row at a time."""

    name = "row-by-row"

    @staticmethod
    def count_tokens(examples: Sequence[Example]) -> int:
        """Return the tokens of all rows: none is padding."""
        return sum(len(example.ids) for example in examples)

    def forward(self, rows: Sequence[Example]) -> TokenLosses:
        """Return the losses of sequences."""
        return forward_row_by_row(self.loaded.model, rows, self.device)


OWN_FORWARD = {kind.name: kind for kind in (PaddingFreeLoss, PaddedLoss, RowByRowLoss)}


def forward_padded(model: nn.Module, batch: dict[str, torch.Tensor]) -> PaddedTokenLosses:
    """Return the losses of a collated batch.

    They equal those under the model's full logits: only positions from which no row predicts a loss
    token are left out (`logits_to_keep`).
    """
    kept = batch["kept"]
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=kept
    ).logits
    if logits.shape[1] != len(kept):  # a family that ignores logits_to_keep
        logits = logits[:, kept]
    return PaddedTokenLosses(logits, batch["labels"][:, 1:][:, kept])


def summed_cross_entropy(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the summed negative log-likelihood of a batch's loss tokens in nats, a scalar."""
    return forward_padded(model, batch).sum()


@dataclass(frozen=True)
class PathChoice:
    """The path that a model takes, by its name, and why."""

    name: str
    reason: str

    @property
    def is_packed(self) -> bool:
        """Return whether it is the packed path, not the model's own forward pass."""
        return self.name == PackedLoss.name


def choose_path(loaded: LoadedModel, packed: bool | str) -> PathChoice:
    """Return the path for `local.packed`; `auto` is the packed one if it supports the model.

    Raise TrainerError for `true` and a model that the packed path does not support.
    """
    rows = family_support.choose_rows(loaded.model)
    if packed is False:
        if rows.name != RowByRowLoss.name:
            return PathChoice(PaddedLoss.name, "local.packed is false")
        return PathChoice(rows.name, f"local.packed is false; {rows.reason}")
    problem = unsupported_reason(loaded.model)
    if problem is None:
        family = loaded.model.config.model_type
        return PathChoice(PackedLoss.name, f"the packed path supports this {family} model")
    if packed is True:
        raise TrainerError(
            f"local.packed is true, and the packed path can't train this model: {problem}.",
            fix="set local.packed: auto, which trains it by its own forward pass.",
        )
    return PathChoice(
        rows.name, f"the packed path can't train this model: {problem}; {rows.reason}"
    )


def make_loss(
    loaded: LoadedModel,
    objective: Objective,
    packed: bool | str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    sharded: bool = False,
) -> LossFunction:
    """Return the loss on the path that `local.packed` selects.

    `sharded`: the model's weights will be sharded after this call. Raise TrainerError as
    `choose_path` does.
    """
    choice = choose_path(loaded, packed)
    if choice.is_packed:
        return PackedLoss(
            loaded.model, objective, dtype, device, reason=choice.reason, sharded=sharded
        )
    return OWN_FORWARD[choice.name](loaded, objective, dtype, device, reason=choice.reason)
