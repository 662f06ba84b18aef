"""Weights & Biases: one run a job, with a row for each step of a curve.

wandb drops a row whose number is not above the last one, and leaves the newest row open for more
values. So rows are numbered as in the job's curve, which makes a row that is sent again no second
one, and the step is a value of its own that charts are drawn over (`define_metric`).

Offline, the run's file is written again from the curve each time it is opened: wandb keeps what it
got in memory for some 15 seconds, and a kill loses that. Online, the run's last row at the service
says where to go on, and `wandb.sent` what the rows before it were.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_SILENT", "true")

import orjson
import wandb

from cloudft.tracking.curve import Point, PointKey, row_of
from cloudft.tracking.sink import Outcome, RunFacts, Settings

SENT_FILE = "wandb.sent"
STEP = "step"
INIT_TIMEOUT_S = 60


def make(settings: Settings, folder: Path) -> WandbSink:
    """Return the sink for the settings of a job."""
    return WandbSink(settings, folder)


class WandbSink:
    """The run of one job in one project."""

    flush_seconds = 5.0

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._run: Any = None
        self._facts: RunFacts | None = None
        self._sent = SentRows(folder / SENT_FILE)

    @property
    def is_offline(self) -> bool:
        """Return whether the run is written to this machine alone."""
        return str(self._settings["mode"]) == "offline"

    @property
    def url(self) -> str | None:
        """Return the page of the run, or the folder for `wandb sync`."""
        if self._run is None:
            return None
        if self.is_offline:
            return str(Path(self._run.dir).parent)
        return str(self._run.url)

    def open(self, facts: RunFacts) -> Mapping[PointKey, float]:
        """Open the run; return the values of the rows that the service has, none offline."""
        self._facts = facts
        if self.is_offline:
            self._remove_offline_files()
            self._sent.clear(0)
            self._start()
            return {}
        self._sent.load()
        self._start()
        self._sent.keep(int(self._run.step))
        return self._sent.values()

    def _remove_offline_files(self) -> None:
        """Remove offline runs of this job that were not synced: this one has all of them."""
        for run in (self._folder / "wandb").glob(f"offline-run-*-{self._run_id}"):
            if not list(run.glob("*.synced")):
                shutil.rmtree(run, ignore_errors=True)

    @property
    def _run_id(self) -> str:
        assert self._facts is not None, "open comes first"
        again = self._sent.generation
        return f"{self._facts.job_id}-r{again + 1}" if again else self._facts.job_id

    def _start(self) -> None:
        assert self._facts is not None
        self._run = wandb.init(
            project=self._settings["project"],
            entity=self._settings.get("entity"),
            mode=self._settings["mode"],
            id=self._run_id,
            name=self._facts.job_id,
            group=self._facts.job_name,
            resume=None if self.is_offline else "allow",
            dir=self._folder,
            config={**self._facts.parameters, **self._facts.tags},
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                disable_code=True,
                init_timeout=INIT_TIMEOUT_S,
                silent=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )
        self._run.define_metric("*", step_metric=STEP)

    def begin_again(self) -> None:
        """Begin another run of the same name; the one before stays, as its deletion is final."""
        if not self.is_offline:
            self._run.summary["replaced"] = True
        self._run.finish()
        if self.is_offline:
            self._remove_offline_files()
            self._sent.clear(0)
        else:
            self._sent.clear(self._sent.generation + 1)
        self._start()

    def log_points(self, points: Sequence[Point]) -> None:
        """Log a row for each step of a curve, numbered from 0."""
        for (step, _), of_row in groupby(points, key=row_of):
            values = {point.name: point.value for point in of_row}
            # Noted first: a row that is noted and not sent is seen at the next `open`.
            number = self._sent.append(step, values)
            self._run.log({STEP: step, **values}, step=number)

    def finish(self, outcome: Outcome) -> None:
        """Write config, summary and files, and end the run."""
        gaps = {f"not_finite.{k}": " ".join(map(str, v)) for k, v in outcome.not_finite.items()}
        self._run.config.update({**outcome.tags, **gaps}, allow_val_change=True)
        for file in outcome.files:
            self._run.save(str(file), base_path=str(file.parent), policy="now")
        if outcome.evaluation is not None:
            figures, notes = outcome.evaluation.figures, outcome.evaluation.notes
            self._run.summary.update({f"evaluation/{k}": v for k, v in figures.items()})
            self._run.summary.update({f"evaluation/{k}": v for k, v in notes.items()})
        self._run.finish(exit_code=0 if outcome.status == "Completed" else 1)

    def close(self) -> None:
        """End the run where it is open."""
        if self._run is not None:
            self._run.finish()


class SentRows:
    """The rows that were sent, as JSON lines; the first line counts the runs begun again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._rows: list[tuple[int, dict[str, float]]] = []

    def load(self) -> None:
        """Read the rows; a last line that a kill cut off is left out."""
        try:
            first, *lines = self.path.read_bytes().splitlines(keepends=True)
        except (FileNotFoundError, ValueError):
            return
        self.generation = int(first)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._rows = [(row[0], row[1]) for row in map(orjson.loads, whole)]

    def clear(self, generation: int) -> None:
        """Begin without rows."""
        self.generation, self._rows = generation, []
        self.path.write_bytes(b"%d\n" % generation)

    def keep(self, count: int) -> None:
        """Forget the rows from `count` on: the service does not have them."""
        kept = self._rows[:count]
        self.clear(self.generation)
        for step, values in kept:
            self.append(step, values)

    def append(self, step: int, values: dict[str, float]) -> int:
        """Note a row; return its number."""
        self._rows.append((step, values))
        with self.path.open("ab") as file:
            file.write(orjson.dumps([step, values]) + b"\n")
        return len(self._rows) - 1

    def values(self) -> dict[PointKey, float]:
        """Return the values of all rows."""
        return {(name, step): v for step, row in self._rows for name, v in row.items()}
