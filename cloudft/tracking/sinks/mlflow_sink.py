"""MLflow: one run a job, found by its tag, with each step once.

A value that MLflow has already, with the same step, time and value, is the same row there. What the
run has is read from the server, so nothing is lost with this machine. A metric's history can't be
changed: a run whose values are not the job's any more is deleted (MLflow can restore it) and the
job gets another run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient

from cloudft.tracking.curve import Point, PointKey
from cloudft.tracking.sink import Outcome, RunFacts, Settings, TrackerFailed

JOB_TAG = "cloudft.job_id"
SOURCE_TAGS = {"mlflow.source.name": "cloudft", "mlflow.source.type": "JOB"}
BATCH_METRICS, BATCH_PARAMETERS, MAX_PARAMETER = 1000, 100, 6000
"""Limits of one `log_batch` (MLflow's REST API)."""
MAX_TAG = 5000
STATUSES = {"Completed": "FINISHED", "Failed": "FAILED", "Stopped": "KILLED"}
ItemT = TypeVar("ItemT")


def make(settings: Settings, folder: Path) -> MlflowSink:
    """Return the sink for the settings of a job. Raise TrackerFailed."""
    uri = settings.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        fix = "set tracking.mlflow.tracking_uri in the job file, or MLFLOW_TRACKING_URI"
        raise TrackerFailed("no address of MLflow is known", fix=fix)
    return MlflowSink(uri, settings["experiment"], settings.get("run_name"))


class MlflowSink:
    """The run of one job in one experiment."""

    flush_seconds = 5.0

    def __init__(self, uri: str, experiment: str, run_name: str | None) -> None:
        self.uri, self.experiment, self.run_name = uri, experiment, run_name
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment_id = ""
        self._run_id = ""
        self._facts: RunFacts | None = None

    @property
    def url(self) -> str | None:
        """Return the page of the run, of a server."""
        if not self._run_id or not self.uri.startswith("http"):
            return None
        return f"{self.uri}/#/experiments/{self._experiment_id}/runs/{self._run_id}"

    def open(self, facts: RunFacts) -> Mapping[PointKey, float]:
        """Find the run by the job's tag or create it; return the values of its histories."""
        self._facts = facts
        self._experiment_id = self._find_experiment()
        found = self._client.search_runs(
            [self._experiment_id],
            filter_string=f"tags.`{JOB_TAG}` = '{facts.job_id}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        if not found:
            self._create_run()
            return {}
        run = found[0]
        self._run_id = run.info.run_id
        if run.info.status != "RUNNING":
            self._client.update_run(self._run_id, status="RUNNING")
        self._log_facts()  # a kill may have come between the run and its parameters
        return {
            (name, metric.step): metric.value
            for name in run.data.metrics
            if not name.startswith("evaluation/")
            for metric in self._history(name)
        }

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            if found.lifecycle_stage != "active":
                fix = f"restore the experiment {self.experiment} in MLflow, or name another one"
                raise TrackerFailed(f"the experiment {self.experiment} is deleted", fix=fix)
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self.experiment))
        except (MlflowException, RestException):  # another job has just created it
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _history(self, name: str) -> Iterator[Metric]:
        """Yield every value of a metric. The public method reads all pages."""
        yield from self._client.get_metric_history(self._run_id, name)

    def _create_run(self) -> None:
        assert self._facts is not None
        run = self._client.create_run(
            self._experiment_id,
            start_time=int(self._facts.created_at * 1000),
            tags={JOB_TAG: self._facts.job_id, **SOURCE_TAGS},
            run_name=self.run_name or self._facts.job_id,
        )
        self._run_id = run.info.run_id
        self._log_facts()

    def _log_facts(self) -> None:
        assert self._facts is not None
        parameters = [Param(k, str(v)[:MAX_PARAMETER]) for k, v in self._facts.parameters.items()]
        for batch in _batches(parameters, BATCH_PARAMETERS):
            self._client.log_batch(self._run_id, params=batch, synchronous=True)
        self._log_tags(self._facts.tags)

    def _log_tags(self, tags: Mapping[str, str]) -> None:
        made = [RunTag(f"cloudft.{key}", value[:MAX_TAG]) for key, value in tags.items()]
        for batch in _batches(made, BATCH_PARAMETERS):
            self._client.log_batch(self._run_id, tags=batch, synchronous=True)

    def begin_again(self) -> None:
        """Delete the run, and create another one of the same name."""
        self._client.delete_run(self._run_id)
        self._create_run()

    def log_points(self, points: Sequence[Point]) -> None:
        """Send values in one request for a thousand of them."""
        metrics = [Metric(p.name, p.value, round(p.time * 1000), p.step) for p in points]
        for batch in _batches(metrics, BATCH_METRICS):
            self._client.log_batch(self._run_id, metrics=batch, synchronous=True)

    def finish(self, outcome: Outcome) -> None:
        """Write tags, files and the evaluation, and the end of the run."""
        gaps = {
            f"not_finite.{name}": " ".join(map(str, steps))
            for name, steps in outcome.not_finite.items()
        }
        self._log_tags({**outcome.tags, **gaps})
        for file in outcome.files:
            self._client.log_artifact(self._run_id, str(file))
        evaluation = outcome.evaluation
        if evaluation is not None:
            moment = round(evaluation.time * 1000)
            metrics = [
                Metric(f"evaluation/{k}", v, moment, evaluation.step)
                for k, v in evaluation.figures.items()
            ]
            self._client.log_batch(self._run_id, metrics=metrics, synchronous=True)
            self._log_tags({f"evaluation.{k}": v for k, v in evaluation.notes.items()})
        self._client.set_terminated(self._run_id, STATUSES[outcome.status])

    def close(self) -> None:
        """Do nothing: every request was answered."""


def _batches(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
