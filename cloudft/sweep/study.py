"""The trials of a sweep, kept by Optuna in the sweep's folder.

One process at a time writes (folder.py), so the journal needs no lock of its own: Optuna's is a
file that a killed process leaves behind, and is waited for. A killed process also leaves trials
that Optuna takes for running for ever; `recover` has each of them done once more.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloudft.errors import BadDocument, UsageError
from cloudft.storage.atomic_files import as_store_error
from cloudft.sweep.records import TrialRecord, Value, read_record
from cloudft.sweep.space import SpaceParameter, point_key, space_size

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "sweep"
STARTUP_TRIALS = 8
"""Trials at random points before the sampler learns from scores."""
RECORD, RETRY_OF, REPEAT, OWN = "record", "retryOf", "repeat", "own"
"""Keys of what is kept beside Optuna's own values."""
MAX_DRAWN_AGAIN = 20
"""Draws of a point that is already tried, before a new one is taken from the list of all."""
MAX_LISTED = 10_000
"""Points of a space that are listed."""
DIGITS = 3
"""Digits of a fraction that is tried: more would only be hard to read."""


class Study:
    """The trials of one sweep. Lower scores are better."""

    def __init__(self, path: Path, space: Sequence[SpaceParameter], seed: int) -> None:
        self.space, self.seed = tuple(space), seed
        self._study = _open_study(path)
        self._open_trials: dict[int, optuna.Trial] = {}

    def recover(self) -> None:
        """Queue the values of each trial that a killed process left running.

        Queued first, then ended, and queued only once: this may be killed at any point, too.
        """
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        queued = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        for trial in (one for one in trials if one.state == TrialState.RUNNING):
            kept = trial.user_attrs.get(RECORD)
            record = None if kept is None else read_record(kept)
            if record is not None and record.outcome != "running":  # only Optuna lacks its ending
                self._finish(trial.number, record)
                continue
            values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            # Killed before it had all of its values, it is a point that was never chosen.
            if trial.number not in queued and values.keys() == {one.name for one in self.space}:
                self._study.enqueue_trial(values, user_attrs={RETRY_OF: trial.number})
            self._study.tell(trial.number, state=TrialState.FAIL)

    @property
    def has_queue(self) -> bool:
        """Return whether values are queued."""
        from optuna.trial import TrialState

        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def enqueue(self, values: Mapping[str, Value]) -> None:
        """Let these values be the next trial."""
        self._study.enqueue_trial(dict(values))

    def ask(self) -> TrialRecord:
        """Return the next trial: queued, or chosen by the scores so far.

        Its sampler is seeded by its number, so a sweep that is continued goes on where it was: one
        sampler for each process would choose the first points again. A trial that is done again
        has the number that it had.
        """
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        numbers = {
            one.number: read_record(one.user_attrs[RECORD]).number
            for one in trials
            if RECORD in one.user_attrs
        }
        number = max(numbers.values(), default=-1) + 1
        self._study.sampler = optuna.samplers.TPESampler(
            seed=derive_seed(self.seed, number), n_startup_trials=STARTUP_TRIALS
        )
        trial = self._study.ask()
        number = numbers.get(trial.user_attrs.get(RETRY_OF, trial.number), number)
        values = {one.name: _readable(_suggest(trial, one), one) for one in self.space}
        record = TrialRecord(number, values, self.seed)
        self._open_trials[number] = trial
        trial.set_user_attr(RECORD, record.to_json())
        return record

    def draw_unseen(self) -> Mapping[str, Value] | None:
        """Return a point of a finite space that was not tried; None where all of them were."""
        if space_size(self.space) > MAX_LISTED:
            return None
        tried = {point_key(one.values) for one in self.trials()}
        unseen = [values for values in _all_points(self.space) if point_key(values) not in tried]
        if not unseen:
            return None
        return random.Random(derive_seed(self.seed, len(tried))).choice(unseen)

    def is_exhausted(self) -> bool:
        """Return whether every point of the space was tried."""
        return space_size(self.space) <= MAX_LISTED and self.draw_unseen() is None

    def keep_running(self, record: TrialRecord) -> None:
        """Keep how far a trial has come that is interrupted, and will be done again."""
        if record.number in self._open_trials:
            self._open_trials[record.number].set_user_attr(RECORD, record.to_json())

    def end(self, record: TrialRecord) -> None:
        """Keep how a trial ended."""
        trial = self._open_trials.pop(record.number)
        trial.set_user_attr(RECORD, record.to_json())
        if record.outcome in ("pruned", "stopped"):
            for records, _, loss in record.points:
                trial.report(loss, records)
        self._finish(trial.number, record)

    def _finish(self, number: int, record: TrialRecord) -> None:
        """Give Optuna a trial's ending.

        A run without a finite loss counts as one that was stopped before its first validation,
        which the sampler takes for the worst. A failed one has no score and teaches nothing.
        """
        from optuna.trial import TrialState

        if record.outcome == "complete":
            self._study.tell(number, record.score)
            return
        state = TrialState.FAIL if record.outcome == "failed" else TrialState.PRUNED
        self._study.tell(number, state=state)

    def lost_seconds(self) -> float:
        """Return the training time of trials that were interrupted."""
        from optuna.trial import TrialState

        failed = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        kept = [read_record(t.user_attrs[RECORD]) for t in failed if RECORD in t.user_attrs]
        return sum(one.seconds for one in kept if one.outcome == "running")

    def trials(self) -> list[TrialRecord]:
        """Return the trials in order, the running one last; not those that were killed."""
        from optuna.trial import TrialState

        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if RECORD in trial.user_attrs:
                record = read_record(trial.user_attrs[RECORD])
                if record.outcome != "running" or trial.state == TrialState.RUNNING:
                    found.append(record)
        return sorted(found, key=lambda one: one.number)

    def keep_own(self, record: TrialRecord) -> None:
        """Keep the run with the job file's own values, which the space does not have."""
        self._study.set_user_attr(OWN, record.to_json())

    def own(self) -> TrialRecord | None:
        """Return that run."""
        value = self._study.user_attrs.get(OWN)
        return None if value is None else read_record(value)

    def keep_repeat(self, record: TrialRecord) -> None:
        """Keep a run of a trial's values with another seed."""
        self._study.set_user_attr(f"{REPEAT}:{record.number}:{record.seed}", record.to_json())

    def repeats(self) -> list[TrialRecord]:
        """Return the runs with other seeds."""
        kept = self._study.user_attrs
        return [read_record(kept[key]) for key in sorted(kept) if key.startswith(f"{REPEAT}:")]


def derive_seed(seed: int, number: int) -> int:
    """Return a seed for one trial, from the sweep's."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _open_study(path: Path) -> optuna.Study:
    """Return the study of a journal, which is created if missing. Raise BadDocument, UsageError."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UsageError("a sweep needs optuna", fix="pip install 'cloudft[sweep]'") from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with as_store_error("the sweep can't be saved", path):
        _cut_torn_line(path)
    try:
        backend = JournalFileBackend(str(path), lock_obj=cast(Any, _OnlyWriter()))
        return optuna.create_study(
            study_name=STUDY_NAME, storage=JournalStorage(backend), load_if_exists=True
        )
    except (ValueError, KeyError) as error:
        raise BadDocument(
            f"the sweep's journal is damaged: {error}",
            file=str(path),
            fix=f"restore it from a backup, or remove the sweep: rm -r {path.parent}",
        ) from error


class _OnlyWriter:
    """Stands for Optuna's lock, where the sweep's own lock is held."""

    def acquire(self) -> bool:
        """Return True: nobody else writes."""
        return True

    def release(self) -> None:
        """Do nothing."""


def _cut_torn_line(path: Path) -> None:
    """Cut a last line that a full disk left unfinished: Optuna would append to it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _suggest(trial: optuna.Trial, parameter: SpaceParameter) -> Value:
    if parameter.values:
        chosen: Any = trial.suggest_categorical(parameter.name, parameter.values)
        return chosen  # type: ignore[no-any-return]
    low, high = parameter.low, parameter.high
    assert low is not None and high is not None
    if parameter.kind == "int":
        return trial.suggest_int(parameter.name, int(low), int(high), log=parameter.log)
    return trial.suggest_float(parameter.name, low, high, log=parameter.log)


def _readable(value: Value, parameter: SpaceParameter) -> Value:
    """Return a fraction with few digits, within its range. It is what is trained and shown."""
    if parameter.kind != "float" or parameter.values or isinstance(value, (str, bool)):
        return value
    assert parameter.low is not None and parameter.high is not None
    return min(parameter.high, max(parameter.low, float(f"{value:.{DIGITS}g}")))


def _all_points(space: Sequence[SpaceParameter]) -> Iterator[dict[str, Value]]:
    import itertools

    lists: list[Sequence[Value]] = [
        one.values or range(int(one.low or 0), int(one.high or 0) + 1) for one in space
    ]
    for values in itertools.product(*lists):
        yield dict(zip((one.name for one in space), values, strict=True))
