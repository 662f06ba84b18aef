"""Compiled kernels compute what the lines of PyTorch compute, and are compiled once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from trainer_run import run_to_checkpoint, run_trainer

from local_backend.data.examples import Example
from local_backend.packed import JobSize, choose_kernels
from local_backend.packed.attention import AttentionKind, PackedAttention, build_gather_indices
from local_backend.packed.autograd import run_function
from local_backend.packed.cross_entropy import ChunkedTokenLosses, ChunkedTokenSum
from local_backend.packed.gated import SwiGlu
from local_backend.packed.kernels import Kernels, NormSettings, choice, use_kernels
from local_backend.packed.kernels import compile as compile_module
from local_backend.packed.kernels.compile import (
    compile_kernels,
    is_compiled,
    kernels_folder,
    source_digest,
)
from local_backend.packed.layout import pack_examples
from local_backend.packed.linear import FusedLoraLinear
from local_backend.packed.norms import RmsNorm, add_rms_norm

CPU = torch.device("cpu")
FORMATS = (torch.bfloat16, torch.float32)
Tensors = list[torch.Tensor]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Return the kernels, compiled by the machine's compiler."""
    folder = tmp_path_factory.mktemp("kernels") / "key"
    compile_kernels(folder)
    return Kernels(folder)


@pytest.fixture(autouse=True)
def no_kernels_afterwards() -> Iterator[None]:
    """Leave this process without kernels."""
    yield
    use_kernels(None)


def results(function: Callable[..., object], inputs: Tensors) -> Tensors:
    """Return the outputs of `function`, and the gradients of a weighted sum of them."""
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    output = function(*leaves)
    outputs = list(output) if isinstance(output, tuple) else [output]
    weights = [torch.linspace(-1, 1, x.numel()).view(x.shape) for x in outputs]
    total = sum((x.float() * w).sum() for x, w in zip(outputs, weights, strict=True))
    assert isinstance(total, torch.Tensor)
    grads = torch.autograd.grad(total, [x for x in leaves if x.requires_grad])
    return [x.detach() for x in (*outputs, *grads)]


def assert_equal(
    kernels: Kernels, function: Callable[..., object], inputs: Tensors, dtype: torch.dtype
) -> None:
    """Compare outputs and gradients of the kernels with those of the plain lines."""
    use_kernels(kernels)
    compiled = results(function, inputs)
    use_kernels(None)
    plain = results(function, inputs)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-5
    for ours, theirs in zip(compiled, plain, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        scale = theirs.float().abs().max()
        assert (ours.float() - theirs.float()).abs().max() <= tolerance * scale


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("tokens", [1, 7, 65])
def test_norms_and_gates_are_those_of_the_plain_lines(
    kernels: Kernels, tokens: int, dtype: torch.dtype
) -> None:
    x, delta, weight = noise(tokens, 33), noise(tokens, 33, seed=1).to(dtype), noise(33)

    def add_norm(x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor) -> object:
        return add_rms_norm(x, delta, 0.5, weight, NormSettings(1e-5, dtype, 3))

    def norm(x: torch.Tensor, weight: torch.Tensor) -> object:
        return run_function(RmsNorm, x, weight, 1e-5, dtype)

    assert_equal(kernels, add_norm, [x, delta, weight], dtype)
    assert_equal(kernels, norm, [x, weight], dtype)
    gate_up = noise(tokens, 2 * 31).to(dtype) * 4
    assert_equal(kernels, lambda x: run_function(SwiGlu, x), [gate_up], dtype)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shared", [0, 9])
@pytest.mark.parametrize("rotations", [4, 2, 0])
def test_attention_is_that_of_the_plain_lines(
    kernels: Kernels, rotations: int, shared: int, dtype: torch.dtype
) -> None:
    head = np.arange(shared)
    rows = [np.concatenate([head, 50 + np.arange(n)]).astype(np.int32) for n in (3, 5, 17, 18)]
    layout = pack_examples([Example(ids, np.arange(len(ids)) > shared) for ids in rows], CPU)
    kind = AttentionKind(heads=6, kv_heads=2, scale=0.3)
    tokens = len(layout.ids)
    indices = build_gather_indices(layout, kind, dtype)
    angles = noise(tokens, 1, rotations)
    qkv = noise(tokens, 10 * 8).to(dtype) / 2

    def attend(qkv: torch.Tensor) -> object:
        return run_function(PackedAttention, qkv, angles.cos(), angles.sin(), indices)

    assert_equal(kernels, attend, [qkv], dtype)


@pytest.mark.parametrize("columns", [0, 4, 5])
def test_adapters_columns_are_put_beside_their_input(kernels: Kernels, columns: int) -> None:
    """With the memory that the norm has allocated for them, and without it."""
    x, norm, weight = noise(9, 12), noise(12), noise(20, 16) / 4
    a, b = noise(4, 12) / 4, noise(20, 4)

    def project(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> object:
        settings = NormSettings(1e-5, torch.float32, columns)
        _, normalized = add_rms_norm(x, None, 1.0, norm, settings)
        wide = torch.cat([weight[:, :12], b.detach()], 1)
        inputs = (normalized, normalized, wide, None, 2.0, a, b)
        return run_function(FusedLoraLinear, *inputs)

    assert_equal(kernels, project, [x, a, b], torch.float32)


@pytest.mark.parametrize("dtype", FORMATS)
def test_losses_are_those_of_the_plain_lines(kernels: Kernels, dtype: torch.dtype) -> None:
    hidden, weight = noise(5, 16).to(dtype), noise(1030, 16, seed=1).to(dtype) / 4
    targets = torch.tensor([0, 1029, 7, 7, 512], dtype=torch.int32)  # as a layout has them

    def total(hidden: torch.Tensor) -> object:
        return run_function(ChunkedTokenSum, hidden, weight, targets, True, None)

    def each(hidden: torch.Tensor) -> object:
        return run_function(ChunkedTokenLosses, hidden, weight, targets, None)

    for function in (total, each):
        assert_equal(kernels, function, [hidden], dtype)
    use_kernels(kernels)
    nothing = run_function(ChunkedTokenLosses, hidden[:0], weight, targets[:0], None)
    assert nothing.shape == (0,)


def test_what_is_not_a_number_stays_so(kernels: Kernels) -> None:
    x = noise(3, 40)
    x[1, 5] = float("nan")
    x[2, 7] = float("inf")
    use_kernels(kernels)
    for dtype in FORMATS:
        norm = run_function(RmsNorm, x, torch.ones(40), 1e-5, dtype)
        assert norm[0].isfinite().all() and norm[1].isnan().all() and norm[2, 7].isnan()
        gated = run_function(SwiGlu, x.to(dtype))
        assert gated[0].isfinite().all() and not gated[1].isfinite().all()
        losses = kernels.cross_entropy_(x.to(dtype), torch.tensor([0, 1, 2]), needs_grad=False)
        assert losses[0].isfinite() and not losses[1:].isfinite().any()


LONG, SHORT = JobSize(10**9, 10**9), JobSize(1, 1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of compiled kernels."""
    monkeypatch.setenv("CLOUDFT_MODEL_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def choose(size: JobSize, recorded: str | None = None) -> tuple[bool, str, str]:
    """Return whether a job uses kernels, what it records, and the log."""
    log: list[str] = []
    kernels, record = choose_kernels(size, recorded, log.append)
    return kernels is not None, record, "\n".join(log)


def test_kernels_are_compiled_once_and_by_jobs_that_are_long_enough(cache: Path) -> None:
    assert choose(SHORT) == (
        *(False, ""),
        "computing without compiled kernels: the job is too short for them",
    )
    assert not cache.exists()
    used, record, log = choose(LONG)
    assert used and record == source_digest() and "compiled the kernels" in log
    # A short job computes as before: its curve does not depend on what ran on the machine.
    assert choose(SHORT)[0] is False
    # Another process finds them.
    code = (
        "from local_backend.packed import JobSize, choose_kernels\n"
        "print(choose_kernels(JobSize(10**9, 10**9), None, print)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["computing with compiled kernels", record]


def test_a_damaged_entry_is_compiled_again(cache: Path) -> None:
    choose(LONG)
    [library] = cache.glob(f"*/{compile_module.LIBRARY}")
    content = library.read_bytes()
    library.unlink()  # this process has loaded it, and must keep it
    library.write_bytes(content[:1000])
    assert not is_compiled(kernels_folder())
    used, _, log = choose(LONG)
    assert used and "compiled the kernels" in log and is_compiled(kernels_folder())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
@pytest.mark.parametrize("what", ["", compile_module.LIBRARY])
def test_another_users_library_is_not_run(cache: Path, what: str) -> None:
    choose(LONG)
    folder = kernels_folder()
    os.chown(folder / what, 4321, 4321)
    assert not is_compiled(folder)
    _, _, log = choose(LONG)
    assert "compiled the kernels" in log and is_compiled(folder)


def test_a_job_keeps_its_first_choice(cache: Path) -> None:
    used, record, log = choose(LONG, recorded="")
    assert (used, record, log) == (False, "", "computing without compiled kernels, as before")
    used, record, log = choose(SHORT, recorded=source_digest())
    assert used and "warning" not in log
    used, record, log = choose(SHORT, recorded="another")
    assert used and record == source_digest() and "last digits" in log


def test_without_a_compiler_the_plain_lines_compute(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compile_module, "COMPILERS", ("no-such-compiler",))
    used, record, log = choose(LONG)
    assert not used and not record and "no GNU C++ compiler is installed" in log
    used, record, log = choose(LONG, recorded=source_digest())
    assert not used and "last digits" in log
    broken = tmp_path / "g++"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Free Software Foundation && exit\n'
        "echo cannot find crt1.o >&2; exit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr(compile_module, "COMPILERS", (str(broken),))
    assert choose(LONG) == (
        *(False, ""),
        "computing without compiled kernels: the compiler failed: cannot find crt1.o",
    )
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("is_long", [True, False])
def test_a_resumed_job_computes_as_it_began(
    cache: Path,
    is_long: bool,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not cache.exists()
    monkeypatch.setattr(choice, "COMPILE_SECONDS", 0.0 if is_long else 1e9)
    data = {"train": tiny.pairs(8)}
    whole = run_trainer(tiny.write_job_dir(tmp_path / "whole", tiny_model, data, epochCount=3))
    folder = tiny.write_job_dir(tmp_path / "broken", tiny_model, data, epochCount=3)
    broken = run_to_checkpoint(folder, 3)
    # A new job would choose the other way now.
    monkeypatch.setattr(choice, "COMPILE_SECONDS", 1e9 if is_long else 0.0)
    resumed = run_trainer(folder)
    for run in (whole, broken, resumed):
        assert ("computing with compiled kernels" in run.log) == is_long
    assert "resuming after step 3" in resumed.log
    assert resumed.losses() == whole.losses()
