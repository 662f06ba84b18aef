"""Rows one after another through a model's own forward pass, without padding between them.

Each row's positions begin at 0, and transformers lets no token attend across such a beginning: if a
family does so, if there is no cache, and if there is no attention mask at all
(models/family_support.py has the families). The field calls this padding-free.

All rows in one line would make attention compute a square of all tokens. So there are as many
lines as the longest row allows, and each is filled with short rows: no more tokens than padded rows
have, and no larger squares.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from local_backend.data.examples import Example, flatten_rows
from local_backend.models.token_losses import TokenFunction

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PackedLines:
    """Rows in lines of equal length.

    `ids` and `positions` [lines, longest]; what is left of a line is filled with padding, of which
    each token is a row of its own. `logit_positions` [loss tokens] are the positions, counted
    through all lines, that predict `targets` [loss tokens]; `loss_counts` has the number of targets
    of each row.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    logit_positions: torch.Tensor
    targets: torch.Tensor
    loss_counts: tuple[int, ...]


class FlatTokenLosses:
    """The losses of a micro-batch whose logits are those of its loss tokens (see TokenLosses)."""

    def __init__(
        self, logits: torch.Tensor, targets: torch.Tensor, loss_counts: Sequence[int]
    ) -> None:
        self.logits, self.targets, self.loss_counts = logits, targets, loss_counts

    def sum(self) -> torch.Tensor:
        """Return the sum of all losses, a scalar."""
        return F.cross_entropy(self.logits.float(), self.targets, reduction="sum")

    def by_row(self) -> list[torch.Tensor]:
        """Return each sequence's losses, [its loss tokens], in the order of `flatten_rows`."""
        losses = F.cross_entropy(self.logits.float(), self.targets, reduction="none")
        return list(losses.split(list(self.loss_counts)))

    def map_sum(
        self,
        function: TokenFunction,
        constants: Sequence[torch.Tensor],
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Return the sum of `function` over all loss tokens, a scalar."""
        losses = F.cross_entropy(self.logits.float() / temperature, self.targets, reduction="none")
        return function(losses, torch.cat(list(constants)).to(losses.device)).sum()


def fill_lines(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return for each row its line and its first column, in lines as long as the longest row.

    A row is put into the fullest line that has room for it, the longest row first.
    """
    capacity, lines = max(lengths), 0
    places = [(0, 0)] * len(lengths)
    rooms: list[tuple[int, int]] = []  # of each line: what is left and its number, in order
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect.bisect_left(rooms, (lengths[row], -1))
        if at < len(rooms):
            room, line = rooms.pop(at)
        else:
            room, line, lines = capacity, lines, lines + 1
        places[row] = (line, capacity - room)
        bisect.insort(rooms, (room - lengths[row], line))
    return places


def count_line_tokens(examples: Sequence[Example]) -> int:
    """Return how many tokens go through the model, what is left of the lines included."""
    lengths = [len(row.ids) for row in flatten_rows(examples)]
    return max(lengths) * (1 + max(line for line, _ in fill_lines(lengths)))


def pack_lines(rows: Sequence[Example], pad_id: int, device: torch.device) -> PackedLines:
    """Return `rows` in lines on `device`."""
    lengths = [len(row.ids) for row in rows]
    places, width = fill_lines(lengths), max(lengths)
    ids = np.full((1 + max(line for line, _ in places), width), pad_id, dtype=np.int64)
    positions = np.zeros_like(ids)
    logit_positions = []
    for row, (line, start) in zip(rows, places, strict=True):
        end = start + len(row.ids)
        ids[line, start:end] = row.ids
        positions[line, start:end] = np.arange(len(row.ids))
        # Token i of a row is predicted at position i - 1.
        logit_positions.append(line * width + start + np.flatnonzero(row.loss_mask) - 1)

    def to_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return PackedLines(
        to_device(ids),
        to_device(positions),
        to_device(np.concatenate(logit_positions)),
        to_device(np.concatenate([row.ids[row.loss_mask] for row in rows]).astype(np.int64)),
        tuple(len(at) for at in logit_positions),
    )


def forward_lines(model: PreTrainedModel, lines: PackedLines) -> FlatTokenLosses:
    """Return the losses of packed rows.

    Use it only for a family that is right so. The output layer sees the loss tokens alone: with
    `logits_to_keep` it would compute the same columns of every line.
    """
    wanted, is_selected = lines.logit_positions, False

    def select(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        nonlocal is_selected
        is_selected = True
        return (args[0].flatten(0, 1)[wanted][None], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        output = model(input_ids=lines.ids, position_ids=lines.positions, use_cache=False)
    finally:
        hook.remove()
    # A family may compute its logits past its output layer.
    logits = output.logits[0] if is_selected else output.logits.flatten(0, 1)[wanted]
    return FlatTokenLosses(logits, lines.targets, lines.loss_counts)


def forward_row_by_row(
    model: PreTrainedModel, rows: Sequence[Example], device: torch.device
) -> FlatTokenLosses:
    """Return the losses of rows that go through the model one at a time, without a mask."""
    logits, targets = [], []
    for row in rows:
        at = torch.from_numpy(np.flatnonzero(row.loss_mask)).to(device)
        ids = torch.from_numpy(row.ids.astype(np.int64)).to(device)
        logits.append(model(input_ids=ids[None]).logits[0][at - 1])
        targets.append(ids[at])
    counts = [len(part) for part in targets]
    return FlatTokenLosses(torch.cat(logits), torch.cat(targets), counts)
