"""`check` names layers that a model lacks, and tokens that its embedding lacks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import JobFile

from cloudft.backends.local.backend import LocalBackend
from cloudft.backends.local.embedding_rows import tokens_beyond_embedding
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.types import Finding


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
