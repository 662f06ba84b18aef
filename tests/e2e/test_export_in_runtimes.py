"""`export --verify`: held-out records, answered by the runtime itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tiny
from job_files import write_job_file
from processes import Cli

HELD_OUT = [
    tiny.pair(f"Where is the parcel {n}?", city) for n, city in enumerate(tiny.CITIES[:2] * 4)
]


@pytest.fixture
def job(cli: Cli, tmp_path: Path, tiny_model: Path) -> str:
    """The id of a trained job whose answers are labels, with eight held-out records."""
    records = [
        tiny.pair(f"Where is parcel {n}?", city) for n, city in enumerate(tiny.CITIES[:2] * 8)
    ]
    path = write_job_file(
        tmp_path / "job", tiny_model, records=records, data={"test": "test.jsonl"}
    )
    tiny.write_jsonl(path.parent / "test.jsonl", HELD_OUT)
    done = cli("submit", path, "--wait", "--output", "json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["id"])


def test_an_export_is_verified_and_one_that_differs_fails_by_its_layer(
    cli: Cli, job: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = cli("export", job, out, "--verify", "--output", "json")
    assert done.returncode == 0, done.stderr
    proof = json.loads(done.stdout)["runtimes"]["transformers"]
    assert json.loads((out / "export.json").read_text())["runtimes"] == {"transformers": proof}
    assert proof["difference"] is None and proof["records"] == 8 and proof["heldOut"] == "test"
    # Wilson's interval of 8 of 8.
    assert proof["equalAnswers"] == pytest.approx(
        {"value": 1.0, "low": 0.6756, "high": 1.0}, abs=1e-4
    )
    assert proof["score"]["metric"] == "accuracy"
    assert proof["score"]["ours"] == proof["score"]["theirs"]
    assert proof["score"]["difference"]["value"] == 0
    assert proof["perplexity"]["ratio"]["value"] == pytest.approx(1, abs=1e-3)
    assert math.isfinite(proof["perplexity"]["theirs"])
    again = cli("export", job, out, "--verify")
    assert again.returncode == 0, again.stderr
    assert "is an export already" in again.stderr
    lines = again.stdout.splitlines()
    assert lines[0].startswith("transformers (python ") and lines[0].endswith("8 test records")
    assert lines[1] == "  equal greedy answers: 100.0 % [67.6, 100.0]"
    assert lines[2].startswith("  accuracy: ") and "difference 0.0 %" in lines[2]
    assert lines[4].endswith("(allowed 0.002)")
    kept = (out / "export.json").read_bytes()
    refused = cli("export", job, out)
    assert refused.returncode == 2 and "--verify" in refused.stderr
    assert "merging" not in refused.stderr, "it is refused before anything is done"
    assert (out / "export.json").read_bytes() == kept
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text())
    template = config["chat_template"].replace("assistant", "model")
    path.write_text(json.dumps(config | {"chat_template": template}))
    failed = cli("export", job, out, "--verify", "--output", "json")
    assert failed.returncode == 1
    error = json.loads(failed.stdout)["error"]
    assert error["message"].startswith(
        "transformers does not answer as the tuned model does: template: token "
    )
    kept = json.loads((out / "export.json").read_text())["runtimes"]["transformers"]
    assert kept["difference"]["layer"] == "template"


def test_a_runtime_that_is_not_there_is_named_with_the_way_to_it(
    cli: Cli, job: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert cli("export", job, out).returncode == 0
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 3\n")
    bare.chmod(0o755)
    done = cli("export", job, out, "--verify", "--for", "openvino", "--runtime-python", bare)
    assert done.returncode == 1
    assert "openvino ended with status 3: no log" in done.stderr
    assert "runtimes" not in json.loads((out / "export.json").read_text())


@pytest.mark.parametrize(("quantization", "tolerance"), [("f32", 2e-3), ("q8_0", None)])
def test_a_gguf_file_is_verified_in_llama_cpp(
    cli: Cli, job: str, tmp_path: Path, quantization: str, tolerance: float | None
) -> None:
    pytest.importorskip("xllamacpp")
    words = ("--for", "llama.cpp", "--quantize", quantization, "--verify", "--output", "json")
    done = cli("export", job, tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    proof = json.loads(done.stdout)["runtimes"]["llama.cpp"]
    assert proof["tolerance"] == tolerance and proof["difference"] is None
    assert proof["perplexity"]["ratio"]["value"] == pytest.approx(1, abs=0.2)
    figures = (proof["equalAnswers"], proof["score"]["theirs"], proof["score"]["difference"])
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures)
