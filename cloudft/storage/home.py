"""CLOUDFT_HOME: the folder in which cloudft keeps its state.

    jobs/       one folder a job (store.py)
    submitted/  the ids of the jobs that were submitted from this machine (ledger.py)
    staged/     staged data, named by its digest (data/staging); may be removed at any time
    bases/      base models that answer prompts, each as the folder of a job that is never trained
    answers/    answers of models, by their identity (evaluate/inference); may be removed
    reviews/    people's judgments, one folder a review (evaluate/human_review)
    labels/     records that people label, one folder a project (labeling)
    sweeps/     searches of hyperparameters, one folder each (sweep/folder.py)
    cases/      prompts that are sent to models again and again, one file a set (jobs/case_sets.py)
    openai/     the Regions in which Bedrock's OpenAI-compatible API was used, an empty file each
    servings/   deployments that are being created (backends/bedrock/deployment_attempts.py)
    prices.yaml prices that a person states (catalogue/stated_prices.py)
    models/     converted weights, kept tokenizers and compiled kernels (the trainer's cache); may
                be removed any time
    tokens/     tokens of staged data (the trainer's, too); may be removed any time
    data/       where lines begin in large files, and surveys of data (the workbench's); may be
                removed any time

A folder is created when something is first written to it.
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
        """Return the home that CLOUDFT_HOME names, or ~/.cloudft.

        CLOUDFT_MODEL_CACHE moves the model cache elsewhere. An empty variable counts as unset, and
        `~` is the user's home. Raise StoreError for a path that can't be a folder: an unreadable
        home must not look like a home without jobs.
        """
        environ = os.environ if environ is None else environ
        path = _path_from_variable("CLOUDFT_HOME", environ.get("CLOUDFT_HOME") or DEFAULT_HOME)
        models = environ.get("CLOUDFT_MODEL_CACHE")
        return cls(
            path, str(_path_from_variable("CLOUDFT_MODEL_CACHE", models)) if models else None
        )

    @property
    def jobs(self) -> Path:
        """Return the folder of the jobs' folders."""
        return self.path / "jobs"

    @property
    def base_models(self) -> Path:
        """Return the folder of base models that answer prompts, one folder each."""
        return self.path / "bases"

    @property
    def staged(self) -> Path:
        """Return the folder of staged data, content-addressed."""
        return self.path / "staged"

    @property
    def answers(self) -> Path:
        """Return the folder of models' answers, by model."""
        return self.path / "answers"

    @property
    def reviews(self) -> Path:
        """Return the folder of judgments, one folder a review."""
        return self.path / "reviews"

    @property
    def labels(self) -> Path:
        """Return the folder of labeling projects, one folder each."""
        return self.path / "labels"

    @property
    def sweeps(self) -> Path:
        """Return the folder of searches of hyperparameters, one folder each."""
        return self.path / "sweeps"

    @property
    def cases(self) -> Path:
        """Return the folder of test cases, one JSONL file a set."""
        return self.path / "cases"

    @property
    def servings(self) -> Path:
        """Return the folder of deployments that are being created, one file each."""
        return self.path / "servings"

    @property
    def prices(self) -> Path:
        """Return the file of prices that a person states."""
        return self.path / "prices.yaml"

    @property
    def tokens(self) -> Path:
        """Return the folder of kept tokens, one folder each (storage/kept_tokens.py)."""
        return self.path / "tokens"

    @property
    def data(self) -> Path:
        """Return the folder of what the workbench keeps of data files."""
        return self.path / "data"

    @property
    def models(self) -> Path:
        """Return the folder of converted model weights."""
        if self.model_cache:
            return Path(self.model_cache)
        return self.path / "models"


def _path_from_variable(variable: str, value: str) -> Path:
    """Return the folder that a variable names; it need not exist yet. Raise StoreError."""
    try:
        path = Path(value).expanduser()
        why = _unusable_reason(path)
    except RuntimeError:
        path, why = Path(value), "there is no such user"
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or error).lower()
    if why is None:
        return path
    fix = f"set {variable} to a folder of your own, by its absolute path."
    raise StoreError(f"{variable} can't be used: {why}", file=str(path), fix=fix)


def _unusable_reason(path: Path) -> str | None:
    """Return why a path can't be a home, or None. Raise OSError."""
    if not path.is_absolute():
        return "a relative path depends on the folder that cloudft is called from"
    nearest = path
    while True:
        try:
            mode = nearest.stat().st_mode
            break
        except (FileNotFoundError, NotADirectoryError):
            if nearest.is_symlink():
                return f"{nearest} is a link to a missing file"
            nearest = nearest.parent
    if not stat.S_ISDIR(mode):
        return f"{nearest} is a file, not a folder"
    if not os.access(nearest, os.R_OK | os.X_OK):
        return f"you may not read {nearest}"
    return None
