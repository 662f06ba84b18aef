"""The cross-entropy of loss tokens from hidden states, without the logits of all rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from local_backend.models.token_losses import TokenFunction
from local_backend.packed.autograd import Context
from local_backend.packed.kernels import kernels_for

LOGIT_CHUNK_ROWS = 256
"""Positions whose logits over the vocabulary exist at the same time."""


@dataclass(frozen=True)
class LogitCap:
    """What a model does to its logits: softcap x tanh(logit / softcap), over a temperature."""

    softcap: float
    temperature: float = 1.0


class ChunkedTokenSum(torch.autograd.Function):
    """Summed cross-entropy of `targets` under the logits hidden @ weight.T, some rows at a time.

    With `function`, the sum of what it makes of each token's cross-entropy and constants. The
    logits of all rows never exist at once: [loss tokens, vocabulary] in float32 would be the
    largest tensor of a step. The gradient is computed in the forward pass, while a chunk's logits
    exist. This is possible because the slope of a sum at a token needs that token alone, so that
    `backward` only scales the result.
    """

    @staticmethod
    def forward(  # noqa: PLR0913  # what autograd has to see is an argument
        ctx: Context,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        needs_grad: bool,
        cap: LogitCap | None,
        function: TokenFunction | None = None,
        constants: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the sum, a float32 scalar (without `function` in nats).

        `hidden` is [loss tokens, width], `constants` [loss tokens, constants].
        """
        cast_weight = weight.to(hidden.dtype)
        # Summed in float64: thousands of terms of the same sign would lose digits in float32.
        total = torch.zeros((), device=hidden.device, dtype=torch.float64)
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight) if needs_grad and weight.requires_grad else None
        for at in range(0, len(hidden), LOGIT_CHUNK_ROWS):
            rows = slice(at, at + LOGIT_CHUNK_ROWS)
            losses, grad_logits = _token_losses(
                hidden[rows], cast_weight, targets[rows], cap, needs_grad=grad_hidden is not None
            )
            slopes = None
            if function is not None:
                assert constants is not None
                losses, slopes = _apply_function(
                    function, losses, constants[rows], needs_slope=needs_grad
                )
            total += losses.sum()
            if grad_hidden is None or grad_logits is None:
                continue
            if slopes is not None:
                grad_logits *= slopes[:, None].to(grad_logits.dtype)
            grad_hidden[rows] = grad_logits @ cast_weight
            if grad_weight is not None:
                grad_weight += grad_logits.T @ hidden[rows]
        ctx.save_for_backward(*(grad for grad in (grad_hidden, grad_weight) if grad is not None))
        return total.float()

    @staticmethod
    def backward(ctx: Context, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of `hidden` and, where it is trained, of the weight."""
        grad_hidden, *rest = ctx.saved_tensors
        grad_weight = rest[0] * grad_output if rest else None
        return grad_hidden * grad_output, grad_weight, None, None, None, None, None


def _apply_function(
    function: TokenFunction,
    losses: torch.Tensor,
    constants: torch.Tensor,
    *,
    needs_slope: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the function of each token's loss and, if needed, its derivative by it."""
    if not needs_slope:
        return function(losses, constants), None
    with torch.enable_grad():
        leaf = losses.detach().requires_grad_()
        values = function(leaf, constants)
        [slopes] = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), slopes


class CapContext(Context, Protocol):
    """What ChunkedTokenLosses keeps besides tensors."""

    cap: LogitCap | None


class ChunkedTokenLosses(torch.autograd.Function):
    """Cross-entropy of each target, [loss tokens] in nats, for objectives that weight tokens.

    A token's gradient is not known before `backward`, so its logits are computed again there: the
    output layer costs a third more than with ChunkedTokenSum.
    """

    @staticmethod
    def forward(
        ctx: CapContext,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        cap: LogitCap | None,
    ) -> torch.Tensor:
        """Save the inputs. `hidden` is [loss tokens, width]."""
        ctx.save_for_backward(hidden, weight, targets)
        ctx.cap = cap
        cast_weight = weight.to(hidden.dtype)
        losses = [
            _token_losses(part, cast_weight, target, cap, needs_grad=False)[0]
            for part, target in zip(
                hidden.split(LOGIT_CHUNK_ROWS), targets.split(LOGIT_CHUNK_ROWS), strict=True
            )
        ]
        return torch.cat(losses)

    @staticmethod
    def backward(
        ctx: CapContext, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        """Return the gradients of `hidden` and, where it is trained, of the weight."""
        hidden, weight, targets = ctx.saved_tensors
        cast_weight = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for at in range(0, len(hidden), LOGIT_CHUNK_ROWS):
            rows = slice(at, at + LOGIT_CHUNK_ROWS)
            _, grad_logits = _token_losses(
                hidden[rows], cast_weight, targets[rows], ctx.cap, needs_grad=True
            )
            assert grad_logits is not None
            grad_logits = grad_logits * grad_output[rows, None].to(hidden.dtype)
            grad_hidden[rows] = grad_logits @ cast_weight
            if grad_weight is not None:
                grad_weight += grad_logits.T @ hidden[rows]
        return grad_hidden, grad_weight, None, None


def _token_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    cap: LogitCap | None,
    *,
    needs_grad: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return each token's loss, and its gradient with respect to the logits if needed.

    The gradient of the cross-entropy is softmax(logits) - one_hot(target), in `hidden`'s format.
    """
    logits, capped = hidden @ weight.T, None
    kernels = kernels_for(logits)
    if kernels is not None and cap is None:
        losses = kernels.cross_entropy_(logits, targets, needs_grad=needs_grad)
        return losses, logits if needs_grad else None
    logits, targets = logits.float(), targets[:, None]
    if cap is not None:
        capped = logits.div_(cap.softcap).tanh_()
        logits = capped * (cap.softcap / cap.temperature)
    log_sum = logits.logsumexp(-1, keepdim=True)
    losses = (log_sum - logits.gather(1, targets))[:, 0]
    if not needs_grad:
        return losses, None
    # In place: the logits are the largest tensor here, and are not needed any more.
    grad_logits = logits.sub_(log_sum).exp_()
    grad_logits.scatter_add_(1, targets, torch.full_like(log_sum, -1.0))
    if cap is not None and capped is not None:  # the derivative of tanh
        grad_logits.mul_(capped.square_().neg_().add_(1).div_(cap.temperature))
    return losses, grad_logits.to(hidden.dtype)
