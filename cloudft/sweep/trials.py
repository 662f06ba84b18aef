"""Recognize the jobs that are trials of a sweep, for lists that leave them out."""

from __future__ import annotations

from collections.abc import Mapping

from cloudft.storage.home import Home

SWEEP_TAG, TRIAL_TAG = "sweep", "trial"
"""Tags of a trial's job: the sweep, and the trial's number."""


def sweep_of(tags: Mapping[str, str], home: Home) -> str | None:
    """Return the sweep that a job with these tags is a trial of, if that is still there."""
    name = tags.get(SWEEP_TAG, "")
    is_name = bool(name) and "/" not in name and name not in (".", "..")
    is_sweep = is_name and TRIAL_TAG in tags and (home.sweeps / name).is_dir()
    return name if is_sweep else None


def is_trial(tags: Mapping[str, str], home: Home) -> bool:
    """Return whether a job with these tags is a trial of a sweep that is still there."""
    return sweep_of(tags, home) is not None
