"""Create moto's WSGI application: faster, and with ids that can be repeated.

moto is changed in seven ways, found in moto 5.2.5 (`moto==5.2.*` is pinned for it):

- `DomainDispatcherApplication.get_backend_for_host` lists the folders of moto's package at every
  request, which is half the time of a small one. Here each host is looked up once.
- Ids come from one generator, `mock_random`, which all threads share: a seed makes the same ids
  again only for a thread that has its own generator. Here each thread has one.
- The ids of multipart uploads (`s3/models.py`) and the keys of KMS (`kms/utils.py`) come from
  `os.urandom` instead. After a replay no upload would be known by its id, and nothing could be
  decrypted. Here they come from the thread's generator, too.
- AWS's managed policies (`arn:aws:iam::aws:policy/...`) are loaded. Their ids have a seed of their
  own: they are made in whichever request is the first, and must not change that one's ids.
- An object whose content type is a form's is stored as it came. Flask would parse it, and moto
  would store what is left: nothing.
- A service that moto lacks is refused by its name. moto would print a hint for its own developers
  on standard output and raise an AttributeError.
- Custom models can be shared by AWS RAM (resource_shares.py).
"""

from __future__ import annotations

import copy
import functools
import os
import re
import threading
from collections.abc import Iterable
from importlib import import_module
from random import Random
from typing import TYPE_CHECKING, Any

from cloudft.endpoint.moto.resource_shares import patch_resource_shares
from cloudft.endpoint.protocols.messages import ServiceNotOffered
from cloudft.endpoint.wsgi import buffer_body

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from werkzeug.serving import WSGIRequestHandler

URANDOM_MODULES = {"s3": "moto.s3.models", "kms": "moto.kms.utils"}
"""Service -> the module of moto that keeps what it gets from `os.urandom`."""
_thread_state = threading.local()


def create_moto_app(account: str) -> WSGIApplication:
    """Return moto's services as one application. `account` is the number of their account."""
    # moto reads these when it is imported.
    os.environ.setdefault("MOTO_ACCOUNT_ID", account)
    os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")
    from moto.moto_server.werkzeug_app import (
        BackendRequest,
        DomainDispatcherApplication,
        create_backend_app,
    )

    class ObjectRequest(BackendRequest):  # type: ignore[misc] # moto has no types
        """A request to S3, whose only forms are those of POST (S3 API reference, "POST Object")."""

        @property
        def want_form_data_parsed(self) -> bool:
            is_form = str(self.environ.get("CONTENT_TYPE", "")).startswith("multipart/form-data")
            return self.method == "POST" and is_form

    def create_service_app(service: str) -> WSGIApplication:
        _load_managed_policies()
        _patch_service(service)
        app = create_backend_app(service)
        if service in ("s3", "s3control"):
            app.request_class = ObjectRequest
        wsgi_app: WSGIApplication = app
        return wsgi_app

    class Dispatcher(DomainDispatcherApplication):  # type: ignore[misc] # moto has no types
        """Looks up each host once, and reads a body without losing it."""

        def __init__(self) -> None:
            super().__init__(create_service_app)
            self._apps_by_host: dict[str | None, WSGIApplication] = {}

        def get_backend_for_host(self, host: str | None) -> WSGIApplication:
            if host not in self._apps_by_host:
                _require_service(host, self.backend_url_patterns)
                self._apps_by_host[host] = super().get_backend_for_host(host)
            return self._apps_by_host[host]

        def _get_body(self, environ: WSGIEnvironment) -> str | None:
            kind = str(environ.get("CONTENT_TYPE", ""))
            if not kind.startswith("application/x-www-form-urlencoded"):
                return None
            return buffer_body(environ).decode("latin-1") or None

    _patch_random_per_thread()
    app: WSGIApplication = Dispatcher()
    return app


def _patch_service(service: str) -> None:
    """Change what is changed in one service of moto."""
    if service in URANDOM_MODULES:
        # Its name `os`, not the module `os`: no other module's random bytes change.
        vars(import_module(URANDOM_MODULES[service]))["os"] = _RepeatableOs()
    if service == "ram":
        patch_resource_shares()


def load_request_handler() -> type[WSGIRequestHandler]:
    """Return moto's request handler: werkzeug's own drops S3's metadata keys with underscores."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    handler: type[WSGIRequestHandler] = MotoRequestHandler
    return handler


def _require_service(
    host: str | None, backend_url_patterns: Iterable[tuple[str, re.Pattern[str]]]
) -> None:
    """Raise ServiceNotOffered for a host name of AWS whose service moto lacks."""
    if host is None or not host.endswith((".amazonaws.com", ".api.aws")):
        return
    if not any(pattern.match(f"http://{host}") for _, pattern in backend_url_patterns):
        raise ServiceNotOffered(host.partition(".")[0])


def seed_ids(seed: int) -> None:
    """Seed the ids that moto makes next in this thread."""
    _thread_state.random = Random(seed)


class _RepeatableOs:
    """The module `os` as a module of moto sees it; its random bytes follow the seed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def urandom(self, count: int) -> bytes:
        """Return random bytes."""
        return _thread_random().randbytes(count)


def _thread_random() -> Random:
    if not hasattr(_thread_state, "random"):
        _thread_state.random = Random()
    generator: Random = _thread_state.random
    return generator


@functools.cache
def _load_managed_policies() -> None:
    """Make IAM load AWS's managed policies. Imports moto's IAM, as every request does."""
    from moto.core.config import default_user_config
    from moto.iam.models import IAMBackend

    default_user_config["iam"] = {"load_aws_managed_policies": True}
    load = IAMBackend._init_aws_policies
    loaded: dict[tuple[str, str], list[Any]] = {}

    def load_once(self: IAMBackend) -> list[Any]:
        key = (self.account_id, self.region_name)
        if key not in loaded:
            random = _thread_random()
            _thread_state.random = Random(0)
            try:
                loaded[key] = load(self)
            finally:
                _thread_state.random = random
        # Copies, because each counts its attachments. They cost a fiftieth of what loading does.
        return [copy.copy(policy) for policy in loaded[key]]

    IAMBackend._init_aws_policies = load_once


def _patch_random_per_thread() -> None:
    from moto.moto_api._internal import mock_random

    def getrandbits(count: int) -> int:
        return _thread_random().getrandbits(count)

    def random() -> float:
        return _thread_random().random()

    # Every other method of `Random` is built on these two.
    vars(mock_random).update(getrandbits=getrandbits, random=random)
