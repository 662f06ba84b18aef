"""Run a sweep: its trials, from one warm process, until they or the minutes are used up."""

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
from cloudft.sweep.window import Entry, TrialWindow

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
    parallel: int = 1
    """Trials at once."""
    clock: Callable[[], float] = time.monotonic
    _status: results.Status = "running"
    _created_at: str = ""
    _importance: Importance | None = None
    _written_at: float = 0.0
    _failures: int = 0
    _duplicates: int = 0

    def __post_init__(self) -> None:
        """Open the study, and have the trials done again that were killed."""
        self.space = self.factory.space
        self.seed = self.factory.staged.job.spec.seed
        self.own: Mapping[str, Value | None] = own_values(self.factory.staged, self.space)
        self.window = TrialWindow(self.parallel)
        self.study = Study(self.folder.path / STUDY_FILE, self.space, self.seed)
        earlier = self.folder.read_result()
        self._created_at = earlier.created_at if earlier is not None else utc_now()

    def run(self) -> SweepResult:
        """Run the trials that are missing, then the repetitions. Return the result.

        Raise JobFailed where the job file's own values can't be trained, or several trials in a row
        failed. After KeyboardInterrupt the running trials are stopped where they can be continued.
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
            self._stop_running()
            result = self.write_result()
        if self._status == "finished" and not self.keep_all:
            self._release_models(result)
        return result

    def _stop_running(self) -> None:
        """Stop the trials that run, at checkpoints: they are continued there."""
        for record in self.window.stop():
            self.study.keep_running(record)
        self.window.entries.clear()

    def _search(self) -> None:
        """Run trials until there are as many as planned, or nothing new is left."""
        self._start_own_values()
        while True:
            while not self.window.is_full and self._has_more() and self._seconds_left() > 0:
                self._start_next()
            if self.window.entries:
                self._count_failure(self._end_first())
            elif self._has_more():
                raise OutOfTime
            else:
                return

    def _has_more(self) -> bool:
        """Return whether the search goes on, as far as the budget allows."""
        if len(self._trained()) + len(self.window.records) >= self.options.trials:
            return False
        if self._duplicates >= MAX_DUPLICATES:
            return False
        return not self.study.is_exhausted() and not self._is_time_for_repeats()

    def _start_next(self) -> None:
        """Start the next trial, unless its values are those of an earlier one."""
        record = self.study.ask()
        earlier = self._find_same(record)
        if earlier is None:
            self._duplicates = 0
            self._start(record, self.study.end)
            return
        if earlier.outcome == "running":  # it will have ended when this one's turn comes
            self.window.start(Entry(record, None, self.study.end))
        else:
            self._reuse(record, earlier)
        unseen = self.study.draw_unseen()
        if unseen is not None:
            self.study.enqueue(unseen)
        self._duplicates += 1

    def _start_own_values(self) -> None:
        """Run the job file's own values first, whatever the space has."""
        if results.find_own(self._trained(), self.own) is not None:
            return
        values = {name: value for name, value in self.own.items() if value is not None}
        if all(one.name in values and one.contains(values[one.name]) for one in self.space):
            if not self.study.has_queue:  # it is, where an earlier run of it was killed
                self.study.enqueue(values)
            self._start(self.study.ask(), self.study.end)
        else:
            self._start(TrialRecord(OWN_VALUES, values, self.seed), self.study.keep_own)

    def _start(self, record: TrialRecord, keep: Callable[[TrialRecord], None]) -> None:
        """Start to train the job of a record; `keep` writes down how it ended."""
        self.window.start(Entry(record, self._prepare(record), keep))

    def _prepare(self, record: TrialRecord) -> TrialRun:
        return TrialRun(
            self.factory.build(record),
            self.backend,
            Store(self.home.jobs),
            record,
            on_point=self._after_validation,
            on_start=self._after_start,
        )

    def _end_first(self) -> TrialRecord:
        """Wait for the first of the running trials, write down how it ended, and return it."""
        entry = self.window.pop()
        record = entry.record
        if entry.run is None:
            earlier = self._find_same(record)
            if earlier is not None:
                self._reuse(record, earlier)
            else:  # the earlier one has failed
                self.window.start(Entry(record, self._prepare(record), entry.keep), first=True)
            return record
        entry.keep(record)
        self._report(record)
        return record

    def _count_failure(self, record: TrialRecord) -> None:
        """Raise JobFailed where the search can't go on after a trial."""
        if record.same_as is not None or record.outcome == "running":
            return
        self._failures = self._failures + 1 if record.outcome == "failed" else 0
        if self._failures and results.find_own([record], self.own) is not None:
            raise _failed(record, "the job file's own values can't be trained:")
        if self._failures >= MAX_FAILURES:
            raise _failed(record, f"{self._failures} trials in a row failed, the last one because")

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
        # Not those that may or may not have ended by now: the same sweep stops the same trials.
        last = record.number - self.parallel
        others = [one.points for one in self._trained() if one.is_scored and one.number <= last]
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
                while self.window.is_full or (self.window.entries and self._seconds_left() <= 0):
                    self._end_first()
                if self._seconds_left() <= 0:
                    raise OutOfTime
                self._start(TrialRecord(one.number, one.values, seed), self.study.keep_repeat)
        while self.window.entries:
            self._end_first()

    def _reuse(self, record: TrialRecord, earlier: TrialRecord) -> None:
        """Give a trial the score of an earlier one with the same values."""
        record.same_as, record.job = earlier.number, earlier.job
        record.outcome, record.score = earlier.outcome, earlier.score
        record.message = earlier.message
        self.study.end(record)

    def _find_same(self, record: TrialRecord) -> TrialRecord | None:
        key = point_key(record.values)
        known = (*self._trained(), *self.window.records)
        same = (one for one in known if point_key(one.values) == key)
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
        running = sum(one.seconds for one in self.window.records)
        return self.options.budget_minutes * 60 - self._used_seconds() - running

    def _is_time_for_repeats(self) -> bool:
        """Return whether the rest of the budget is needed for the repetitions."""
        scored = [one for one in self._trained() if one.is_scored]
        if self.options.budget_minutes is None or not scored or not self.options.seeds:
            return False
        mean = sum(one.seconds for one in scored) / len(scored)
        repeats = self.options.seeds * (min(self.options.repeat_best, len(scored)) + 1)
        return self._seconds_left() <= mean * (repeats + len(self.window.records))

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
        running = [one for one in self.window.records if one.seed == self.seed]
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
