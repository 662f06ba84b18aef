"""moto as a WSGI application, faster and repeatable.

Three things of moto 5.2.5 (`moto==5.2.*` is pinned for it):

- `DomainDispatcherApplication.get_backend_for_host` lists the folders of moto's package at every
  request, half of the time of a small one;
- ids come from one generator, `mock_random`, that all threads share: a seed makes the same ids
  again only for a thread that has a generator of its own;
- the ids of multipart uploads (`s3/models.py`) and the keys of KMS (`kms/utils.py`) do not come
  from it but from `os.urandom`: after a replay no upload would be known by its id, and nothing
  could be decrypted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib import import_module
from random import Random
from typing import Any

Environ = dict[str, Any]
URANDOM_MODULES = {"s3": "moto.s3.models", "kms": "moto.kms.utils"}
"""Modules, by service, that keep what they get from `os.urandom`."""
_thread_state = threading.local()


def create_moto_app(account: str) -> Callable[..., Any]:
    """Return moto's services. `account` is the number of the account that they belong to."""
    os.environ.setdefault("MOTO_ACCOUNT_ID", account)  # before moto is imported
    os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    def create(service: Any) -> Any:
        made = create_backend_app(service)
        if service in URANDOM_MODULES:
            vars(import_module(URANDOM_MODULES[service]))["os"] = _RepeatableOs()
        return made

    class Dispatcher(DomainDispatcherApplication):  # type: ignore[misc] # moto has no types
        """Looks up each host once."""

        def __init__(self) -> None:
            super().__init__(create)
            self._known: dict[str | None, Any] = {}

        def get_backend_for_host(self, host: str | None) -> Any:
            if host not in self._known:
                self._known[host] = super().get_backend_for_host(host)
            return self._known[host]

    _patch_random_per_thread()
    return Dispatcher()


def seed_ids(seed: int) -> None:
    """Choose the ids that moto makes next in this thread."""
    _thread_state.random = Random(seed)


class _RepeatableOs:
    """The module `os` for a module of moto; its random bytes follow the seed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def urandom(self, count: int) -> bytes:
        """Return random bytes."""
        return _thread_random().randbytes(count)


def _thread_random() -> Random:
    if not hasattr(_thread_state, "random"):
        _thread_state.random = Random()
    found: Random = _thread_state.random
    return found


def _patch_random_per_thread() -> None:
    from moto.moto_api._internal import mock_random

    def getrandbits(count: int) -> int:
        return _thread_random().getrandbits(count)

    def random() -> float:
        return _thread_random().random()

    # Every other method of `Random` is made of these two.
    vars(mock_random).update(getrandbits=getrandbits, random=random)
