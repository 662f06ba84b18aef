"""What the models of several jobs are called by requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cloudft.storage.store import JobRecord


def name_models(records: Sequence[JobRecord]) -> tuple[dict[str, str], str]:
    """Return the name of each job's tuned model by the job's id, and the name of their base.

    A job is called by its name, or by its id where another model has that name. The base is called
    as in the job file; by the last part of its path where it is a folder.
    """
    base = records[0].base_model
    if Path(base).is_absolute():
        base = Path(base).name
    counts = Counter([base, *(record.name for record in records)])
    names = {r.id: r.name if counts[r.name] == 1 else r.id for r in records}
    return names, base
