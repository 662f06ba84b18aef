"""What a job will take, measured before it runs: memory without content, time by its own steps."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
import torch

from local_backend.data.batches import MicroBatchLimit
from local_backend.data.examples import Example
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings
from local_backend.training import probe
from local_backend.training.memory_estimate import StepEstimator

CPU = torch.device("cpu")


def run_probe(folder: Path, steps: int) -> list[dict[str, Any]]:
    """Return the replies of the program."""
    done = subprocess.run(
        [
            preloaded.interpreter_path(),
            "-m",
            "local_backend.training.probe",
            str(folder),
            str(steps),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_reports_memory_steps_and_time_and_leaves_the_job_as_it_was(
    tiny_model: Path, tmp_path: Path
) -> None:
    data = {"train": tiny.pairs(22), "validation": tiny.pairs(5)}
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, data, batchSize=4, epochCount=3)
    before = sorted(folder.rglob("*"))
    first, *steps, last = run_probe(folder, 3)
    assert first["memory"]["fits"] and first["memory"]["remedy"] is None
    assert first["memory"]["bytes"] > 2**28
    assert [step["done"] for step in steps] == [1, 2, 3, 4, 5]
    took = last["took"]
    assert (took["records"], took["steps"], took["measuredSteps"]) == (22, 18, 3)
    assert took["seconds"] > 18 * took["secondsPerStep"] > 0
    assert sorted(folder.rglob("*")) == before


def test_what_does_not_fit_is_reported_with_what_would(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"train": tiny.pairs(8)}
    settings = read_settings(
        JobDir(tiny.write_job_dir(tmp_path / "job", tiny_model, data, method="full", batchSize=8))
    )
    replies: list[dict[str, Any]] = []
    for free, remedy in ((2**20, "lower local.max_length"), (2**40, None)):
        monkeypatch.setattr(probe, "free_memory_bytes", lambda device, free=free: free)
        assert probe.report_memory(settings, replies.append) is (remedy is None)
        memory = replies.pop()["memory"]
        assert memory["available"] == free and (remedy or "") in (memory["remedy"] or "")

    def peak_bytes(method: str, limit: Any, *, gradient_checkpointing: bool = False) -> int:
        return (10 if method == "lora" else 20) + (0 if gradient_checkpointing else 5)

    def remedy_for(usable: int) -> str:
        return probe.suggest_remedy(settings, peak_bytes, usable)

    assert "micro_batch_size" in remedy_for(25)
    assert "computes activations twice" in remedy_for(20)
    assert "method: lora" in remedy_for(10) and "smaller model" in remedy_for(9)


def test_more_at_once_takes_more_and_activations_computed_twice_less(
    tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(4)})
    settings, config = read_settings(JobDir(folder)), AutoConfig.from_pretrained(tiny_model)
    ids = torch.arange(200).numpy().astype("int32")
    records = [Example((ids + n) % 290, ids >= 1) for n in range(8)]

    def peak(rows: int, *, checkpointing: bool = False, method: str = "lora") -> int:
        estimator = StepEstimator(config, settings, torch.float32, CPU).with_method(method)
        limit = MicroBatchLimit(rows, 10**9)
        estimate = estimator.estimate(records, limit, gradient_checkpointing=checkpointing)
        assert estimate.peak > estimate.persistent > 0
        return estimate.peak

    assert peak(8) > peak(2) > peak(1) and peak(8) > peak(8, checkpointing=True)
    assert peak(1, method="full") > peak(1)


def test_a_sharded_job_says_that_it_can_not_be_probed(tiny_model: Path, tmp_path: Path) -> None:
    data = {"train": tiny.pairs(4)}
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, data, processes=2, fsdp=True)
    [reply] = run_probe(folder, 2)
    assert "a probe is one" in reply["error"] and "local.fsdp=false" in reply["fix"]


def test_a_job_that_can_not_be_prepared_says_why(tiny_model: Path, tmp_path: Path) -> None:
    folder = tiny.write_job_dir(
        tmp_path / "job", tiny_model, {"train": tiny.pairs(4)}, maxLength=10**6
    )
    [reply] = run_probe(folder, 2)
    assert "max_length" in reply["error"] and reply["fix"]
