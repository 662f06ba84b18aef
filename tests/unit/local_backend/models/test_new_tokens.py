"""Tokens that were added to a tokenizer: without rows an error, with rows trained and exported."""

from __future__ import annotations

import shutil
from pathlib import Path

import tiny
from trainer_run import RunTrainer

from local_backend.export.export_model import export_model
from local_backend.export.options import ExportOptions
from local_backend.job_dir import JobDir


def test_new_tokens_need_rows_and_then_are_learned(
    train: RunTrainer, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<parcel>", "<refund>"])
    tokenizer.save_pretrained(folder)
    records = [tiny.pair(f"Which one is {n}?", "<parcel>") for n in range(8)]
    run = train(records, model=folder)
    assert run.status == "Failed"
    assert f"the token <parcel> (number {rows}), and the model's embedding has {rows}" in run.log
    assert "resize_token_embeddings" in run.log
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    run = train(records, model=folder, method="full", epochCount=10)
    assert run.status == "Completed", run.log
    proof = export_model(JobDir(run.path), tmp_path / "out", ExportOptions())
    assert proof["maxLogitDifference"] == 0 and proof["differsInOlderReaders"] == []
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    chat = [{"role": "user", "content": "Which one is 3?"}]
    ids = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert int(merged(**ids).logits[0, -1].argmax()) == rows
