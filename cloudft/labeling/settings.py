"""What a labeling project is about: its data, its labels, the job whose models suggest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cloudft.errors import UsageError
from cloudft.evaluate.human_review.review import REVIEWER_NAME
from cloudft.evaluate.metrics.tasks import detect_task
from cloudft.storage.documents import decode

VERSION = 1
PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_LABELS = 500
MAX_LABEL_LENGTH = 400

Kind = Literal["labels", "text", "check"]
"""Choose one of fixed labels; write an answer; or accept, edit or reject the record's answer."""
KINDS: dict[Kind, str] = {
    "labels": "choose one of fixed labels",
    "text": "write the answer, or edit the model's",
    "check": "accept, edit or reject the answer that the record has",
}
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ProjectSettings(msgspec.Struct, rename="camel", frozen=True):
    """The content of `project.json`.

    `files` are absolute paths. `random_share` of the records is drawn at random, whatever the
    models make of them; `overlap_share` is labeled by everybody.
    """

    name: str
    files: tuple[str, ...]
    kind: Kind
    labels: tuple[str, ...] = ()
    columns: dict[str, str] = {}
    job: str | None = None
    seed: int = 7
    random_share: Share = 0.1
    overlap_share: Share = 0.1
    created_at: str = ""
    version: int = VERSION


def read_settings(path: Path) -> ProjectSettings:
    """Return the settings in a file. Raise BadDocument, OSError."""
    return decode(path.read_bytes(), ProjectSettings, file=path, versions=(VERSION,))


def check_project_name(name: str) -> str:
    """Return the name. Raise UsageError for one that can't be a folder's."""
    if not PROJECT_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is not a name of a labeling project",
            fix="use 1 to 63 letters, digits, '.', '-' or '_', and begin with a letter or digit.",
        )
    return name


def check_person_name(name: str) -> str:
    """Return the name of somebody who labels. Raise UsageError for one that can't be a file's."""
    if not REVIEWER_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is not a valid name",
            fix="use 1 to 40 letters, digits, '.', '@', '-' or '_'.",
        )
    return name


def choose_labels(given: Sequence[str], answers: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of a project: those that are named, or else those of the data.

    Raise UsageError where there are fewer than two, or where a label can't be one.
    """
    labels = tuple(dict.fromkeys(label.strip() for label in given if label.strip()))
    if not labels and answers:
        labels = detect_task(answers).labels
    if not labels:
        raise UsageError(
            "the labels are not known: the records' answers are no labels, or they have none",
            fix="name the labels, or let people write answers (kind `text`).",
        )
    if len(labels) < 2 or len(labels) > MAX_LABELS:
        raise UsageError(
            f"a project has 2 to {MAX_LABELS} labels, not {len(labels)}", fix="name others."
        )
    too_long = next((label for label in labels if len(label) > MAX_LABEL_LENGTH), None)
    if too_long is not None:
        raise UsageError(
            f"the label {too_long[:40]!r}... has more than {MAX_LABEL_LENGTH} characters",
            fix="let people write answers instead (kind `text`).",
        )
    return labels
