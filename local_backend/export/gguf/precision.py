"""How precisely each tensor of a GGUF file is kept.

The names are llama.cpp's. The gguf library computes the plain ones; the K-quants, whose blocks of
256 weights have scales of their own, are computed by ggml itself, where xllamacpp (extra
`llama-cpp`) is installed.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_backend.errors import TrainerError

if TYPE_CHECKING:
    import numpy as np

ROWS_AT_ONCE = 1 << 24
"""Weights that are quantized together: what bounds the memory beside the tensor itself."""


@dataclass(frozen=True)
class Quantization:
    """A kind of file, by llama.cpp's name, with the types of its tensors."""

    name: str
    most: str
    head: str
    """The type of the output matrix, which is the embedding where the two are tied."""
    finer: str | None = None
    """The type of values and of the MLP's last matrix in every third block, and at both ends."""


QUANTIZATIONS = {
    kind.name: kind
    for kind in (
        Quantization("F32", "F32", "F32"),
        Quantization("F16", "F16", "F16"),
        Quantization("BF16", "BF16", "BF16"),
        Quantization("Q8_0", "Q8_0", "Q8_0"),
        Quantization("Q6_K", "Q6_K", "Q6_K"),
        Quantization("Q5_K_M", "Q5_K", "Q6_K", "Q6_K"),
        Quantization("Q5_1", "Q5_1", "Q8_0"),
        Quantization("Q5_0", "Q5_0", "Q8_0"),
        Quantization("Q4_K_M", "Q4_K", "Q6_K", "Q6_K"),
        Quantization("Q4_1", "Q4_1", "Q8_0"),
        Quantization("Q4_0", "Q4_0", "Q8_0"),
    )
}
"""What can be written, by llama.cpp's name."""
_SHORT_ROWS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes instead where rows are no multiple of 256."""
_ALWAYS_FLOAT32 = re.compile(r"norm|ffn_gate_inp|sinks|rope_f")
"""Tensors with few weights, which decide much: norms, routers, sinks, rotary factors."""


def find_quantization(name: str) -> Quantization:
    """Return the kind of file that a user named. Raise TrainerError for an unknown one."""
    found = QUANTIZATIONS.get(name.upper())
    if found is None:
        raise TrainerError(
            f"{name!r} is no quantization that can be written.",
            fix=f"name one of {', '.join(QUANTIZATIONS).lower()}.",
        )
    if "K" in found.most and _ggml() is None:
        raise TrainerError(
            f"{name.lower()} is computed by llama.cpp itself, which is not installed here.",
            fix="pip install 'cloudft[llama-cpp]', or take q4_0, q5_1 or q8_0.",
        )
    return found


def choose_type(
    name: str, shape: tuple[int, ...], quantization: Quantization, layers: int, head: str
) -> str:
    """Return the type of one tensor. `head` is the name of the one that makes the logits."""
    if len(shape) < 2 or quantization.most == "F32" or _ALWAYS_FLOAT32.search(name):
        return "F32"
    chosen = quantization.most
    if name == head:
        chosen = quantization.head
    elif quantization.finer and _is_finer(name, layers):
        chosen = quantization.finer
    if "K" in chosen and shape[-1] % 256:
        chosen = _SHORT_ROWS[chosen]
    if chosen not in ("F16", "BF16") and shape[-1] % 32:
        chosen = "F16"
    return chosen


def _is_finer(name: str, layers: int) -> bool:
    match = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down|ffn_down_exps)\.weight", name)
    if match is None:
        return False
    block, eighth = int(match[1]), layers // 8
    return block < eighth or block >= 7 * layers // 8 or (block - eighth) % 3 == 2


def stored_size(shape: tuple[int, ...], name: str) -> int:
    """Return the bytes of a tensor of this type."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    count = 1
    for length in shape:
        count *= length
    return count // block * size


def quantize(values: np.ndarray, name: str) -> np.ndarray:
    """Return float32 values as a type stores them; the last axis is in bytes for block types."""
    import gguf
    import numpy as np

    kind = gguf.GGMLQuantizationType[name]
    if name in ("F32", "F16"):
        return np.ascontiguousarray(gguf.quants.quantize(values, kind))
    rows = values.reshape(-1, values.shape[-1])
    compute = _quantize_by_ggml if name.endswith("_K") else gguf.quants.quantize
    at_once = max(1, ROWS_AT_ONCE // rows.shape[1])
    parts = [compute(rows[at : at + at_once], kind) for at in range(0, len(rows), at_once)]
    stored: np.ndarray = np.concatenate(parts).reshape(*values.shape[:-1], -1)
    return stored


def _quantize_by_ggml(rows: np.ndarray, kind: int) -> np.ndarray:
    import gguf
    import numpy as np

    function = _ggml()
    assert function is not None  # find_quantization has checked
    rows = np.ascontiguousarray(rows, np.float32)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    stored = np.empty((rows.shape[0], rows.shape[1] // block * size), np.uint8)
    written = function(
        int(kind), rows.ctypes.data, stored.ctypes.data, 0, rows.shape[0], rows.shape[1], None
    )
    assert written == stored.nbytes
    return stored


def _ggml() -> Callable[..., int] | None:
    """Return ggml's `ggml_quantize_chunk` (ggml.h) from xllamacpp's library; None without it."""
    from importlib.util import find_spec

    spec = find_spec("xllamacpp.xllamacpp") if find_spec("xllamacpp") else None
    if spec is None or spec.origin is None:
        return None
    function = ctypes.CDLL(spec.origin).ggml_quantize_chunk
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    function.restype = ctypes.c_size_t
    chunk: Callable[..., int] = function
    return chunk
