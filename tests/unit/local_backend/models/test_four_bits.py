"""QLoRA on a CPU by the real bitsandbytes: gradients, a whole job, a refusal where it is no gain.

The package is no dependency of the tests: its wheel has the libraries of every GPU. Where it is
not installed, its CPU part is taken from the wheel that tests/container_env.py has downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import container_env
import pytest
import tiny
import torch

from local_backend.models import lora
from local_backend.models.load_model import load_model

PROGRAM = Path(__file__).parents[3] / "qlora_program.py"


@pytest.fixture(scope="session")
def bitsandbytes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder to import bitsandbytes from; empty if it is installed."""
    if importlib.util.find_spec("bitsandbytes") is not None:
        return ""
    wheels = sorted(container_env.FOLDER.glob(f"*/{container_env.WHEELS}/bitsandbytes-*.whl"))
    if not wheels:
        pytest.skip("bitsandbytes is not installed, and tests/container_env.py has no wheel of it")
    folder = tmp_path_factory.mktemp("bitsandbytes")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        names = [n for n in wheel.namelist() if not n.endswith(".so") or n.endswith("_cpu.so")]
        wheel.extractall(folder, names)
    return str(folder)


@pytest.fixture(scope="session")
def results(
    bitsandbytes: str, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> dict[str, Any]:
    """Return what one run of PROGRAM has printed; `job` is the folder of its job."""
    folder = tmp_path_factory.mktemp("four-bits")
    data = {"train": tiny.pairs(16), "validation": tiny.pairs(4)}
    job = tiny.write_job_dir(folder / "job", tiny_model, data, method="qlora", epochCount=3)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), str(tiny_model), str(job)],
        env=os.environ | ({"PYTHONPATH": bitsandbytes} if bitsandbytes else {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed | {"job": job}


def test_gradients_are_those_of_the_dequantized_weights_after_an_evaluation_too(
    results: dict[str, Any],
) -> None:
    assert results["off"] == pytest.approx({"before": 0.0, "after": 0.0}, abs=1e-5)


def test_a_small_model_is_refused_and_weights_in_four_bits_are_counted_as_they_are(
    results: dict[str, Any],
) -> None:
    plain, packed = results["parameters"]
    assert plain == packed
    refused = results["endings"][0]
    assert refused["status"] == "Failed" and "use `method: lora`" in str(refused)
    assert "LoRA takes no more memory below" in refused["failureMessage"]


def test_a_job_learns_on_a_cpu_says_the_price_and_its_adapter_fits_the_plain_base(
    results: dict[str, Any], tiny_model: Path
) -> None:
    assert results["endings"][1]["status"] == "Completed", results
    assert "4-bit weights on a CPU take" in results["log"] and "Linear4bit" in results["log"]
    points = (results["job"] / "metrics.jsonl").read_text().splitlines()
    losses = [point["loss"] for point in map(json.loads, points) if point["split"] == "train"]
    assert losses[-1] < losses[0] - 0.3
    model = load_model(str(tiny_model), torch.float32, torch.device("cpu")).model
    lora.load_adapter(model, results["job"] / "artifacts" / "model")
    assert any(bool(layer.lora_B.any()) for _, layer in lora.lora_layers(model))
    lora.merge_adapters(model)
    assert not list(lora.lora_layers(model))
