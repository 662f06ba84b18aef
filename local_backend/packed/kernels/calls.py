"""The compiled kernels as functions of tensors. Each says which lines of PyTorch it replaces."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch

from local_backend.packed.kernels.compile import KernelError, load_library

SUFFIXES = {torch.bfloat16: "_bf16", torch.float32: "_f32"}
"""The end of a kernel's name, by the format of the matrix products."""
POINTER, FLOAT, SIZE, FLAG = ctypes.c_void_p, ctypes.c_float, ctypes.c_int64, ctypes.c_int
_P, _F, _S, _I = POINTER, FLOAT, SIZE, FLAG
SIGNATURES: dict[str, tuple[object, ...]] = {
    "add_norm": (_P, _P, _F, _P, _F, _P, _P, _P, _S, _S, _S, _I),
    "add_norm_backward": (_P, _P, _P, _P, _P, _F, _P, _P, _S, _S, _I),
    "swiglu": (_P, _P, _S, _S, _S, _I),
    "swiglu_backward": (_P, _P, _P, _S, _S, _I),
    "rotate": (_P, _P, _P, _P, _F, _P, _S, _S, _S, _S, _S, _I, _I),
    "softmax": (_P, _P, _F, _S, _S, _S, _I),
    "softmax_backward": (_P, _P, _F, _S, _S, _I),
    "cross_entropy": (_P, _P, _P, _S, _S, _I, _I),
}
"""Types of the arguments, as in kernels.cpp."""


@dataclass(frozen=True)
class Rotation:
    """Which vectors `rotate` turns: the first `rotated` of a token's `vectors`."""

    cos: torch.Tensor
    sin: torch.Tensor
    vectors: int
    rotated: int


@dataclass(frozen=True)
class NormSettings:
    """How a norm by the root mean square computes, and in which format the result is.

    `columns`: how many FusedLoraLinear will put beside each row of it. Kernels allocate both at
    once, which saves a copy.
    """

    eps: float
    dtype: torch.dtype
    columns: int = 0


class Kernels:
    """The kernels of a compiled library. Tensors are on the CPU, and contiguous."""

    def __init__(self, folder: Path) -> None:
        """Load the library in `folder`. Raise KernelError."""
        library = load_library(folder)
        self._functions = {}
        for name, types in SIGNATURES.items():
            for dtype, suffix in SUFFIXES.items():
                try:
                    function = getattr(library, name + suffix)
                except AttributeError as error:
                    raise KernelError(f"the compiled library has no {name + suffix}") from error
                function.argtypes, function.restype = types, None
                self._functions[name, dtype] = function

    def _run(self, name: str, dtype: torch.dtype, *arguments: object) -> None:
        passed = [_pointer(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        self._functions[name, dtype](*passed, torch.get_num_threads())

    def add_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        alpha: float,
        weight: torch.Tensor,
        settings: NormSettings,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return x + alpha * delta (x itself without delta), that normalized, and each 1 / rms."""
        x, delta = x.contiguous(), None if delta is None else delta.contiguous()
        rows, width = x.shape
        total = x if delta is None else torch.empty_like(x)
        inverse_rms = x.new_empty(rows, 1)
        stride = width + settings.columns
        out = torch.empty(rows, stride, dtype=settings.dtype)
        self._run(
            *("add_norm", settings.dtype, x, delta, alpha, weight.float(), settings.eps),
            *(total, inverse_rms, out, rows, width, stride),
        )
        return total, out[:, :width], inverse_rms

    def add_norm_backward(
        self,
        saved: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        grad: torch.Tensor,
        grad_total: torch.Tensor | None,
        alpha: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the gradients of x and of delta (None without `alpha`, the factor of delta).

        `saved` has the sum, the weight and 1 / rms.
        """
        x, weight, inverse_rms = saved
        grad_x, grad = torch.empty_like(x), grad.contiguous()
        grad_delta = None if alpha is None else torch.empty_like(grad)
        grad_total = None if grad_total is None else grad_total.contiguous()
        self._run(
            *("add_norm_backward", grad.dtype, x, weight.float(), inverse_rms, grad),
            *(grad_total, alpha or 0.0, grad_x, grad_delta, *x.shape),
        )
        return grad_x, grad_delta

    def swiglu(self, gate_up: torch.Tensor, columns: int = 0) -> torch.Tensor:
        """Return silu(gate) * up, with memory for `columns` more after each row."""
        gate_up = gate_up.contiguous()
        rows, width = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, width + columns)
        self._run("swiglu", gate_up.dtype, gate_up, out, rows, width, width + columns)
        return out[:, :width]

    def swiglu_backward(self, gate_up: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Return the gradient of both halves of `gate_up`."""
        gate_up, grad = gate_up.contiguous(), grad.contiguous()
        out = torch.empty_like(gate_up)
        self._run("swiglu_backward", grad.dtype, gate_up, grad, out, *grad.shape)
        return out

    def rotate(
        self,
        x: torch.Tensor,
        order: torch.Tensor | None,
        rotation: Rotation,
        *,
        backward: bool = False,
    ) -> torch.Tensor:
        """Return the vectors x[order], each rotated by the position of its token.

        `x` is [all vectors, size]. Backward they are rotated back by the position of the token
        that each belongs to in the result.
        """
        count, size = len(x if order is None else order), x.shape[1]
        out = x.new_empty(count, size)
        self._run(
            *("rotate", x.dtype, x, order, rotation.cos, rotation.sin, -1.0 if backward else 1.0),
            *(out, count, rotation.vectors, rotation.rotated, size, rotation.cos.shape[-1]),
            int(backward),
        )
        return out

    def softmax_(self, scores: torch.Tensor, bias: torch.Tensor, scale: float) -> torch.Tensor:
        """Return softmax(scale * scores + bias), in place of `scores` [batch, *bias.shape]."""
        rows = scores.shape[0] * scores.shape[1]
        self._run("softmax", scores.dtype, scores, bias, scale, rows, *bias.shape)
        return scores

    def softmax_backward_(
        self, weights: torch.Tensor, grad: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Return the gradient of the scores, in place of `grad`."""
        rows = grad.shape[0] * grad.shape[1]
        # Those beside sinks are a part of a wider tensor.
        weights = weights.contiguous()
        self._run("softmax_backward", grad.dtype, weights, grad, scale, rows, grad.shape[2])
        return grad

    def cross_entropy_(
        self, logits: torch.Tensor, targets: torch.Tensor, *, needs_grad: bool
    ) -> torch.Tensor:
        """Return each row's loss. With `needs_grad`, `logits` becomes their gradient."""
        losses = torch.empty(len(logits), dtype=torch.float32)
        rows, width = logits.shape
        targets = targets.long().contiguous()
        lowest, highest = targets.aminmax()
        assert int(lowest) >= 0 and int(highest) < width, "a target has no logit"
        self._run(
            *("cross_entropy", logits.dtype, logits, targets, losses, rows, width, int(needs_grad))
        )
        return losses


def _pointer(tensor: torch.Tensor) -> int:
    assert tensor.is_contiguous(), "a kernel was passed a tensor that is not contiguous"
    return tensor.data_ptr()
