"""The trainer on a GPU: the same numbers as on a CPU, on both paths, resumed, in 4 bits, sharded.

Written without a GPU at hand: nothing here has run yet (docs/explanation/gpu.md).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from local_backend.data.batches import collate
from local_backend.data.examples import Example
from local_backend.models import lora
from local_backend.packed import FAMILIES, PackedLoss, unsupported_reason
from local_backend.settings import LoraSettings
from local_backend.training.loss import forward_padded
from local_backend.training.objectives import find_objective

CPU = torch.device("cpu")
VOCABULARY = 120
OBJECTIVE = find_objective("FINE_TUNING")
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS = {"head_dim": 16}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "helium": HEADS,
    "ministral": {"sliding_window": 7, **HEADS},
}
"""What a family's configuration does not compute from SIZES."""
LENGTHS = {"short": (9, 20, 31, 50), "long": (40, 500, 600)}
BFLOAT16_ERROR = 0.1
"""Of all gradients together, relative: bfloat16 has 8 bits. On a CPU it is 0.01 to 0.03."""


def example(length: int, first: int) -> Example:
    tokens = np.random.default_rng([length, first]).integers(3, VOCABULARY, length)
    return Example(tokens.astype(np.int32), np.arange(length) >= first)


def examples(name: str) -> list[Example]:
    return [example(length, 1 + length // 2) for length in LENGTHS[name]]


def build_model(family: str, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **OWN_SIZES.get(family, {}))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config.use_cache = False
    lora.attach_adapters(model, LoraSettings(4, 8, 0.0, "all-linear"), 1)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(dtype)
    return model.to(device)


def gradients(loss: torch.Tensor, model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    loss.backward()
    found = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), found


def packed(model: Any, records: Sequence[Example], dtype: torch.dtype, device: torch.device) -> Any:
    loss = PackedLoss(model, OBJECTIVE, dtype, device, reason="tested")
    return gradients(loss(records), model)


def padded(model: Any, records: Sequence[Example], device: torch.device) -> Any:
    return gradients(forward_padded(model, collate(records, 0, device)).sum(), model)


@pytest.mark.parametrize("lengths", sorted(LENGTHS))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_packed_on_the_gpu_is_padded_on_the_cpu(
    cuda: torch.device, family: str, lengths: str
) -> None:
    records = examples(lengths)
    reference = build_model(family, CPU, torch.float32)
    reason = unsupported_reason(reference)
    if reason is not None:
        pytest.skip(f"its default configuration takes the padded path: {reason}")
    expected, exact = padded(reference, records, CPU)
    loss, found = packed(build_model(family, cuda, torch.float32), records, torch.float32, cuda)
    # A token that two experts suit alike goes to the other one for a rounding.
    has_router = any(hasattr(reference.config, n) for n in ("num_experts", "num_local_experts"))
    assert loss == pytest.approx(expected, rel=0.02 if has_router else 1e-4)
    if has_router:
        return
    for name, gradient in exact.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(found[name] / scale, gradient / scale, atol=1e-3, rtol=1e-3)
    half, rounded = packed(build_model(family, cuda, torch.bfloat16), records, torch.bfloat16, cuda)
    assert half == pytest.approx(expected, rel=0.02)
    error = sum(float((rounded[name] - exact[name]).square().sum()) for name in exact)
    size = sum(float(gradient.square().sum()) for gradient in exact.values())
    assert (error / size) ** 0.5 < BFLOAT16_ERROR


def write_job(folder: Path, model: Path, **changes: Any) -> Path:
    data = {"train": tiny.pairs(24), "validation": tiny.pairs(4)}
    return tiny.write_job_dir(
        folder, model, data, device="cuda", dtype="bfloat16", epochCount=4, **changes
    )


def start(folder: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "local_backend.train", str(folder)],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def losses(folder: Path) -> list[float]:
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [point["loss"] for point in points if point["split"] == "train"]


def finish(folder: Path) -> list[float]:
    """Run the job to its end and return its training losses."""
    process = start(folder)
    output, _ = process.communicate(timeout=600)
    ended = json.loads((folder / "ended.json").read_text())
    assert ended["status"] == "Completed", output
    return losses(folder)


@pytest.mark.parametrize("packed", [True, False])
def test_a_killed_job_continues_on_its_curve(
    tmp_path: Path, tiny_model: Path, packed: bool
) -> None:
    whole = finish(write_job(tmp_path / "whole", tiny_model, packed=packed))
    folder = write_job(tmp_path / "killed", tiny_model, packed=packed)
    process = start(folder)
    deadline = time.monotonic() + 300
    while not list((folder / "checkpoints").glob("step-*")) and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Some kernels of CUDA add in an order of their own, so the curves are close and not equal.
    assert finish(folder) == pytest.approx(whole, rel=0.02)


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
def test_qlora_learns(tmp_path: Path, tiny_model: Path) -> None:
    found = finish(write_job(tmp_path / "job", tiny_model, method="qlora"))
    assert found[-1] < found[0] - 0.3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="sharding needs two GPUs")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_job_sharded_over_nccl_has_the_curve_of_one_gpu(
    tmp_path: Path, tiny_model: Path, method: str
) -> None:
    alone = finish(write_job(tmp_path / "alone", tiny_model, method=method))
    shared = write_job(tmp_path / "shared", tiny_model, method=method, processes=2, fsdp=True)
    assert finish(shared) == pytest.approx(alone, rel=0.02)
