"""The file that an evaluation leaves in the job's folder, and the newest of them.

CLOUDFT_HOME/jobs/ID/evaluations/TIME-DIGEST.json
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from cloudft.errors import JobStateConflict
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.storage.documents import Count, decode
from cloudft.storage.store import as_damaged_job

EVALUATIONS_FOLDER = "evaluations"
FORMAT_VERSION = 1
LANGUAGE_MODELING_TASK = "language-modelling"
"""The task whose records have no answers."""


def save_evaluation(job_folder: Path, value: Mapping[str, Any]) -> Path:
    """Write an evaluation down; returns its file. Raises StoreError."""
    time = str(value["createdAt"]).replace(":", "").replace("+0000", "Z")
    path = job_folder / EVALUATIONS_FOLDER / f"{time}-{value['data']['sha256'][:8]}.json"
    with as_store_error("the evaluation can't be written down", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, orjson.dumps(value, option=orjson.OPT_INDENT_2))
    return path


def load_newest_evaluation(job_folder: Path) -> dict[str, Any]:
    """The job's last evaluation, its records included.

    Raises JobStateConflict when there is none, DamagedJob for one that can't be read.
    """
    files = sorted((job_folder / EVALUATIONS_FOLDER).glob("*.json"))
    if not files:
        raise JobStateConflict(
            f"{job_folder.name} was not evaluated yet",
            fix=f"cloudft evaluate {job_folder.name}",
        )
    return load_evaluation(files[-1])


class HeadlineScore(msgspec.Struct):
    """The metric that decides an evaluation, and its value for base and tuned model."""

    metric: str
    base: dict[str, float | None]
    tuned: dict[str, float | None]


def load_newest_score(job_folder: Path) -> HeadlineScore | None:
    """Return the score of the job's newest evaluation, without its records.

    Return None when there is no evaluation, or one that can't be read.
    """
    files = sorted((job_folder / EVALUATIONS_FOLDER).glob("*.json"))
    try:
        return msgspec.json.decode(files[-1].read_bytes(), type=HeadlineScore) if files else None
    except (OSError, msgspec.DecodeError):
        return None


def load_evaluation(path: Path) -> dict[str, Any]:
    """One evaluation, whole. Raises DamagedJob when it can't be read, or is of another version."""
    with as_damaged_job(path, path.parent.parent.name):
        content = path.read_bytes()
        decode(content, _Evaluation, file=path, versions=(FORMAT_VERSION,))
        value: dict[str, Any] = orjson.loads(content)
    return value


class _Delta(msgspec.Struct):
    value: float | None
    low: float | None
    high: float | None


class _Effect(msgspec.Struct):
    name: str
    value: float | None


class _Significance(msgspec.Struct, rename="camel"):
    test: str
    p_value: float
    effect: _Effect
    fixed: int | None
    broken: int | None
    verdict: str
    sentence: str


class _Confusion(msgspec.Struct):
    labels: list[str]
    base: list[list[Count]]
    tuned: list[list[Count]]

    def __post_init__(self) -> None:
        if any(len(rows) > len(self.labels) for rows in (self.base, self.tuned)):
            raise ValueError("there are more rows than labels")


class _Slice(msgspec.Struct):
    by: str
    value: str
    n: Count
    base: float | None
    tuned: float | None
    delta: _Delta


class _Suite(msgspec.Struct):
    suite: str
    figure: str
    n: Count
    base: float | None
    tuned: float | None
    delta: _Delta


class _Pitfall(msgspec.Struct):
    level: Literal["good", "warning", "bad"]
    sentence: str


class _Warning(msgspec.Struct):
    code: str
    message: str


class _Data(msgspec.Struct):
    sha256: str
    role: str
    files: list[str] = []


class _Side(msgspec.Struct):
    score: float
    text: str | None = None


class _Record(msgspec.Struct):
    key: str
    file: str
    line: int
    prompt: str
    reference: str
    base: _Side
    tuned: _Side


class _Evaluation(msgspec.Struct):
    """What `compare`, `report` and `review` rely on."""

    job: str
    task: str
    n: Count
    metric: str
    data: _Data
    base: dict[str, float | None]
    tuned: dict[str, float | None]
    delta: dict[str, _Delta]
    significance: _Significance
    slices: list[_Slice]
    records: list[_Record]
    warnings: list[_Warning]
    labels: list[str] | None = None
    confusion: _Confusion | None = None
    pitfalls: dict[str, _Pitfall] = {}
    suites: list[_Suite] = []
    identities: dict[str, str | None] | None = None

    def __post_init__(self) -> None:
        missing = ({self.metric} | set(self.base)) - (set(self.tuned) & set(self.delta))
        if missing:
            raise ValueError(f"there are no figures for {min(missing)[:40]}")
        sides = (side for record in self.records for side in (record.base, record.tuned))
        if self.task != LANGUAGE_MODELING_TASK and any(side.text is None for side in sides):
            raise ValueError("a record lacks an answer's text")
