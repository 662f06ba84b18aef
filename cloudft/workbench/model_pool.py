"""Keep the models that a page talks to loaded: few at once, and none without use."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cloudft.errors import JobStateConflict
from cloudft.evaluate.evaluate_job import open_session
from cloudft.inference import InferenceSession, ModelDescription, SupportsTokens
from cloudft.jobs.lifecycle import backend_for
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

MAX_OPEN = 2
"""Jobs whose models are loaded at once."""
IDLE_S = 600.0
"""Seconds after which models that nobody talks to are closed."""
CHECK_S = 5.0
Opener = Callable[[JobRecord, Home], InferenceSession]


@dataclass
class _OpenModel:
    """The models of one job. `lock` is held by the thread that uses the session."""

    job_id: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    session: InferenceSession | None = None
    description: ModelDescription | None = None
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)
    loading_since: float | None = None


@dataclass(frozen=True)
class ModelStatus:
    """What a page says of a job's models. `state` is `loading`, `answering` or `open`.

    `seconds` is how long it has been loading, or unused. Sizes are None before it is loaded, and
    for models that are not on this machine.
    """

    job: str
    state: str
    seconds: float
    parameters: int | None
    resident_bytes: int | None
    device: str | None


def open_models(record: JobRecord, home: Home) -> InferenceSession:
    """Open a job's models. Raise CloudftError."""
    return open_session(record, backend_for(record, home))


class ModelPool:
    """Opens models on demand, and closes those that were not used for the longest time."""

    def __init__(
        self,
        home: Home,
        *,
        opener: Opener = open_models,
        max_open: int = MAX_OPEN,
        idle_s: float = IDLE_S,
        check_s: float = CHECK_S,
    ) -> None:
        self._home, self._opener = home, opener
        self._max_open, self._idle_s, self._check_s = max_open, idle_s, check_s
        self._lock = threading.Lock()
        self._models: dict[str, _OpenModel] = {}
        self._janitor: threading.Thread | None = None
        self._is_closed = False

    @contextlib.contextmanager
    def use(self, record: JobRecord) -> Iterator[InferenceSession]:
        """Yield a job's session, loaded if need be; one thread at a time has it.

        Raise JobStateConflict where as many other models are answering as may be open, CloudftError
        where it can't be opened.
        """
        model = self._reserve(record.id)
        try:
            with model.lock:
                yield self._opened(model, record)
        finally:
            with self._lock:
                model.users -= 1
                model.used_at = time.monotonic()
                if model.session is None and not model.users:
                    self._models.pop(model.job_id, None)

    def list_open(self) -> list[ModelStatus]:
        """Return the models that are open or being loaded, in the order of their opening."""
        now = time.monotonic()
        with self._lock:
            models = list(self._models.values())
        return [_status(model, now) for model in models]

    def close(self) -> None:
        """Close all models, also those that are answering; none is opened any more."""
        with self._lock:
            self._is_closed = True
            models = list(self._models.values())
            self._models.clear()
        for model in models:
            _close(model)

    def _reserve(self, job_id: str) -> _OpenModel:
        """Return the model's entry with one more user, having closed the one unused for longest."""
        surplus = None
        with self._lock:
            if self._is_closed:
                raise JobStateConflict("the workbench is being stopped", fix="start it again.")
            model = self._models.get(job_id)
            if model is None:
                if len(self._models) >= self._max_open:
                    unused = [one for one in self._models.values() if not one.users]
                    if not unused:
                        raise JobStateConflict(
                            f"the models of {self._max_open} jobs are answering already",
                            fix="wait for their answers, or stop them.",
                        )
                    surplus = min(unused, key=lambda one: one.used_at)
                    del self._models[surplus.job_id]
                model = self._models[job_id] = _OpenModel(job_id)
            model.users += 1
            self._start_janitor()
        if surplus is not None:
            _close(surplus)
        return model

    def _opened(self, model: _OpenModel, record: JobRecord) -> InferenceSession:
        """Return the model's session; a process that has died is replaced by a new one."""
        if model.session is not None and not getattr(model.session, "is_alive", True):
            _close(model)
        if model.session is None:
            model.loading_since = time.monotonic()
            try:
                session = self._opener(record, self._home)
                if isinstance(session, SupportsTokens):
                    model.description = session.describe()
                model.session = session
            finally:
                model.loading_since = None
            if self._is_closed:
                _close(model)
                raise JobStateConflict("the workbench is being stopped", fix="start it again.")
        return model.session

    def _start_janitor(self) -> None:
        if self._janitor is None:
            self._janitor = threading.Thread(target=self._close_idle, daemon=True)
            self._janitor.start()

    def _close_idle(self) -> None:
        """Close what was not used for long, until nothing is open."""
        while True:
            time.sleep(self._check_s)
            limit = time.monotonic() - self._idle_s
            with self._lock:
                models = self._models.values()
                idle = [one for one in models if not one.users and one.used_at < limit]
                for model in idle:
                    del self._models[model.job_id]
                if not self._models:
                    self._janitor = None
            for model in idle:
                _close(model)
            if self._janitor is None:
                return


def _close(model: _OpenModel) -> None:
    session, model.session, model.description = model.session, None, None
    if session is not None:
        session.close()


def _status(model: _OpenModel, now: float) -> ModelStatus:
    size = model.description
    since = model.loading_since
    state = "answering" if model.users else "open"
    if since is not None or model.session is None:
        state = "loading"
    return ModelStatus(
        model.job_id,
        state,
        now - (since if since is not None else model.used_at),
        size.parameters if size else None,
        size.resident_bytes if size else None,
        size.device if size else None,
    )
