"""Write the files of `cloudft init`: a job with sample data, or the file of an earlier job."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from cloudft.errors import UsageError
from cloudft.storage.atomic_files import as_store_error

FOLDERS = {
    "FINE_TUNING": "fine_tuning",
    "CONTINUED_PRE_TRAINING": "continued_pre_training",
    "DISTILLATION": "distillation",
    "REINFORCEMENT_FINE_TUNING": "reinforcement_fine_tuning",
    "PREFERENCE_OPTIMIZATION": "preference_optimization",
}
JOB_FILE = "cloudft.yaml"


def write_starter(customization_type: str, folder: Path) -> list[Path]:
    """Copy the starter job of that type into `folder`, and return the written files.

    Raise UsageError, before anything is written, when one of them exists.
    """
    with resources.as_file(resources.files(__name__) / FOLDERS[customization_type]) as source:
        files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
        if not files:
            raise RuntimeError(f"the package has no starter files in {source}")
        refuse_to_overwrite(folder, files)
        with as_store_error(f"{folder} can't be written", folder):
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
    return [folder / name for name in files]


def write_job_file(spec: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the job file of an earlier job into `folder`, and return its path.

    Raise UsageError when there is a job file already.
    """
    import yaml

    refuse_to_overwrite(folder, [Path(JOB_FILE)])
    with as_store_error(f"{folder} can't be written", folder):
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True)
        (folder / JOB_FILE).write_text(text, encoding="utf-8")
    return [folder / JOB_FILE]


def refuse_to_overwrite(folder: Path, names: list[Path]) -> None:
    """Raise UsageError when one of the files exists."""
    existing = [str(folder / name) for name in names if (folder / name).exists()]
    if existing:
        raise UsageError(
            f"{existing[0]} exists already; nothing was written",
            file=existing[0],
            fix="name another folder: cloudft init DIR",
        )
