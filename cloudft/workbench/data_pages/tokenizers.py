"""Keep the tokenizer that shows records as tokens: loaded once, closed when it is idle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.backends import DEFAULT_BACKEND, make_backend
from cloudft.backends.capabilities import SupportsTokenize, TokenPreviewSession
from cloudft.backends.trained_model import trained_model
from cloudft.errors import CloudftError, UsageError
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home

IDLE_S = 180.0
"""Seconds after which a tokenizer that no page uses is closed: its process has some 100 MB."""


@dataclass
class _Loading:
    key: tuple[str, ...]
    session: TokenPreviewSession
    thread: threading.Thread
    error: CloudftError | None = None


class TokenizerKeeper:
    """The one tokenizer of a workbench; another job's takes its place."""

    def __init__(
        self,
        home: Home,
        *,
        idle_s: float = IDLE_S,
        open_preview: Callable[[LoadedJob], TokenPreviewSession] | None = None,
    ) -> None:
        self._home, self._idle_s = home, idle_s
        self._open_preview = open_preview or self._open_local
        self._lock = threading.RLock()
        self._loading: _Loading | None = None
        self._timer: threading.Timer | None = None

    def preview(
        self, job: LoadedJob, line: bytes, wait_s: float
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Return the tokenizer's facts and the tokens of a canonical line.

        None while it is being loaded, after at most `wait_s` seconds. Raise CloudftError.
        """
        with self._lock:
            loading = self._load(job)
        loading.thread.join(wait_s)
        if loading.thread.is_alive():
            return None
        with self._lock:
            if loading.error is not None:
                self._drop()
                raise loading.error
            try:
                return loading.session.facts, loading.session.preview(line)
            except CloudftError:
                self._drop()  # its process has ended
                raise

    def is_loading(self) -> bool:
        """Return whether a tokenizer is being loaded now."""
        loading = self._loading
        return loading is not None and loading.thread.is_alive()

    def close(self) -> None:
        """End the process of the tokenizer, if there is one."""
        with self._lock:
            self._drop()

    def _load(self, job: LoadedJob) -> _Loading:
        """Return the tokenizer of a job, and begin to load it if it is another one."""
        self._rearm()
        key = _key_of(job)
        if self._loading is not None and self._loading.key == key:
            return self._loading
        self._drop()
        session = self._open_preview(job)
        loading = _Loading(key, session, threading.Thread())
        loading.thread = threading.Thread(target=_wait_for, args=(loading,), daemon=True)
        loading.thread.start()
        self._loading = loading
        self._rearm()
        return loading

    def _open_local(self, job: LoadedJob) -> TokenPreviewSession:
        local = make_backend(DEFAULT_BACKEND, self._home)
        assert isinstance(local, SupportsTokenize)
        return local.open_preview(job)

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._loading is not None:
            self._loading.session.close()
        self._loading = self._timer = None

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._idle_s, self.close)
        self._timer.daemon = True
        self._timer.start()


def _key_of(job: LoadedJob) -> tuple[str, ...]:
    """Return what decides the tokenizer and its template. Raise UsageError without a model."""
    model = trained_model(job)
    if model is None:
        raise UsageError(
            f"{job.model.alias} has no tokenizer outside its service",
            fix="name an open model as its stand-in: `local: {model: smollm2-135m}`.",
        )
    kind = job.spec.customization_type
    weights = [str(place.to_json()) for place in model.weights]
    return (model.alias, kind, job.model.formats[kind], *weights)


def _wait_for(loading: _Loading) -> None:
    try:
        assert loading.session.facts
    except CloudftError as error:
        loading.error = error
