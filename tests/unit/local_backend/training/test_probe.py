"""What a job will take, told before it runs: memory without content, time by its own steps."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
import torch

from local_backend.data.batches import Example, MicroBatchLimit
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings
from local_backend.training import probe
from local_backend.training.memory_estimate import estimate_step_memory

CPU = torch.device("cpu")


def asked(folder: Path, steps: int) -> list[dict[str, Any]]:
    """What the child says."""
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


def test_it_tells_memory_steps_and_time_and_leaves_the_job_as_it_was(
    tiny_model: Path, tmp_path: Path
) -> None:
    data = {"train": tiny.pairs(22), "validation": tiny.pairs(5)}
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, data, batchSize=4, epochCount=3)
    before = sorted(folder.rglob("*"))
    first, *steps, last = asked(folder, 3)
    assert first["memory"]["fits"] and first["memory"]["remedy"] is None
    assert first["memory"]["bytes"] > 2**28
    assert [step["done"] for step in steps] == [1, 2, 3, 4, 5]
    took = last["took"]
    assert (took["records"], took["steps"], took["measuredSteps"]) == (22, 18, 3)
    assert took["seconds"] > 18 * took["secondsPerStep"] > 0
    assert sorted(folder.rglob("*")) == before


def test_what_does_not_fit_is_told_with_what_would(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"train": tiny.pairs(8)}
    settings = read_settings(
        JobDir(tiny.write_job_dir(tmp_path / "job", tiny_model, data, method="full", batchSize=8))
    )
    said: list[dict[str, Any]] = []
    for free, remedy in ((2**20, "lower local.max_length"), (2**40, None)):
        monkeypatch.setattr(probe, "free_memory_bytes", lambda device, free=free: free)
        assert probe.report_memory(settings, said.append) is (remedy is None)
        told = said.pop()["memory"]
        assert told["available"] == free and (remedy or "") in (told["remedy"] or "")

    def room(found: int) -> str:
        return probe.suggest_remedy(
            settings, lambda s, one, thrifty=False: sizes(s, thrifty), found
        )

    def sizes(changed: Any, thrifty: bool) -> int:
        return (10 if changed.method == "lora" else 20) + (0 if thrifty else 5)

    assert "micro_batch_size" in room(25) and "computes activations twice" in room(20)
    assert "method: lora" in room(10) and "smaller model" in room(9)


def test_more_at_once_takes_more_and_activations_computed_twice_less(
    tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(4)})
    settings, config = read_settings(JobDir(folder)), AutoConfig.from_pretrained(tiny_model)
    ids = torch.arange(200).numpy().astype("int32")
    records = [Example((ids + n) % 290, ids >= 1) for n in range(8)]

    def peak(rows: int, *, thrifty: bool = False, method: str = "lora") -> int:
        changed, limit = replace(settings, method=method), MicroBatchLimit(rows, 10**9)
        found = estimate_step_memory(
            config, changed, torch.float32, CPU, records, limit, gradient_checkpointing=thrifty
        )
        assert found.peak > found.persistent > 0
        return found.peak

    assert peak(8) > peak(2) > peak(1) and peak(8) > peak(8, thrifty=True)
    assert peak(1, method="full") > peak(1)


def test_a_sharded_job_says_that_it_can_not_be_probed(tiny_model: Path, tmp_path: Path) -> None:
    data = {"train": tiny.pairs(4)}
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, data, processes=2, fsdp=True)
    [said] = asked(folder, 2)
    assert "a probe is one" in said["error"] and "local.fsdp=false" in said["fix"]


def test_a_job_that_can_not_be_prepared_says_why(tiny_model: Path, tmp_path: Path) -> None:
    folder = tiny.write_job_dir(
        tmp_path / "job", tiny_model, {"train": tiny.pairs(4)}, maxLength=10**6
    )
    [said] = asked(folder, 2)
    assert "max_length" in said["error"] and said["fix"]
