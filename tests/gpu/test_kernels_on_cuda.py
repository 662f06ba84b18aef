"""What a step does on a GPU: where it waits, and whether faster attention would be the same.

Written without a GPU at hand: nothing here has run yet (docs/explanation/gpu.md).
"""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from local_backend.data.examples import Example
from local_backend.job_dir import JobDir
from local_backend.progress import ProgressReporter
from local_backend.settings import read_settings
from local_backend.training.prepare_run import prepare_run
from local_backend.training.train_loop import compute_mean_loss, step_optimizer

LENGTHS = (384, 511, 700, 1024)


def test_a_step_waits_for_the_gpu_once(tmp_path: Path, tiny_model: Path) -> None:
    """That is where the loss is read; tests/unit has the same without a GPU."""
    job = tiny.write_job_dir(
        tmp_path / "job", tiny_model, {"train": tiny.pairs(16)}, device="cuda", dtype="bfloat16"
    )
    run = prepare_run(JobDir(job), read_settings(JobDir(job)), ProgressReporter(JobDir(job)))

    def step(batch: list[Example]) -> None:
        run.optimizer.zero_grad(set_to_none=True)
        compute_mean_loss(run, batch, backward=True)
        step_optimizer(run)

    step(run.train.examples[:4])  # kernels are loaded and the optimizer allocates
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step(run.train.examples[4:8])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(one.message) for one in caught if "synchronizing" in str(one.message)]
    assert len(waits) == 1, waits


def rows(cuda: torch.device) -> tuple[torch.Tensor, list[int]]:
    """Return queries, keys and values [3, tokens, heads, size] of rows one after another."""
    torch.manual_seed(0)
    qkv = torch.randn(3, sum(LENGTHS), 8, 64, device=cuda, dtype=torch.bfloat16)
    return qkv, [0, *np.cumsum(LENGTHS).tolist()]


def attend_row_by_row(qkv: torch.Tensor, starts: list[int]) -> torch.Tensor:
    parts = []
    for first, last in itertools.pairwise(starts):
        q, k, v = (x[first:last].transpose(0, 1)[None].float() for x in qkv)
        parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.skipif(
    importlib.util.find_spec("torch.nn.attention.varlen") is None,
    reason="this PyTorch has no torch.nn.attention.varlen",
)
def test_pytorchs_attention_of_rows_of_any_length_is_that_of_each_row(cuda: torch.device) -> None:
    """Not what the trainer uses: whether it could replace sdpa_attention for long rows."""
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    qkv, starts = rows(cuda)
    expected = attend_row_by_row(qkv, starts)
    bounds, longest = torch.tensor(starts, device=cuda, dtype=torch.int32), max(LENGTHS)
    causal: dict[str, Any] = (
        {"is_causal": True}
        if "is_causal" in inspect.signature(varlen_attn).parameters
        else {"window_size": (-1, 0)}
    )
    found = varlen_attn(*qkv, bounds, bounds, longest, longest, **causal)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
