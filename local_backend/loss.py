"""Cross-entropy of the learned tokens, computed only where there are any.

With a vocabulary of 49,152 the output layer is most of a small model's work; on records with short
answers nearly all of its rows would be thrown away.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from local_backend.batches import IGNORED


def summed_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The negative log-likelihood of the batch's learned tokens in nats, summed; a scalar.

    Equal to the sum over the model's full logits: only positions that no row of the batch learns
    from are left out (`logits_to_keep`).
    """
    targets = batch["labels"][:, 1:]
    kept = (targets != IGNORED).any(dim=0).nonzero().flatten()
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=kept
    ).logits
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        targets[:, kept].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
