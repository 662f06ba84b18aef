"""Make up labeling projects, suggestions and events."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cloudft.labeling.events import LabelEvent
from cloudft.labeling.project import LabelProject, create_project
from cloudft.labeling.settings import ProjectSettings
from cloudft.labeling.suggestions import Suggestion
from cloudft.storage.store import utc_now

LABELS = ("billing", "delivery", "returns")
_ids = itertools.count()


def write_records(path: Path, records: Iterable[Mapping[str, Any]], mode: str = "w") -> Path:
    """Write or append one JSON object a line."""
    with path.open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


def tickets(count: int, answer: str | None = None) -> list[dict[str, str]]:
    """Return `count` records that resemble each other little.

    `answer` is that of each; "" stands for the labels in turn, None for no answer.
    """
    words = ("parcel", "invoice", "refund", "shoe", "courier", "login", "app", "card", "door")
    return [
        {
            "prompt": f"Ticket {chr(97 + n % 26)}{n}: "
            + " ".join(words[(n * k + k) % len(words)] + str((n * 7 + k) % 97) for k in range(9)),
            **({} if answer is None else {"completion": answer or LABELS[n % len(LABELS)]}),
        }
        for n in range(count)
    ]


def make_project(
    root: Path, records: Iterable[Mapping[str, Any]], name: str = "tickets", **settings: Any
) -> LabelProject:
    """Create a project of these records in the home `root`."""
    root.mkdir(parents=True, exist_ok=True)
    file = write_records(root / f"{name}.jsonl", records)
    given = {"kind": "labels", "labels": LABELS, "random_share": 0.0, "overlap_share": 0.0}
    return create_project(
        root / "labels", ProjectSettings(name=name, files=(str(file),), **(given | settings))
    )


def suggest(project: LabelProject, key: str, *shares: float, base: str | None = None) -> Suggestion:
    """Return a suggestion with these shares of the project's labels."""
    best = shares.index(max(shares))
    return Suggestion(key, "m" * 64, project.settings.labels[best], shares[best], shares, base)


def event(key: str, label: str = "", action: str = "label", **more: Any) -> LabelEvent:
    """Return an event of now with an id of its own."""
    values = {"id": f"e{next(_ids)}", "at": utc_now(), "seconds": 2.0} | more
    return LabelEvent(key=key, action=action, label=label, **values)  # type: ignore[arg-type]
