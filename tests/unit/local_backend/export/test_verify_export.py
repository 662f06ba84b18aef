"""An export verified in a runtime: what is right, and what differs, by its layer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from trainer_run import TrainerRun

from local_backend.errors import TrainerError
from local_backend.export.engines import run
from local_backend.export.export_model import export_model
from local_backend.export.options import ExportOptions
from local_backend.export.tuned_model import load_tuned_model
from local_backend.export.verify import compare_records, read_tolerance
from local_backend.job_dir import JobDir
from local_backend.models.load_model import LoadedModel

RECORDS = [
    {
        "prompt": {"messages": [{"role": "user", "content": f"Where is parcel {number}?"}]},
        "text": f"In {city}.",
    }
    for number, city in enumerate(tiny.CITIES[:3])
]
REQUEST = {"records": RECORDS, "maxNewTokens": 12}


@pytest.fixture(scope="module")
def exported(tuned: TrainerRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tuned model as a float32 folder."""
    out = tmp_path_factory.mktemp("export") / "out"
    export_model(JobDir(tuned.path), out, ExportOptions())
    return out


@pytest.fixture(scope="module")
def loaded(tuned: TrainerRun) -> LoadedModel:
    """The tuned model itself, its adapter not merged."""
    return load_tuned_model(JobDir(tuned.path)).loaded


def test_an_export_is_verified_in_a_process_of_the_runtime(
    tuned: TrainerRun, exported: Path
) -> None:
    program = [sys.executable, "-m", "local_backend.export.verify", str(tuned.path), str(exported)]
    done = subprocess.run(
        [*program, "--for", "transformers"],
        input=json.dumps(REQUEST) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    *progress, result = map(json.loads, done.stdout.splitlines())
    count = len(RECORDS)
    assert progress == [{"done": at + 1, "total": count} for at in range(count)]
    assert result["difference"] is None, result
    assert result["maxDifference"] <= result["tolerance"] == 2e-3
    assert result["versions"]["torch"] == torch.__version__
    for record, wanted in zip(result["records"], RECORDS, strict=True):
        assert record["ours"] == record["theirs"] == wanted["text"]
        assert record["equal"] and record["finish"] == ["stop", "stop"]
        assert record["tokens"] > 1
        assert record["logLikelihoods"][0] == pytest.approx(record["logLikelihoods"][1], abs=1e-3)


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def scale_a_norm(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 1.05
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def split_off_digits(folder: Path) -> None:
    """As a runtime does that knows the tokenizer by another name."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = {
        "type": "Split",
        "pattern": {"Regex": "[a-z]"},
        "behavior": "Isolated",
        "invert": False,
    }
    tokenizer["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [words, tokenizer["pre_tokenizer"]],
    }
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("layer", "damage"),
    [
        ("end tokens", edit_json("generation_config.json", eos_token_id=1)),
        ("logits", scale_a_norm),
        (
            "template",
            edit_json(
                "tokenizer_config.json", chat_template=tiny.CHATML.replace("assistant", "model")
            ),
        ),
        (
            "template",
            edit_json(
                "tokenizer_config.json",
                chat_template="<|im_start|>" + tiny.CHATML,
            ),
        ),
        ("tokenizer", split_off_digits),
    ],
)
def test_what_differs_is_named_by_its_layer(
    exported: Path,
    loaded: LoadedModel,
    tmp_path: Path,
    layer: str,
    damage: Callable[[Path], None],
) -> None:
    folder = shutil.copytree(exported, tmp_path / "folder")
    damage(folder)
    engine = run.load_engine("transformers", folder, tmp_path)
    found = compare_records(loaded, engine, REQUEST, read_tolerance(folder))["difference"]
    assert found is not None and found["layer"] == layer, found


@pytest.mark.parametrize(
    ("proof", "tolerance"),
    [
        ({"dtype": "float32"}, 2e-3),
        ({"dtype": "bfloat16"}, 1.0),
        ({"dtype": "float32", "quantization": "F16"}, 0.1),
        ({"dtype": "float32", "quantization": "q8_0"}, None),
    ],
)
def test_the_tolerance_is_that_of_the_number_format(
    tmp_path: Path, proof: dict[str, str], tolerance: float | None
) -> None:
    (tmp_path / "export.json").write_text(json.dumps(proof))
    assert read_tolerance(tmp_path) == tolerance


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"no readable export\.json") as refused:
        read_tolerance(tmp_path)
    assert "cloudft export" in str(refused.value.fix)
