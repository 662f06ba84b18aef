"""Frozen weights in 4 bits (QLoRA, Dettmers et al. 2023), by bitsandbytes.

On CUDA and on a CPU, where it is slower than LoRA and saves memory only for larger models:
`price_on_cpu` has the figures. The adapters over the weights are those of LoRA (lora.py).
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from torch import nn

from local_backend.errors import TrainerError

LEAST_ON_CPU = 300_000_000
"""Weights of linear layers below which QLoRA on a CPU saves no memory over LoRA."""
MEASURED = "benchmarks/qlora_cpu.py, bitsandbytes 0.50.2"


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


def keep_gradients(model: nn.Module) -> None:
    """Keep 4-bit weights in the layout that has a gradient.

    On CPUs with AVX512-BF16, bitsandbytes repacks a layer for inference in its first evaluation.
    From then on no gradient passes through it, without an error
    (findings/bitsandbytes_evaluated_on_cpu_has_wrong_gradients.sh).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
