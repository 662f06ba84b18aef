"""CLOUDFT_HOME: where cloudft keeps what it remembers.

jobs/     one folder a job (store.py)
submitted/  the ids of the jobs that were submitted from here (ledger.py)
staged/   staged data, named by its digest (data/stage.py); may be removed at any time
answers/  what models have answered, by their identity (evaluate/cache.py); may be removed
reviews/  people's judgements, one folder a review (evaluate/review.py)
servings/ what is being made to serve a model (backends/bedrock/attempts.py)
prices.yaml  prices that a person states (catalogue/stated.py)
models/   converted model weights (the trainer's cache); may be removed at any time
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The folders below CLOUDFT_HOME. Nothing is created until something is written."""

    path: Path
    environ_models: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Home:
        """CLOUDFT_HOME or ~/.cloudft; CLOUDFT_MODEL_CACHE moves the model cache elsewhere."""
        environ = os.environ if environ is None else environ
        path = Path(environ.get("CLOUDFT_HOME") or "~/.cloudft").expanduser().absolute()
        return cls(path, environ.get("CLOUDFT_MODEL_CACHE") or None)

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.path / "jobs"

    @property
    def bases(self) -> Path:
        """Base models that are asked, one folder each, written as jobs that are never trained."""
        return self.path / "bases"

    @property
    def staged(self) -> Path:
        """Staged data, content-addressed."""
        return self.path / "staged"

    @property
    def answers(self) -> Path:
        """Answers of models, by model."""
        return self.path / "answers"

    @property
    def reviews(self) -> Path:
        """Judgements, one folder a review."""
        return self.path / "reviews"

    @property
    def servings(self) -> Path:
        """What is being made to serve a model, one file each."""
        return self.path / "servings"

    @property
    def prices(self) -> Path:
        """Prices that a person states."""
        return self.path / "prices.yaml"

    @property
    def models(self) -> Path:
        """Converted model weights."""
        if self.environ_models:
            return Path(self.environ_models).expanduser().absolute()
        return self.path / "models"
