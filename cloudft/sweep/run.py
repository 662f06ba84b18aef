"""Run a sweep: one trial after another, from one warm process, until its trials or minutes end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from cloudft.backends.local.job_folder import ARTIFACTS, CHECKPOINTS
from cloudft.errors import JobFailed
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.storage.home import Home
from cloudft.storage.store import Store, utc_now
from cloudft.sweep import result as results
from cloudft.sweep.folder import RESULT_FILE, STUDY_FILE, SweepFolder
from cloudft.sweep.importance import Importance, measure_importance
from cloudft.sweep.pruning import is_behind
from cloudft.sweep.records import OWN_VALUES, Outcome, TrialRecord, Value
from cloudft.sweep.result import SweepResult
from cloudft.sweep.space import point_key
from cloudft.sweep.study import Study
from cloudft.sweep.trial_job import TrialFactory, TrialRun, own_values

if TYPE_CHECKING:
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.sweep.job_section import SweepSpec

REMEASURE_EVERY = 4
"""Trials after which a running sweep measures the parameters' importance again."""
WRITE_EVERY_S = 0.5
"""Seconds between two results that differ only in how far the running trial is."""
MAX_FAILURES = 3
"""Failed trials in a row that end a sweep: something else is wrong than the values."""
MAX_DUPLICATES = 50
"""Points in a row that were tried before; then a sweep ends."""


class OutOfTime(Exception):
    """The budget's minutes are used up."""


@dataclass
class SweepEvents:
    """What a sweep calls: `on_start` before each run, `on_trial` after it."""

    on_trial: Callable[[TrialRecord, SweepResult], None] = lambda _record, _result: None
    on_start: Callable[[TrialRecord], None] = lambda _record: None


@dataclass
class Sweep:
    """One sweep of a staged job, which its folder's lock is held for."""

    factory: TrialFactory
    backend: LocalBackend
    home: Home
    folder: SweepFolder
    options: SweepSpec
    events: SweepEvents = field(default_factory=SweepEvents)
    keep_all: bool = False
    clock: Callable[[], float] = time.monotonic
    _status: results.Status = "running"
    _created_at: str = ""
    _current: TrialRecord | None = None
    _importance: Importance | None = None
    _written_at: float = 0.0

    def __post_init__(self) -> None:
        """Open the study, and have the trials done again that were killed."""
        self.space = self.factory.space
        self.seed = self.factory.staged.job.spec.seed
        self.own: Mapping[str, Value | None] = own_values(self.factory.staged, self.space)
        self.study = Study(self.folder.path / STUDY_FILE, self.space, self.seed)
        earlier = self.folder.read_result()
        self._created_at = earlier.created_at if earlier is not None else utc_now()

    def run(self) -> SweepResult:
        """Run the trials that are missing, then the repetitions. Return the result.

        Raise JobFailed where the job file's own values can't be trained, or several trials in a row
        failed. After KeyboardInterrupt the running trial is stopped where it can be continued.
        """
        self.study.recover()
        try:
            self._search()
            self._repeat()
            self._status = "finished"
        except OutOfTime:
            self._status = "out of time"
        except BaseException:
            self._status = "interrupted"
            raise
        finally:
            self._current = None
            result = self.write_result()
        if self._status == "finished" and not self.keep_all:
            self._release_models(result)
        return result

    def _search(self) -> None:
        """Run trials until there are as many as planned, or nothing new is left."""
        self._run_own_values()
        failures = duplicates = 0
        while len(self._trained()) < self.options.trials:
            if self.study.is_exhausted() or self._is_time_for_repeats():
                return
            if self._seconds_left() <= 0:
                raise OutOfTime
            record = self.study.ask()
            earlier = self._find_same(record)
            if earlier is not None:
                self._reuse(record, earlier)
                unseen = self.study.draw_unseen()
                if unseen is not None:
                    self.study.enqueue(unseen)
                duplicates += 1
                if duplicates >= MAX_DUPLICATES:
                    return
                continue
            self._run_trial(record)
            duplicates, failures = 0, failures + 1 if record.outcome == "failed" else 0
            if failures >= MAX_FAILURES:
                raise _failed(record, f"{failures} trials in a row failed, the last one because")

    def _run_own_values(self) -> None:
        """Run the job file's own values first, whatever the space has."""
        if results.find_own(self._trained(), self.own) is not None:
            return
        values = {name: value for name, value in self.own.items() if value is not None}
        if all(one.name in values and one.contains(values[one.name]) for one in self.space):
            if not self.study.has_queue:  # it is, where an earlier run of it was killed
                self.study.enqueue(values)
            record = self.study.ask()
            self._run_trial(record)
        else:
            record = TrialRecord(OWN_VALUES, values, self.seed)
            self._train(record)
            self.study.keep_own(record)
            self._report(record)
        if record.outcome == "failed":
            raise _failed(record, "the job file's own values can't be trained:")

    def _run_trial(self, record: TrialRecord) -> None:
        self._train(record)
        self.study.end(record)
        self._report(record)

    def _train(self, record: TrialRecord) -> None:
        """Train the job of a record, and write down how it ended."""
        self._current = record
        run = TrialRun(
            self.factory.build(record),
            self.backend,
            Store(self.home.jobs),
            record,
            on_point=self._after_validation,
            on_start=self._after_start,
        )
        try:
            run.run()
        except (KeyboardInterrupt, OutOfTime):
            run.stop()  # at a checkpoint: it is continued there
            self.study.keep_running(record)
            raise
        finally:
            self._current = None

    def _after_start(self, record: TrialRecord) -> None:
        self.events.on_start(record)
        self.write_result()

    def _after_validation(self, record: TrialRecord) -> Outcome | None:
        if self.clock() - self._written_at >= WRITE_EVERY_S:
            self.write_result()
        if self._seconds_left() < 0:
            raise OutOfTime
        is_search = record.seed == self.seed and record.number != OWN_VALUES
        if not self.options.pruning or not is_search:
            return None
        own = results.find_own([record], self.own)
        others = [one.points for one in self._trained() if one.is_scored]
        return "pruned" if own is None and is_behind(record.points, others) else None

    def _repeat(self) -> None:
        """Train the best trials and the job file's own values with further seeds."""
        ranked = results.rank_trials(self._trained())
        own = results.find_own(self._trained(), self.own)
        chosen = ranked[: self.options.repeat_best]
        if own is not None and own.is_scored and own not in chosen:
            chosen.append(own)
        done = {(one.number, one.seed) for one in self.study.repeats()}
        for offset in range(1, self.options.seeds + 1):
            for one in chosen if len(ranked) > 1 else ():
                seed = (self.seed + offset) % 2**32
                if (one.number, seed) in done:
                    continue
                if self._seconds_left() <= 0:
                    raise OutOfTime
                record = TrialRecord(one.number, one.values, seed)
                self._train(record)
                self.study.keep_repeat(record)
                self._report(record)

    def _reuse(self, record: TrialRecord, earlier: TrialRecord) -> None:
        """Give a trial the score of an earlier one with the same values."""
        record.same_as, record.job = earlier.number, earlier.job
        record.outcome, record.score = earlier.outcome, earlier.score
        record.message = earlier.message
        self.study.end(record)

    def _find_same(self, record: TrialRecord) -> TrialRecord | None:
        key = point_key(record.values)
        same = (one for one in self._trained() if point_key(one.values) == key)
        return next((one for one in same if one.outcome != "failed"), None)

    def _trained(self) -> list[TrialRecord]:
        """Return the trials that have ended, each set of values once; the own values first."""
        own = self.study.own()
        ended = [
            one for one in self.study.trials() if one.outcome != "running" and one.same_as is None
        ]
        return [own, *ended] if own is not None else ended

    def _report(self, record: TrialRecord) -> None:
        result = self.write_result()
        if not self.keep_all:
            self._release_models(result)
        self.events.on_trial(record, result)

    def _release_models(self, result: SweepResult) -> None:
        """Remove the models of all runs but the best; while it is searched, of those to repeat."""
        ranked = results.rank_trials(result.trials)[: self.options.repeat_best]
        best = [result.best_trial] if result.best_trial is not None else []
        kept = {one.job for one in (*best, *(ranked if self._status == "running" else ()))}
        for one in (*result.trials, *result.repeats):
            if one.job is None or one.job in kept or one.outcome == "running":
                continue
            folder = self.home.jobs / one.job
            if (folder / ARTIFACTS).exists() or (folder / CHECKPOINTS).exists():
                self.backend.release_model(one.job)

    def _used_seconds(self) -> float:
        runs = (*self._trained(), *self.study.repeats())
        return sum(one.seconds for one in runs) + self.study.lost_seconds()

    def _seconds_left(self) -> float:
        """Return what is left of the budget; infinity without one."""
        if self.options.budget_minutes is None:
            return float("inf")
        running = 0.0 if self._current is None else self._current.seconds
        return self.options.budget_minutes * 60 - self._used_seconds() - running

    def _is_time_for_repeats(self) -> bool:
        """Return whether the rest of the budget is needed for the repetitions."""
        scored = [one for one in self._trained() if one.is_scored]
        if self.options.budget_minutes is None or not scored:
            return False
        mean = sum(one.seconds for one in scored) / len(scored)
        repeats = self.options.seeds * (min(self.options.repeat_best, len(scored)) + 1)
        return self._seconds_left() <= mean * repeats

    def _measure_importance(self, trials: list[TrialRecord]) -> Importance:
        """Return what moves the score; measured again only when there are more trials."""
        scored = sum(one.is_scored for one in trials)
        step = 1 if self._status != "running" else REMEASURE_EVERY
        known = self._importance
        if known is None or scored - known.trials >= step or len(self.space) > scored:
            self._importance = measure_importance(self.space, trials)
        assert self._importance is not None
        return self._importance

    def write_result(self) -> SweepResult:
        """Write what is known so far, and return it."""
        trials = self._trained()
        repeats = self.study.repeats()
        repeated = results.summarize_repeats(trials, repeats)
        best, own = results.choose_best(trials, repeated), results.find_own(trials, self.own)
        duplicates = [one for one in self.study.trials() if one.same_as is not None]
        running = [self._current] if self._current and self._current.seed == self.seed else []
        spec = self.factory.staged.job
        dotted = {one.name: one.dotted for one in self.space}
        value = SweepResult(
            version=results.VERSION,
            id=self.folder.path.name,
            name=spec.spec.name,
            status=self._status,
            created_at=self._created_at,
            updated_at=utc_now(),
            job_file=str(spec.path.absolute()) if spec.path else None,
            metric="validation loss",
            seed=self.seed,
            planned=self.options.trials,
            budget_minutes=self.options.budget_minutes,
            space=results.describe_space(self.space),
            trials=sorted([*trials, *duplicates, *running], key=lambda one: one.number),
            own=own.number if own is not None else None,
            best=best.number if best is not None else None,
            repeats=repeats,
            repeated=repeated,
            verdict=results.judge(best, own, repeated),
            edges=results.find_edges(self.space, best),
            importance=self._measure_importance(trials),
            pruning=results.summarize_pruning(trials),
            seconds=round(self._used_seconds(), 2),
            changes={dotted[k]: v for k, v in best.values.items() if v != self.own.get(k)}
            if best is not None and best.number != OWN_VALUES
            else {},
        )
        path = self.folder.path / RESULT_FILE
        with as_store_error("the sweep's result can't be saved", path):
            self._written_at = self.clock()
            atomic_write(path, orjson.dumps(value.to_json(), option=orjson.OPT_INDENT_2))
        return value


def _failed(record: TrialRecord, what: str) -> JobFailed:
    reason = record.message or record.outcome
    fix = f"cloudft logs {record.job}" if record.job else "see `cloudft check`"
    return JobFailed(f"{what} {reason}", fix=fix)
