"""Several processes on one job: the losses of one, one writer, a clear failure if one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
import torch
from processes import find_processes, kill, read_json, read_jsonl, wait_until
from safetensors.torch import load_file

from local_backend.distributed import fsdp
from local_backend.distributed.process_group import ProcessGroup
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings

DATA = {"train": tiny.pairs(21), "validation": tiny.pairs(5)}
SIZES = {"batchSize": 5, "microBatchSize": 2, "epochCount": 3}
"""Of two processes one has three records of a batch and the other two, so two micro batches and
one; of the last batch of an epoch, one record, the other has nothing.
"""


def job(folder: Path, model: Path, **changes: Any) -> Path:
    return tiny.write_job_dir(folder, model, DATA, **{**SIZES, **changes})


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [preloaded.interpreter_path(), "-m", "local_backend", str(folder)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "trainer.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environ)


def assert_same_curve(
    actual: list[tuple[str, int, float]], expected: list[tuple[str, int, float]]
) -> None:
    assert [point[:2] for point in actual] == [point[:2] for point in expected]
    assert [p[2] for p in actual] == pytest.approx([p[2] for p in expected], abs=1e-4)


def summary(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = read_json(folder / "artifacts" / "result.json")["summary"]
    return value


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    [file] = (folder / "artifacts" / "model").glob("*.safetensors")
    return load_file(file)


def curve(folder: Path) -> list[tuple[str, int, float]]:
    return [(p["split"], p["step"], p["loss"]) for p in read_jsonl(folder / "metrics.jsonl")]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_learn_what_one_does_whole_or_sharded(
    tiny_model: Path, tmp_path: Path, method: str
) -> None:
    ways = {"one": {}, "whole": {"processes": 2}, "sharded": {"processes": 2, "fsdp": True}}
    folders = {
        name: job(tmp_path / name, tiny_model, method=method, **way) for name, way in ways.items()
    }
    for child in [start(folder) for folder in folders.values()]:
        assert child.wait(180) == 0
    one = curve(folders["one"])
    for several in (folders["whole"], folders["sharded"]):
        assert_same_curve(curve(several), one)
        assert not (several / "meeting").exists()
        assert (several / "artifacts" / "result.json").is_file()
    tuned, expected = weights_of(folders["sharded"]), weights_of(folders["one"])
    assert tuned.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(tuned[name], weight, atol=1e-4, rtol=1e-3)
    held = {name: summary(folder)["weightBytes"] for name, folder in folders.items()}
    assert held["whole"] == held["one"] and held["sharded"] == held["one"] / 2


def test_a_model_of_another_shape_is_sharded_too(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    still = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    marks = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, **still, **marks)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    ways: list[dict[str, Any]] = [{}, {"processes": 2, "fsdp": True}]
    one, two = (
        job(tmp_path / str(n), tmp_path / "gpt2", method="full", epochCount=1, **way)
        for n, way in enumerate(ways)
    )
    for child in [start(folder) for folder in (one, two)]:
        assert child.wait(180) == 0
    assert_same_curve(curve(two), curve(one))
    assert weights_of(two).keys() == weights_of(one).keys()
    assert "FSDP" not in (two / "artifacts" / "model" / "config.json").read_text()


def test_one_that_dies_ends_the_job_which_resumes_from_its_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    whole = job(tmp_path / "whole", tiny_model, epochCount=30, learningRate=1e-3)
    folder = job(tmp_path / "broken", tiny_model, epochCount=30, learningRate=1e-3, processes=2)
    assert start(whole).wait(120) == 0
    supervisor = start(folder)
    wait_until(lambda: len(curve(folder)) > 30, "some steps are done")
    [other] = read_json(folder / "trainer.json")["others"]
    kill(other)
    assert supervisor.wait(60) == 1 and not find_processes(str(folder))
    ending = JobDir(folder).read_ending()
    assert ending is not None and ending["status"] == "Failed"
    assert "process of this job is gone" in ending["failureMessage"]
    (folder / "ended.json").unlink()
    assert start(folder).wait(120) == 0
    assert_same_curve(curve(folder), curve(whole))


def test_a_sharded_job_resumes_unsharded_and_the_reverse(tiny_model: Path, tmp_path: Path) -> None:
    """One of two is killed; one process resumes its checkpoint, and two resume that one's."""
    long = {"epochCount": 24, "learningRate": 1e-3, "method": "full"}
    whole = job(tmp_path / "whole", tiny_model, **long)
    folder = job(tmp_path / "broken", tiny_model, processes=2, fsdp=True, **long)
    undisturbed, supervisor = start(whole), start(folder)
    wait_until(lambda: len(curve(folder)) > 30, "some steps are done", seconds=180)
    [other] = read_json(folder / "trainer.json")["others"]
    kill(other)
    assert supervisor.wait(90) == 1 and not find_processes(str(folder))
    assert "process of this job is gone" in resumable(folder, "Failed", processes=1, fsdp=False)
    at = newest_step(folder)
    assert at > 0
    supervisor = start(folder)
    wait_until(lambda: len(curve(folder)) > 60, "it went on", seconds=180)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(90) == 0
    resumable(folder, "Stopped", processes=2, fsdp=True)
    assert at < newest_step(folder) < 24 * 5
    assert start(folder).wait(180) == 0 == undisturbed.wait(180)
    assert f"resuming after step {at} of 120" in (folder / "trainer.log").read_text()
    assert_same_curve(curve(folder), curve(whole))


def resumable(folder: Path, status: str, **changes: Any) -> str:
    """Remove the ending, change job.json, and return the failure message of the ending."""
    ending = read_json(folder / "ended.json")
    assert ending["status"] == status
    (folder / "ended.json").unlink()
    (folder / "job.json").write_text(json.dumps(read_json(folder / "job.json") | changes))
    return str(ending["failureMessage"])


def newest_step(folder: Path) -> int:
    return max(
        read_json(path)["position"]["step"] for path in folder.glob("checkpoints/*/position.json")
    )


def test_a_job_is_sharded_by_itself_where_a_gpu_does_not_hold_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = job(tmp_path / "job", tiny_model, processes=2, fsdp="auto")
    settings, cpu = read_settings(JobDir(folder)), torch.device("cpu")
    for free, fits in ((2**40, True), (2**20, False), (None, True)):
        monkeypatch.setattr(fsdp, "free_memory_bytes", lambda device, free=free: free)
        assert fsdp.fits_on_one_device(settings, cpu, torch.float32) is fits
    assert not fsdp.should_shard(settings, ProcessGroup(0, 2), cpu, torch.float32), (
        "memory is shared"
    )
    monkeypatch.setattr(fsdp, "fits_on_one_device", lambda *_: False)
    monkeypatch.setattr(ProcessGroup, "any_rank", lambda self, flag: flag)
    gpu = torch.device("cuda")
    assert fsdp.should_shard(settings, ProcessGroup(0, 2), gpu, torch.float32)
    assert not fsdp.should_shard(settings, ProcessGroup(), gpu, torch.float32)
    four_bits = replace(settings, method="qlora")
    assert not fsdp.should_shard(four_bits, ProcessGroup(0, 2), gpu, torch.float32)


def test_a_stop_stops_them_all(tiny_model: Path, tmp_path: Path) -> None:
    folder = job(tmp_path / "job", tiny_model, epochCount=400, processes=2)
    supervisor = start(folder)
    wait_until(lambda: len(curve(folder)) > 5, "some steps are done")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == 0
    ending = JobDir(folder).read_ending()
    assert ending is not None and ending["status"] == "Stopped"
    steps = [json.loads(p.read_text())["position"]["step"] for p in folder.rglob("position.json")]
    assert max(steps) == len([p for p in curve(folder) if p[0] == "train"])


def test_more_processes_than_records_of_a_batch_are_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = job(tmp_path / "job", tiny_model, batchSize=1, processes=2)
    assert start(folder).wait(120) == 1
    ending = JobDir(folder).read_ending()
    assert ending is not None and "lower local.processes" in ending["failureMessage"]
