"""Compute and train on a CPU with 4-bit weights; print what was found as JSON.

    python tests/qlora_program.py MODEL_FOLDER JOB_FOLDER

A process of its own: bitsandbytes is not where the tests import from.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch

from local_backend.models import four_bits, lora
from local_backend.models.load_model import eval_mode, load_model
from local_backend.settings import LoraSettings
from local_backend.train import main

CPU = torch.device("cpu")
IDS = torch.arange(3, 120).view(3, 39)


def load_adapted(folder: str, **options: Any) -> Any:
    """Return the model with adapters that are not at zero."""
    model = load_model(folder, torch.float32, CPU, **options).model
    four_bits.keep_gradients(model)
    lora.attach_adapters(model, LoraSettings(4, 8, 0.0, "all-linear"), 1)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    return model


def gradients(model: Any) -> torch.Tensor:
    """Return the gradients of all adapters as a vector."""
    model.train().zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.requires_grad])


def dequantize_into(plain: Any, quantized: Any) -> None:
    """Give `plain` the weights that `quantized` computes with."""
    from bitsandbytes.functional import dequantize_4bit

    layers = zip(lora.lora_layers(quantized), lora.lora_layers(plain), strict=True)
    with torch.no_grad():
        for (_, source), (_, target) in layers:
            weight: Any = source.base_layer.weight
            exact: Any = target.base_layer.weight
            exact.copy_(dequantize_4bit(weight.data, weight.quant_state))
            target.lora_A.copy_(source.lora_A)
            target.lora_B.copy_(source.lora_B)


def gradient_errors(folder: str) -> dict[str, float]:
    """Return the relative error of the gradients, before and after an evaluation."""
    quantized = load_adapted(folder, **four_bits.nf4_options(CPU, torch.float32))
    plain = load_adapted(folder)
    dequantize_into(plain, quantized)
    expected, errors = gradients(plain), {}
    for when in ("before", "after"):
        errors[when] = float((gradients(quantized) - expected).norm() / expected.norm())
        with eval_mode(quantized):
            quantized(input_ids=IDS)
    return errors


def train(job: Path, least_parameters: int) -> tuple[dict[str, Any], str]:
    """Return how the job ended, and its log."""
    four_bits.LEAST_PARAMETERS = least_parameters
    with contextlib.redirect_stdout(io.StringIO()) as log:
        main([str(job)])
    ended = job / "ended.json"
    ending: dict[str, Any] = json.loads(ended.read_text())
    ended.unlink()
    return ending, log.getvalue()


def run(folder: str, job: Path) -> dict[str, Any]:
    """Return everything that the tests compare."""
    options: list[dict[str, Any]] = [{}, four_bits.nf4_options(CPU, torch.float32)]
    models = [load_model(folder, torch.float32, CPU, **each).model for each in options]
    refused, _ = train(job, four_bits.LEAST_PARAMETERS)
    ending, log = train(job, 0)
    return {
        "off": gradient_errors(folder),
        "parameters": [four_bits.count_parameters(model) for model in models],
        "endings": [refused, ending],
        "log": log,
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]))))
