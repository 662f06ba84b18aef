"""Make a home with a trained job whose models never stop talking by themselves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import preloaded
import tiny
from job_files import write_job_file

CONTEXT = 4096
"""Tokens of context: an answer that fills it takes seconds, and can be stopped meanwhile."""


def make_home(folder: Path, *names: str, context: int = CONTEXT) -> Path:
    """Train a tiny job of each name, and return the home that they are in."""
    model = build_endless_model(folder / "model", context=context)
    home = folder / "home"
    for name in names:
        path = write_job_file(
            folder / name, model, name=name, hyperparameters={"epochCount": 12, "batchSize": 8}
        )
        subprocess.run(
            [
                *(preloaded.interpreter_path(), "-m", "cloudft"),
                *("submit", str(path), "--wait", "--quiet"),
            ],
            env=os.environ | {"CLOUDFT_HOME": str(home)},
            check=True,
            capture_output=True,
        )
    return home


def build_endless_model(folder: Path, context: int = CONTEXT) -> Path:
    """Build a tiny model whose answers are as long as they may be."""
    model = tiny.build_model(folder, context=context)
    never_end(model)
    return model


def never_end(model: Path) -> None:
    """Give the end token the logit 0: among hundreds of random ones it is never the largest."""
    from safetensors.torch import load_file, save_file

    path = model / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"][tiny.build_tokenizer().eos_token_id] = 0
    save_file(weights, path, metadata={"format": "pt"})
