"""Trackio: one run a job, with one row for each step of a curve.

Its `Run.log` queues values in threads of its own, says nothing of those that it could not send, and
makes two rows of a step given twice. So rows are sent by the call below it, which returns when they
are stored, and each has an id made of its content: given again, it is the same row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from trackio import RemoteClient, SQLiteStorage

from cloudft.tracking.curve import Point, PointKey, row_of
from cloudft.tracking.sink import Outcome, RunFacts, Settings, TrackerFailed

BATCH_ROWS = 1000
TIMEOUT_S = 20.0
QUERY_ROWS = 500
EVALUATION = "evaluation/"


class Store(Protocol):
    """Where runs are: the files on this machine, or a server."""

    def read_rows(self, job_id: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield step and values of each row of a run."""

    def delete(self, job_id: str) -> None:
        """Remove a run, if it is there."""

    def write(self, job_id: str, rows: Sequence[Row], config: Mapping[str, Any]) -> None:
        """Store rows; one of a known id is the same row."""


class Row:
    """The values of one step, their time, and an id that follows from them."""

    def __init__(self, job_id: str, step: int, values: Mapping[str, float], time: float) -> None:
        self.step, self.values = step, dict(values)
        self.timestamp = datetime.fromtimestamp(time, timezone.utc).isoformat()
        content = repr((job_id, step, sorted(self.values.items())))
        self.log_id = f"cloudft-{hashlib.sha256(content.encode()).hexdigest()[:32]}"


def make(settings: Settings, folder: Path) -> TrackioSink:
    """Return the sink for the settings of a job. Raise TrackerFailed."""
    url = settings.get("server_url")
    if url is None:
        return TrackioSink(LocalStore(settings["project"]), None)
    token = os.environ.get("TRACKIO_WRITE_TOKEN")
    if not token:
        fix = "set TRACKIO_WRITE_TOKEN to the write_token of the address that `trackio show` prints"
        raise TrackerFailed("the server needs a write token", fix=fix)
    return TrackioSink(ServerStore(settings["project"], url, token), url)


class TrackioSink:
    """The run of one job in one project."""

    flush_seconds = 2.0

    def __init__(self, store: Store, url: str | None) -> None:
        self._store = store
        self._facts: RunFacts | None = None
        self._url = url

    @property
    def url(self) -> str | None:
        """Return the server."""
        return self._url

    @property
    def _job_id(self) -> str:
        assert self._facts is not None, "open comes first"
        return self._facts.job_id

    def open(self, facts: RunFacts) -> Mapping[PointKey, float]:
        """Return the values of the run's rows. The run is created by its first row."""
        self._facts = facts
        return {
            (name, step): float(value)
            for step, values in self._store.read_rows(facts.job_id)
            for name, value in values.items()
            if isinstance(value, (int, float)) and not name.startswith(EVALUATION)
        }

    def begin_again(self) -> None:
        """Remove the run's rows."""
        self._store.delete(self._job_id)

    def log_points(self, points: Sequence[Point]) -> None:
        """Store a row for each step of a curve."""
        ordered = sorted(points, key=row_of)  # stable: within a row as they are
        rows = [
            _make_row(self._job_id, step, list(of_row))
            for (step, _), of_row in groupby(ordered, key=row_of)
        ]
        self._write(rows)

    def _write(self, rows: Sequence[Row], end: Mapping[str, str] | None = None) -> None:
        assert self._facts is not None
        config = {**self._facts.parameters, **self._facts.tags, **(end or {})}
        for start in range(0, len(rows), BATCH_ROWS):
            self._store.write(self._job_id, rows[start : start + BATCH_ROWS], config)

    def finish(self, outcome: Outcome) -> None:
        """Store the evaluation as a row of the last step, and the end in the run's settings."""
        gaps = {f"not_finite.{k}": " ".join(map(str, v)) for k, v in outcome.not_finite.items()}
        rows = list[Row]()
        notes: Mapping[str, str] = {}
        evaluation = outcome.evaluation
        if evaluation is not None:
            notes = {f"evaluation.{k}": v for k, v in evaluation.notes.items()}
            figures = {f"{EVALUATION}{k}": v for k, v in evaluation.figures.items()}
            rows = [Row(self._job_id, evaluation.step, figures, evaluation.time)]
        # The settings of a run come with a row: of a job without an evaluation, with a known one.
        known = next(self._store.read_rows(self._job_id), None)
        if not rows and known is not None:
            rows = [Row(self._job_id, known[0], known[1], 0.0)]
        self._write(rows, {**outcome.tags, **gaps, **notes})

    def close(self) -> None:
        """Do nothing: every call has stored its rows."""


def _make_row(job_id: str, step: int, points: Sequence[Point]) -> Row:
    return Row(job_id, step, {p.name: p.value for p in points}, points[0].time)


class LocalStore:
    """Trackio's files on this machine (TRACKIO_DIR)."""

    def __init__(self, project: str) -> None:
        self.project = project

    def read_rows(self, job_id: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield step and values of each row, all of them."""
        for row in SQLiteStorage.get_logs(self.project, job_id, run_id=job_id):
            yield row["step"], {k: v for k, v in row.items() if k not in ("step", "timestamp")}

    def delete(self, job_id: str) -> None:
        """Remove a run."""
        SQLiteStorage.delete_run(self.project, job_id, run_id=job_id)

    def write(self, job_id: str, rows: Sequence[Row], config: Mapping[str, Any]) -> None:
        """Store rows in one transaction."""
        SQLiteStorage.bulk_log(
            self.project,
            job_id,
            [row.values for row in rows],
            steps=[row.step for row in rows],
            timestamps=[row.timestamp for row in rows],
            config=dict(config),
            log_ids=[row.log_id for row in rows],
            run_id=job_id,
        )


class ServerStore:
    """A Trackio server, by its HTTP interface."""

    def __init__(self, project: str, url: str, token: str) -> None:
        self.project, self.url, self.token = project, url, token
        self._client: Any = None

    def _call(self, name: str, **arguments: object) -> Any:
        if self._client is None:  # it calls the server when it is made
            self._client = RemoteClient(
                self.url,
                hf_token=None,
                write_token=self.token,
                verbose=False,
                httpx_kwargs={"timeout": TIMEOUT_S},
            )
        return self._client.predict(api_name=f"/{name}", **arguments)

    def read_rows(self, job_id: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield step and values of each row: of its readable calls, a query alone thins none."""
        if self.project not in self._call("get_all_projects"):
            return
        last = 0
        while True:
            query = (
                "SELECT id, step, metrics FROM metrics WHERE run_id ="
                f" '{job_id}' AND id > {last} ORDER BY id LIMIT {QUERY_ROWS}"
            )
            rows = self._call("query_project", project=self.project, query=query)["rows"]
            for row in rows:
                yield row["step"], _as_values(row["metrics"])
                last = row["id"]
            if len(rows) < QUERY_ROWS:
                return

    def delete(self, job_id: str) -> None:
        """Remove a run."""
        self._call("delete_run", project=self.project, run=job_id, run_id=job_id)

    def write(self, job_id: str, rows: Sequence[Row], config: Mapping[str, Any]) -> None:
        """Store rows by one request."""
        logs = [
            {
                "project": self.project,
                "run": job_id,
                "run_id": job_id,
                "metrics": row.values,
                "step": row.step,
                "config": dict(config),
                "log_id": row.log_id,
            }
            for row in rows
        ]
        self._call("bulk_log", logs=logs, hf_token=None)


def _as_values(stored: object) -> Mapping[str, Any]:
    """Return the values of a row, which a query gives as JSON."""
    import json

    if isinstance(stored, Mapping):
        return stored
    values: Mapping[str, Any] = json.loads(str(stored))
    return values
