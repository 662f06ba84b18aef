"""`check` names layers that a model lacks, and tokens that its embedding lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import Cli, JobFile

from cloudft.backends.local.backend import LocalBackend
from cloudft.backends.local.embedding_rows import tokens_beyond_embedding
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.types import AdapterReach, Finding


def findings(path: Path, home: Path) -> list[Finding]:
    return LocalBackend(Home(home)).check(load_job(path))


@pytest.mark.usefixtures("preloaded_here")
@pytest.mark.parametrize(
    ("targets", "parts"),
    [
        (["q_proj", "v_prj", "embed_tokens"], ["v_prj (did you mean v_proj", "is Embedding"]),
        (["q_proj", "lm_head"], []),
    ],
)
def test_check_names_what_is_no_layer_to_adapt(
    job_file: JobFile, home: Path, targets: list[str], parts: list[str]
) -> None:
    lora: dict[str, Any] = {"r": 4, "alpha": 8, "target_modules": targets}
    found = findings(job_file(local={"lora": lora}), home)
    assert [(f.code, f.severity, f.field) for f in found] == (
        [("TargetModules", "error", "local.lora.target_modules")] if parts else []
    )
    assert all(part in f.message for f in found for part in parts)
    assert all(f.line and "down_proj" in f.fix for f in found)


@pytest.mark.usefixtures("preloaded_here")
def test_the_reach_of_adapters_is_known_before_the_start(
    job_file: JobFile, home: Path, cli: Cli
) -> None:
    path = job_file()
    reach = LocalBackend(Home(home)).describe_adapters(load_job(path))
    assert reach == AdapterReach(14, 1.0, (), (), reach.text if reach else "")
    shown = cli("check", str(path))
    assert shown.stdout.endswith(
        "\nadapters: 100 % of the weights are under an adapter (14 layers)\n"
    )
    path = job_file(local={"lora": {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}})
    planned = cli("plan", str(path), "--output", "json")
    adapters = json.loads(planned.stdout)["adapters"]
    assert adapters["layers"] == 4 and 0.1 < adapters["share"] < 0.2
    names = {kind["name"]: kind["reason"] for kind in adapters["leftOut"]}
    assert names == dict.fromkeys(
        ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.o_proj"],
        "not selected",
    )
    assert adapters["text"] in planned.stderr
    path = job_file(local={"method": "full"})
    assert LocalBackend(Home(home)).describe_adapters(load_job(path)) is None


def test_check_names_tokens_without_a_row_of_the_embedding(
    job_file: JobFile, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    assert tokens_beyond_embedding(folder)[0] == []
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<parcel>", "<refund>"])
    tokenizer.save_pretrained(folder)
    [finding] = findings(job_file(base_model=str(folder)), home)
    assert (finding.code, finding.severity) == ("TokensWithoutEmbedding", "warning")
    assert f"has {rows} rows, none for the token <parcel>, <refund> of" in finding.message
    assert "resize_token_embeddings" in finding.fix
    (folder / "model.safetensors").write_bytes(b"torn")
    assert tokens_beyond_embedding(folder) == ([], 0)
