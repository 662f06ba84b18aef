"""Find near duplicates and make suggestions in the background: no key waits for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from cloudft.errors import CloudftError, UsageError
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    VARIANTS,
    Variant,
    open_cached_inference,
)
from cloudft.inference import InferenceSession
from cloudft.labeling.project import LabelProject
from cloudft.labeling.settings import Kind
from cloudft.labeling.suggestions import ModelSuggester, Suggester
from cloudft.storage.home import Home
from cloudft.storage.store import Store

BATCH = 16
IDLE_S = 120.0
"""Seconds without a request after which the models are released."""

State = Literal["idle", "grouping", "loading", "suggesting", "done", "paused", "failed"]
OpenSuggester = Callable[[LabelProject, Home], AbstractContextManager[Suggester]]


@contextlib.contextmanager
def open_model_suggester(project: LabelProject, home: Home) -> Iterator[Suggester]:
    """Yield what suggests with the project's job, on this machine.

    Raise UsageError for a job whose inference is billed, and what the backend raises.
    """
    from cloudft.evaluate.evaluate_job import open_session
    from cloudft.jobs import lifecycle

    settings = project.settings
    assert settings.job is not None
    record = Store(home.jobs).find_by_reference(settings.job)
    backend = lifecycle.backend_for(record, home)
    if backend.inference_is_billed:
        raise UsageError(
            f"{record.id} is on {record.backend}: a suggestion for each record would be billed",
            fix="name a job of this machine.",
        )
    session = open_session(record, backend)
    try:
        variants = _choose_variants(session, settings.kind)
        inference = open_cached_inference(session, home, lambda *_: None, variants=variants)
    except BaseException:
        session.close()
        raise
    with inference as models:  # which closes the session
        yield ModelSuggester(models, settings.kind, settings.labels)


def _choose_variants(session: InferenceSession, kind: Kind) -> Sequence[Variant]:
    """Return both models where labels are to be compared, and the two differ."""
    identities = session.model_identities()
    differ = identities.get(BASE) not in (None, identities[TUNED])
    return VARIANTS if kind == "labels" and differ else (TUNED,)


@dataclass
class SuggestionWorker:
    """One thread for a project, while somebody labels. `message` says what went wrong.

    With `is_read_only` it never starts: suggestions are kept in the project.
    """

    project: LabelProject
    home: Home
    open_suggester: OpenSuggester = open_model_suggester
    is_read_only: bool = False
    state: State = "idle"
    message: str = ""
    fix: str = ""
    _used_at: float = 0.0
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wake(self) -> None:
        """Start the work, or keep it going. What failed is tried again after a reload only."""
        if self.is_read_only:
            return
        self._used_at = time.monotonic()
        with self._lock:
            is_running = self._thread is not None and self._thread.is_alive()
            if not is_running and self.state != "failed" and self._has_work():
                self._thread = threading.Thread(target=self._run, daemon=True, name="suggestions")
                self._thread.start()

    def retry(self) -> None:
        """Forget an earlier failure, and start."""
        if self.state == "failed":
            self.state, self.message, self.fix = "idle", "", ""
        self.wake()

    def join(self, timeout: float) -> None:
        """Wait until the work has ended."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _has_work(self) -> bool:
        project = self.project
        ungrouped = len(project.groups.leader) < len(project.records.keys)
        return (ungrouped and project.groups.is_available) or bool(self._missing())

    def _missing(self) -> list[str]:
        """Return the keys without a suggestion, in the order in which they are labeled."""
        if self.project.settings.job is None:
            return []
        known = self.project.suggestions
        return [
            one.key
            for one in self.project.order()
            if one.key not in known and self._can_suggest(one.key)
        ]

    def _can_suggest(self, key: str) -> bool:
        return self.project.settings.kind != "check" or key in self.project.records.given

    def _run(self) -> None:
        try:
            self.state = "grouping"
            self._group()
            if self._missing():
                self.state = "loading"
                with self.open_suggester(self.project, self.home) as suggester:
                    self.state = "suggesting"
                    self._suggest(suggester)
            self.state = "paused" if self._missing() else "done"
        except CloudftError as error:
            self.state, self.message, self.fix = "failed", error.message, error.fix or ""
        except Exception as error:  # the page must not wait for a thread that is gone
            self.state, self.message, self.fix = "failed", f"{type(error).__name__}: {error}", ""

    def _group(self) -> None:
        groups, records = self.project.groups, self.project.records
        if groups.is_available:
            keys = [key for key in records.keys if key not in groups.leader]
            groups.add((key, records.get(key).text) for key in keys)
            self.project.reorder()

    def _suggest(self, suggester: Suggester) -> None:
        """Suggest batch by batch: the records that are shown next come first."""
        while time.monotonic() - self._used_at < IDLE_S:
            batch = list(islice(self._missing(), BATCH))
            if not batch:
                return
            self.project.save_suggestions(
                list(suggester.suggest([self.project.records.get(key) for key in batch]))
            )
            self.project.reorder()
