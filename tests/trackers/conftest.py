"""Local servers of MLflow and Trackio for the tests, which run in the trackers' own environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

# Before the trackers are imported: nothing of the caller's accounts and settings is used.
for name in list(os.environ):
    if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_", "HF_", "CLOUDFT_", "AWS_")):
        del os.environ[name]
os.environ["DO_NOT_TRACK"] = "true"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CLOUDFT_HOME and a HOME for each test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("CLOUDFT_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder
