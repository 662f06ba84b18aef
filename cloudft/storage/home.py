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
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudft.errors import StoreError

DEFAULT_HOME = "~/.cloudft"


@dataclass(frozen=True)
class Home:
    """The folders below CLOUDFT_HOME. Nothing is created until something is written."""

    path: Path
    model_cache: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Home:
        """CLOUDFT_HOME or ~/.cloudft; CLOUDFT_MODEL_CACHE moves the model cache elsewhere.

        A variable that is empty counts as unset, and `~` is the user's home. Raise StoreError for
        a path that can be no folder: what can't be read must not look like a home without jobs.
        """
        environ = os.environ if environ is None else environ
        path = _path_from_variable("CLOUDFT_HOME", environ.get("CLOUDFT_HOME") or DEFAULT_HOME)
        models = environ.get("CLOUDFT_MODEL_CACHE")
        return cls(
            path, str(_path_from_variable("CLOUDFT_MODEL_CACHE", models)) if models else None
        )

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.path / "jobs"

    @property
    def base_models(self) -> Path:
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
        if self.model_cache:
            return Path(self.model_cache)
        return self.path / "models"


def _path_from_variable(variable: str, given: str) -> Path:
    """The folder that a variable names, which need not be there yet. Raise StoreError."""
    try:
        path = Path(given).expanduser()
        why = _unusable_reason(path)
    except RuntimeError:
        path, why = Path(given), "there is no such user"
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or error).lower()
    if why is None:
        return path
    fix = f"set {variable} to a folder of your own, by its absolute path."
    raise StoreError(f"{variable} can't be used: {why}", file=str(path), fix=fix)


def _unusable_reason(path: Path) -> str | None:
    """Why a path can be no home, if so. Raise OSError."""
    if not path.is_absolute():
        return "a relative path is another folder in each place that cloudft is called from"
    nearest = path
    while True:
        try:
            mode = nearest.stat().st_mode
            break
        except (FileNotFoundError, NotADirectoryError):
            if nearest.is_symlink():
                return f"{nearest} is a link to what is not there"
            nearest = nearest.parent
    if not stat.S_ISDIR(mode):
        return f"{nearest} is a file where a folder should be"
    if not os.access(nearest, os.R_OK | os.X_OK):
        return f"you may not read {nearest}"
    return None
