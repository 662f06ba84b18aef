"""`base_model: job:NAME`: a job that starts from the model of an earlier job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from job_files import write_job_file
from processes import Cli, JobFile

ADAPTED = {"lora": {"r": 4, "alpha": 8, "target_modules": ["q_proj", "down_proj"]}}


def train(cli: Cli, path: Path) -> str:
    """Return the id of the completed job."""
    done = cli("submit", path, "--wait", "--output", "json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["id"])


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(5, 30)[None]).logits


def add_adapters(model: Any, *folders: Path) -> Any:
    """Add each adapter's update to the weights, from the tensors in its file alone."""
    import torch
    from safetensors.torch import load_file

    weights = dict(model.named_parameters())
    for folder in folders:
        tensors = load_file(folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        for name, a in tensors.items():
            if ".lora_A." in name:
                b = tensors[name.replace(".lora_A.", ".lora_B.")]
                layer = name.removeprefix("base_model.model.").replace(".lora_A", "")
                with torch.no_grad():
                    weights[layer] += config["lora_alpha"] / config["r"] * (b @ a)
    return model


def test_the_exported_model_has_every_adapter_of_the_chain(
    cli: Cli, tmp_path: Path, home: Path, tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained
    first = train(cli, write_job_file(tmp_path / "a", tiny_model, name="first"))
    path = write_job_file(
        tmp_path / "b", Path("job:first"), name="second", records=12, local=ADAPTED
    )
    second = train(cli, path)
    request = json.loads((home / "jobs" / second / "job.json").read_text())
    assert request["baseModel"] == f"job:{first}"
    # A newer job of that name is another plan.
    train(cli, write_job_file(tmp_path / "a", tiny_model, name="first", records=8))
    later = cli("submit", path, "--dry-run", "--output", "json")
    assert json.loads(later.stdout)["request"]["id"] not in (None, second)
    # The chain goes on from adapters, and nothing of it needs the earlier jobs any more.
    third = train(cli, write_job_file(tmp_path / "c", Path("job:second"), name="third", records=9))
    adapters = [home / "jobs" / one / "artifacts" / "model" for one in (first, second, third)]
    kept = [shutil.copytree(folder, tmp_path / folder.parts[-3]) for folder in adapters]
    for one in (first, second):
        assert cli("delete", one, "--yes").returncode == 0
    shutil.rmtree(tmp_path / "models")
    again = cli("check", tmp_path / "c" / "cloudft.yaml", "--set", f"base_model=job:{second}")
    assert again.returncode == 0, again.stdout
    # No record is held out: the runtime could be compared on none, and nothing is written.
    refused = cli("export", third, tmp_path / "merged", "--for", "transformers", "--verify")
    assert refused.returncode == 2 and "leave out --verify" in refused.stderr
    assert not (tmp_path / "merged").exists()
    done = cli("export", third, tmp_path / "merged", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    found = logits(load(tmp_path / "merged"))
    assert (found - logits(add_adapters(load(tiny_model), *kept))).abs().max() < 1e-4
    without_first = logits(add_adapters(load(tiny_model), *kept[1:]))
    assert (found - without_first).abs().max() > 1e-2


def test_the_base_that_is_compared_with_is_the_earlier_jobs_model(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    held_out = tiny.pairs(40)[30:]
    first = train(
        cli,
        write_job_file(
            tmp_path / "a", tiny_model, name="first", validation=held_out, local={"method": "full"}
        ),
    )
    second = train(
        cli, write_job_file(tmp_path / "b", Path("job:first"), name="second", validation=held_out)
    )
    losses = {}
    for job in (first, second):
        state = json.loads(cli("status", job, "--output", "json").stdout)
        losses[job] = state["summary"]["base"], state["summary"]["tuned"]
    assert losses[second][0]["validationLoss"] == pytest.approx(
        losses[first][1]["validationLoss"], abs=1e-4
    )
    texts = [answers(cli, job) for job in (first, second)]
    assert texts[1]["base"] == texts[0]["tuned"]
    assert texts[0]["base"] != texts[0]["tuned"]


def answers(cli: Cli, job: str) -> dict[str, str]:
    """Return the answers of the job's models to one prompt, by variant."""
    arguments = ("--prompt", "Where is parcel 3 for Cairo?", "--base", "--output", "json")
    done = cli("generate", job, *arguments)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    return {variant: str(found[variant]["text"]) for variant in ("base", "tuned")}


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("job:nothing", ("there is no job nothing", "cloudft list")),
        ("job:slow", ("is Stopped", "cloudft resume slow-")),
        ("job:", ("there is no job", "cloudft list")),
    ],
)
def test_a_job_without_a_model_is_refused_with_place_and_remedy(
    cli: Cli, tmp_path: Path, job_file: JobFile, reference: str, words: tuple[str, ...]
) -> None:
    if reference == "job:slow":
        path = job_file(name="slow", hyperparameters={"epochCount": 100}, records=200)
        cli("submit", path, "--output", "json")
        cli("stop", "slow")
        cli("watch", "slow")
    path = write_job_file(tmp_path / "b", Path(reference), name="second")
    done = cli("check", path)
    assert done.returncode == 2
    for word in (*words, f"{path}:1", "base_model"):
        assert word in done.stdout + done.stderr


def test_a_cloud_that_can_not_start_from_it_says_so(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    first = train(cli, write_job_file(tmp_path / "a", tiny_model, name="first"))
    path = write_job_file(tmp_path / "b", Path("job:first"), name="second")
    for backend, code in (("bedrock", "NotOnBedrock"), ("sagemaker", "TrainedJobHere")):
        done = cli("check", path, "--backend", backend, "--output", "json")
        assert done.returncode == 3
        [found] = [one for one in json.loads(done.stdout)["findings"] if one["code"] == code]
        assert first in found["message"] and "cloudft" in found["fix"]
