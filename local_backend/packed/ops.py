"""Autograd functions of the packed path. Each replaces a few lines of PyTorch and uses less memory.

Every one has its gradient written out, and tests compare it with the plain lines. Matrix products
are in the inputs' format; sums and norms are in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from local_backend.models.token_losses import TokenFunction
from local_backend.packed.kernels import NormSettings, kernels_for

LOGIT_CHUNK_ROWS = 256
"""Positions whose logits over the vocabulary exist at the same time."""


class Context(Protocol):
    """The part of autograd's `ctx` that the functions here use (torch.autograd.function)."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        """Keep tensors for `backward`, where autograd checks that nobody changed them."""


def run_function(function: type[torch.autograd.Function], *inputs: object) -> torch.Tensor:
    """Return the result of an autograd function, whose `apply` PyTorch leaves untyped."""
    output: torch.Tensor = function.apply(*inputs)
    return output


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
    results: tuple[torch.Tensor, torch.Tensor] = AddRmsNorm.apply(  # type: ignore[no-untyped-call]
        x, delta, alpha, weight, settings
    )
    return results


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


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up, of [tokens, 2 x width] that holds both. `columns` as in NormSettings."""

    @staticmethod
    def forward(ctx: Context, gate_up: torch.Tensor, columns: int = 0) -> torch.Tensor:
        """Save the input."""
        # Plain PyTorch would also save silu(gate); recomputing it in backward is elementwise.
        ctx.save_for_backward(gate_up)
        kernels = kernels_for(gate_up)
        if kernels is not None:
            return kernels.swiglu(gate_up, columns)
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Context, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of both halves."""
        [gate_up] = ctx.saved_tensors
        kernels = kernels_for(gate_up)
        if kernels is not None:
            return kernels.swiglu_backward(gate_up, grad_output), None
        gate, up = gate_up.chunk(2, -1)
        # Both halves are written into one tensor, because the layer below expects one: two
        # gradients would have to be concatenated, which is one more copy.
        grad_input = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_input.chunk(2, -1)
        torch.mul(F.silu(gate), grad_output, out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad_output * up, gate))
        return grad_input, None


class GatedContext(Context, Protocol):
    """What GatedGelu keeps besides tensors."""

    approximate: str


class GatedGelu(torch.autograd.Function):
    """gelu(gate) * up, of [tokens, 2 x width] that holds both; `approximate` is none or tanh."""

    @staticmethod
    def forward(ctx: GatedContext, gate_up: torch.Tensor, approximate: str) -> torch.Tensor:
        """Save the input."""
        ctx.save_for_backward(gate_up)
        ctx.approximate = approximate
        gate, up = gate_up.chunk(2, -1)
        return F.gelu(gate, approximate=approximate).mul_(up)

    @staticmethod
    def backward(ctx: GatedContext, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of both halves, in one tensor as SwiGlu does."""
        [gate_up] = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        grad_input = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_input.chunk(2, -1)
        torch.mul(F.gelu(gate, approximate=ctx.approximate), grad_output, out=grad_up)
        grad_gate.copy_(
            torch.ops.aten.gelu_backward(grad_output * up, gate, approximate=ctx.approximate)
        )
        return grad_input, None


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


class LinearContext(Context, Protocol):
    """What FusedLinear keeps besides tensors: each part's height and format."""

    parts: list[tuple[int, torch.dtype]]


class FusedLinear(torch.autograd.Function):
    """Several trained linear layers of one input as one product: [tokens, in] -> [tokens, out].

    `weight` [out, in] holds the `parts` one below the other, in the input's format.
    """

    @staticmethod
    def forward(
        ctx: LinearContext,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """Save the input."""
        ctx.save_for_backward(x, weight)
        # The parts are arguments only so that autograd requests their gradients: the product uses
        # `weight`, their copy in the format of the computation.
        ctx.parts = [(len(part), part.dtype) for part in parts]
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: LinearContext, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the input, the bias and the parts, where needed."""
        x, weight = ctx.saved_tensors
        grad_x = grad_output @ weight if ctx.needs_input_grad[0] else None
        grad_bias = grad_output.sum(0) if ctx.needs_input_grad[2] else None
        if not any(ctx.needs_input_grad[3:]):
            return grad_x, None, grad_bias, *(None for _ in ctx.parts)
        grad_weight = (grad_output.T @ x).split([height for height, _ in ctx.parts])
        grad_parts = [
            grad.to(dtype) for grad, (_, dtype) in zip(grad_weight, ctx.parts, strict=True)
        ]
        return grad_x, None, grad_bias, *grad_parts


class LoraContext(Context, Protocol):
    """What FusedLoraLinear keeps besides tensors."""

    scale: float
    has_dropout: bool
    sizes: list[tuple[int, int]]
    """For each layer: the rank of its A and the number of rows of its B."""


class FusedLoraLinear(torch.autograd.Function):
    """Several frozen linear layers of one input with their LoRA updates.

    `weight` [out, in + ranks] has the layers' weights one below the other and beside each its B, so
    that W x + B (s A x) is one product and is rounded once. In bfloat16 that matters: an update
    that is small beside W x is lost if it is added to an already rounded result. `parts` are the A
    and B, alternating; `scale` is s; `dropped` is the input of the A: x itself without dropout.
    """

    @staticmethod
    def forward(
        ctx: LoraContext,
        x: torch.Tensor,
        dropped: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """Save the input with the outputs of the A beside it."""
        ctx.scale, ctx.has_dropout = scale, dropped is not x
        ctx.sizes = [(len(a), len(b)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        # s is applied to A in float32, before the rounding to the format of the product.
        down = torch.cat(parts[::2]).mul_(scale).to(x.dtype)
        wide = _put_beside(x, F.linear(dropped, down))
        # `wide` begins with x, so x need not be saved; with dropout the A saw another input.
        ctx.save_for_backward(wide, dropped if ctx.has_dropout else wide, weight, down)
        return F.linear(wide, weight, bias)

    @staticmethod
    def backward(ctx: LoraContext, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the input, and of every A and B."""
        wide, dropped, weight, down = ctx.saved_tensors
        width, needs_grad_x = down.shape[1], ctx.needs_input_grad[0]
        # The first block's input needs no gradient (embeddings are frozen). Then only the columns
        # of the B are multiplied: `grad_hidden` is the gradient of s A x, [tokens, ranks].
        grad_wide = grad_output @ (weight if needs_grad_x else weight[:, width:])
        grad_hidden = grad_wide[:, width:] if needs_grad_x else grad_wide
        grad_a = (grad_hidden.T @ dropped[:, :width]).float().mul_(ctx.scale)
        grad_parts: list[torch.Tensor] = []
        column, row = width, 0
        for grad_one, (rank, height) in zip(
            grad_a.split([rank for rank, _ in ctx.sizes]), ctx.sizes, strict=True
        ):
            grad_b = grad_output[:, row : row + height].T @ wide[:, column : column + rank]
            grad_parts += [grad_one, grad_b.float()]
            column, row = column + rank, row + height
        grad_x = grad_wide[:, :width] if needs_grad_x else None
        grad_dropped = None
        if ctx.has_dropout:
            grad_dropped = grad_hidden @ down
        elif grad_x is not None:  # x and `dropped` are one tensor: its gradients add up here
            grad_x = grad_x.addmm(grad_hidden, down)
        return grad_x, grad_dropped, None, None, None, *grad_parts


def _put_beside(x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return [x, columns]: in the memory of `x` if that was allocated for both, else a copy."""
    rows, width = len(x), x.shape[1] + columns.shape[1]
    if (
        x.stride() != (width, 1)
        or x.storage_offset()
        or x.untyped_storage().nbytes() != (rows * width * x.element_size())
    ):
        return torch.cat([x, columns], 1)
    wide = x.as_strided((rows, width), (width, 1))
    wide[:, x.shape[1] :] = columns
    return wide


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
