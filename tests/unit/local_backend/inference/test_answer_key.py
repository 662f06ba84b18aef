"""Answers are cached under all that makes them: a key changes with each of its parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_run import TrainerRun

from local_backend.inference import answer_key
from local_backend.inference.generate import report_identities
from local_backend.inference.model_variants import ModelVariants
from local_backend.job_dir import ARTIFACTS, MODEL, JobDir
from local_backend.settings import read_settings

Edit = Callable[[Path], Any]


def reported(job: Path) -> dict[str, tuple[str, str]]:
    """Return the identity and the answer key of each variant."""
    job_dir = JobDir(job)
    replies = report_identities(ModelVariants(job_dir, read_settings(job_dir)), {})
    return {str(r["variant"]): (str(r["identity"]), str(r["answerKey"])) for r in replies}


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_template(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    edit_json(path, chat_template=json.loads(path.read_text())["chat_template"] + "{# other #}")


@pytest.mark.parametrize(
    "edit",
    [
        edit_template,
        lambda folder: edit_json(folder / "tokenizer_config.json", eos_token="Lyon"),
    ],
    ids=["template", "end token"],
)
def test_equal_weights_with_another_tokenizer_are_other_answers(
    tuned: TrainerRun, tmp_path: Path, edit: Edit
) -> None:
    job = tmp_path / "job"
    shutil.copytree(tuned.path, job)
    before = reported(tuned.path)
    assert reported(job) == before  # wherever the folder is
    edit(job / ARTIFACTS / MODEL)
    after = reported(job)
    for variant in ("base", "tuned"):
        assert after[variant][0] == before[variant][0]
        assert after[variant][1] != before[variant][1]


def test_each_part_of_what_runs_a_model_is_in_the_key(
    tuned: TrainerRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = JobDir(tuned.path)
    loaded = ModelVariants(job_dir, read_settings(job_dir)).base

    def key() -> str:
        return answer_key.compute_answer_key(loaded, "weights")

    keys = [key()]
    loaded.tokenizer(["a", "b c"], padding=True, truncation=True, max_length=2)
    assert key() == keys[0]  # what a call leaves in the tokenizer decides nothing
    loaded.stop_ids = [*loaded.stop_ids, 5]
    keys.append(key())
    loaded.model.generation_config.repetition_penalty = 1.5
    keys.append(key())
    loaded.model.config.max_position_embeddings -= 1
    keys.append(key())
    loaded.tokenizer.add_tokens(["<new>"])
    keys.append(key())
    monkeypatch.setattr(answer_key.metadata, "version", lambda name: "0.0")
    keys.append(key())
    monkeypatch.setattr(answer_key, "hash_code", lambda: "other code")
    keys.append(key())
    assert len(set(keys)) == len(keys)
