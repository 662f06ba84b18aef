"""Frozen weights in 4 bits (QLoRA, Dettmers et al. 2023), by bitsandbytes, on CUDA and on a CPU.

The adapters over the weights are those of LoRA (lora.py). The packed path computes no 4-bit
weights, so on a CPU QLoRA is compared with LoRA on the path that LoRA would take: PRICE_ON_CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from local_backend.errors import TrainerError
from local_backend.models.linear_layers import linear_shape
from local_backend.packed import find_family

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST_PARAMETERS = 500_000_000
"""Below that, QLoRA on a CPU takes no less memory than LoRA on the packed path.

Measured (benchmarks/RESULTS.md): 1.07 of it at 0.32 billion parameters, 0.72 at 1.05 billion.
"""
PRICE_ON_CPU = (
    "4-bit weights on a CPU take 0.6 bytes a parameter instead of 2, and a step up to three times"
    " LoRA's time on the packed path, 1.7 times that on the padded one"
)
M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES = -3, 2**20
"""Option of glibc's mallopt: from which size a block has pages of its own; 1 MiB."""


def nf4_options(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return the `from_pretrained` options for frozen weights in 4 bits (nf4).

    Raise TrainerError on a device other than CUDA and the CPU, and without bitsandbytes.
    """
    if device.type not in ("cuda", "cpu"):
        raise TrainerError(
            f"local.method is qlora, and 4-bit weights are not computed on the device"
            f" {device.type}.",
            fix="use `method: lora`, or `device: cpu`.",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise TrainerError(
            "local.method is qlora, and bitsandbytes is not installed.",
            fix="pip install 'cloudft[qlora]', or use `method: lora`.",
        )
    from transformers import BitsAndBytesConfig

    # On import it recommends a package with kernels for inference.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_memory_compact(device: torch.device) -> None:
    """Let each large block that is freed go back to the machine (glibc, on a CPU).

    Each product makes a copy of its weight in 16 bits for a moment. Blocks of that size would stay
    in the heap in pieces: 3.3 GB in place of 2.2 GB for a model of a billion parameters.
    """
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def keep_gradients(model: nn.Module) -> None:
    """Keep 4-bit weights in the layout that has a gradient.

    On CPUs with AVX512-BF16, bitsandbytes repacks a layer for inference in its first evaluation.
    From then on no gradient passes through it, without an error
    (findings/bitsandbytes_evaluated_on_cpu_has_wrong_gradients.sh).
    """
    for module in model.modules():
        if is_four_bits(module):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def check_pays(model: PreTrainedModel, device: torch.device, packed: bool | str) -> None:
    """Raise TrainerError where LoRA takes no more memory and less time.

    That is on a CPU with a small model that the packed path knows. `packed` is `local.packed`.
    """
    is_alternative = packed is not False and find_family(model) is not None
    count = count_parameters(model)
    if device.type != "cpu" or not is_alternative or count >= LEAST_PARAMETERS:
        return
    raise TrainerError(
        f"local.method is qlora, and the model has {count / 1e6:.0f} million parameters: on a"
        f" CPU, LoRA takes no more memory below {LEAST_PARAMETERS / 1e6:.0f} million, and less"
        " time.",
        fix="use `method: lora`.",
    )


def count_parameters(model: nn.Module) -> int:
    """Return how many weights a model has, wherever they are in 4 bits."""
    packed = {id(layer.weight): layer for layer in model.modules() if is_four_bits(layer)}
    return sum(
        math.prod(linear_shape(packed[id(weight)])) if id(weight) in packed else weight.numel()
        for weight in model.parameters()
    )


def is_four_bits(module: nn.Module) -> bool:
    """Return True for a linear layer of bitsandbytes with 4-bit weights."""
    return type(module).__name__ == "Linear4bit"
