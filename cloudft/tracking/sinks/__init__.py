"""The trackers. A module is imported, and its library with it, in the process that feeds it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from cloudft.tracking.sink import Settings, Sink, TrackerFailed


def make_sink(tracker: str, settings: Settings, folder: Path) -> Sink:
    """Return the sink of a tracker. `folder` is for what it keeps on this machine.

    Raise TrackerFailed where its package is not installed.
    """
    try:
        module = import_module(f"cloudft.tracking.sinks.{tracker}_sink")
    except ImportError as error:
        raise TrackerFailed(
            f"could not be loaded: {error}", fix=f"pip install 'cloudft[{tracker}]'"
        ) from error
    sink: Sink = module.make(settings, folder)
    return sink
