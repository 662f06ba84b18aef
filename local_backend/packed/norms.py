"""Norms by the root mean square: of the residual stream with what is added, of queries and keys."""

from __future__ import annotations

from typing import Protocol

import torch

from local_backend.packed.autograd import Context, run_function
from local_backend.packed.kernels import NormSettings, kernels_for


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight, in `dtype`; x is float32 [tokens, width]. The weight may be trained."""

    @staticmethod
    def forward(
        ctx: Context, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> torch.Tensor:
        """Save x and each row's 1 / rms."""
        settings = NormSettings(eps, dtype)
        _, normalized, inverse_rms = _add_and_normalize(x, None, 1.0, weight, settings)
        # Plain PyTorch would also save the normalized x; computing it again is elementwise.
        ctx.save_for_backward(x, weight, inverse_rms)
        return normalized

    @staticmethod
    def backward(
        ctx: Context, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        """Return the gradients of x and, if needed, of the weight."""
        x, weight, inverse_rms = ctx.saved_tensors
        saved = (x, weight, inverse_rms)
        grad_weight = _grad_norm_weight(saved, grad_output) if ctx.needs_input_grad[1] else None
        grad_x, _ = _add_and_normalize_backward(saved, grad_output, None, None)
        return grad_x, grad_weight, None, None


class AddContext(Context, Protocol):
    """What AddRmsNorm keeps besides tensors: the factor of what is added, None if nothing is."""

    alpha: float | None


class AddRmsNorm(torch.autograd.Function):
    """Return x + alpha * delta, and that normalized by RmsNorm: where a layer joins the residuals.

    `x` is float32 [tokens, width], `delta` in the format of the result; None adds nothing. In one
    function, because the gradients of both results add up in the pass that computes one of them.
    """

    @staticmethod
    def forward(
        ctx: AddContext,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        alpha: float,
        weight: torch.Tensor,
        settings: NormSettings,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Save the sum and each row's 1 / rms."""
        total, normalized, inverse_rms = _add_and_normalize(x, delta, alpha, weight, settings)
        ctx.alpha = None if delta is None else alpha
        ctx.save_for_backward(total, weight, inverse_rms)
        return total, normalized

    @staticmethod
    def backward(
        ctx: AddContext, grad_total: torch.Tensor, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x and delta and, if needed, of the weight."""
        total, weight, inverse_rms = ctx.saved_tensors
        saved = (total, weight, inverse_rms)
        grad_weight = _grad_norm_weight(saved, grad_output) if ctx.needs_input_grad[3] else None
        grad_x, grad_delta = _add_and_normalize_backward(saved, grad_output, grad_total, ctx.alpha)
        return grad_x, grad_delta, None, grad_weight, None


SavedNorm = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""What was normalized, the norm's weight, and each row's 1 / rms."""


def add_rms_norm(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    alpha: float,
    weight: torch.Tensor,
    settings: NormSettings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both results of AddRmsNorm, whose `apply` PyTorch leaves untyped."""
    total, normalized = run_function(AddRmsNorm, x, delta, alpha, weight, settings)
    return total, normalized


def _add_and_normalize(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    alpha: float,
    weight: torch.Tensor,
    settings: NormSettings,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x + alpha * delta, that normalized, and each row's 1 / rms."""
    kernels = kernels_for(x, settings.dtype)
    if kernels is not None and (delta is None or delta.dtype == settings.dtype):
        return kernels.add_norm(x, delta, alpha, weight, settings)
    if delta is not None:
        x = torch.add(x, delta, alpha=alpha)
    inverse_rms = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(settings.eps))
    normalized = (x * inverse_rms).mul_(weight.float()).to(settings.dtype)
    return x, normalized, inverse_rms


def _add_and_normalize_backward(
    saved: SavedNorm,
    grad_output: torch.Tensor,
    grad_total: torch.Tensor | None,
    alpha: float | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the gradients of x and of delta, whose factor is `alpha`; None without delta."""
    kernels = kernels_for(grad_output)
    if kernels is not None:
        return kernels.add_norm_backward(saved, grad_output, grad_total, alpha)
    x, weight, inverse_rms = saved
    # With n = x / rms(x) and g = grad_output * weight, the chain rule through the norm gives
    # (g - n * mean(g * n)) / rms(x). In place, because g and n are temporaries of this size.
    normalized = x * inverse_rms
    grad_normalized = grad_output.float() * weight.float()
    mean = (grad_normalized * normalized).mean(-1, keepdim=True)
    grad_x = grad_normalized.sub_(normalized.mul_(mean)).mul_(inverse_rms)
    if grad_total is not None:
        grad_x += grad_total
    grad_delta = None if alpha is None else (grad_x * alpha).to(grad_output.dtype)
    return grad_x, grad_delta


def _grad_norm_weight(saved: SavedNorm, grad_output: torch.Tensor) -> torch.Tensor:
    x, weight, inverse_rms = saved
    return (grad_output.float() * (x * inverse_rms)).sum(0).to(weight.dtype)


class QueryKeyNormContext(Context, Protocol):
    """What QueryKeyNorm keeps besides tensors."""

    parts: tuple[tuple[int, int], ...]


class QueryKeyNorm(torch.autograd.Function):
    """Normalize the queries and the keys in `qkv` [tokens, width] by their root mean square.

    `parts` are the (width, norms) of queries and of keys: that many norms over equal parts of the
    width, all with one weight. What follows (the values) is copied.
    """

    @staticmethod
    def forward(  # what autograd has to see is an argument
        ctx: QueryKeyNormContext,
        qkv: torch.Tensor,
        query_weight: torch.Tensor,
        key_weight: torch.Tensor,
        eps: float,
        parts: tuple[tuple[int, int], ...],
    ) -> torch.Tensor:
        """Save the input and each vector's 1 / rms."""
        normalized, saved, at = qkv.clone(), [], 0
        for weight, (width, norms) in zip((query_weight, key_weight), parts, strict=True):
            vectors = qkv[:, at : at + width].float().unflatten(1, (norms, -1))
            inverse_rms = torch.rsqrt(vectors.square().mean(-1, keepdim=True).add_(eps))
            vectors = (vectors * inverse_rms).mul_(weight.float())
            normalized[:, at : at + width] = vectors.flatten(1)
            saved.append(inverse_rms)
            at += width
        ctx.save_for_backward(qkv, query_weight, key_weight, *saved)
        ctx.parts = parts
        return normalized

    @staticmethod
    def backward(
        ctx: QueryKeyNormContext, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of `qkv` and, if needed, of the weights."""
        saved = ctx.saved_tensors  # once: under checkpointing each one can be read a single time
        qkv, *weights = saved[:3]
        grad_qkv, grad_weights, at = grad_output.clone(), [], 0
        for number, (weight, inverse_rms) in enumerate(zip(weights, saved[3:], strict=True)):
            width, norms = ctx.parts[number]
            here = slice(at, at + width)
            normalized = qkv[:, here].float().unflatten(1, (norms, -1)) * inverse_rms
            grad = grad_output[:, here].float().unflatten(1, (norms, -1))
            needs_grad = ctx.needs_input_grad[1 + number]
            # As in RmsNorm, which has the formula.
            grad_weights.append(
                (grad * normalized).sum((0, 1)).to(weight.dtype) if needs_grad else None
            )
            grad = grad * weight.float()
            mean = (grad * normalized).mean(-1, keepdim=True)
            grad = grad.sub_(normalized.mul_(mean)).mul_(inverse_rms)
            grad_qkv[:, here] = grad.flatten(1)
            at += width
        return grad_qkv, *grad_weights, None, None
