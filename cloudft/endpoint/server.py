"""The endpoint put together, and served until the process ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudft.endpoint.answering import Answers, Question, Who
from cloudft.endpoint.app import App
from cloudft.endpoint.authority import SAGEMAKER, Authority, Hands, Simulator
from cloudft.endpoint.batches import Batches
from cloudft.endpoint.customization import Customization
from cloudft.endpoint.faults import Dropped, Faults
from cloudft.endpoint.foundation import Foundation
from cloudft.endpoint.machines import Machines
from cloudft.endpoint.runtime import Runtime
from cloudft.endpoint.serving import ServingOperations
from cloudft.endpoint.stacks.engine import Engine
from cloudft.endpoint.stacks.room import Stacks
from cloudft.endpoint.state import ACCOUNT, State
from cloudft.endpoint.training import InstantTrainer, LocalTrainer, Trainer
from cloudft.endpoint.training_jobs import TrainingJobs
from cloudft.endpoint.transfers import Transfers
from cloudft.endpoint.wire import SERVER
from cloudft.errors import UsageError
from cloudft.files import as_store_error, try_lock
from cloudft.local_http_guard import Guard

CREATING_S = 1.0
"""How long a deployment is `Creating` by the real clock."""
if TYPE_CHECKING:
    from cloudft.endpoint.journal import Journal

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class Options:
    """What the endpoint is started with. `state` None: it ends with the process."""

    port: int = 0
    host: str = "127.0.0.1"
    region: str = "us-east-1"
    state: Path | None = None
    stand_in: str = "smollm2-135m"
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    fast: bool = False
    seconds: float = 0.0
    jobs_at_once: int = 2
    as_on_aws: bool = False
    s3: str | None = None
    authorization: bool = False
    secrets: Mapping[str, str] | None = None
    until_pid: int | None = None
    training_env: Path | None = None
    names: tuple[str, ...] = ()
    """Host names that it goes by, beside `localhost`, IP addresses and `host`."""
    token: str = field(default_factory=new_token, repr=False)
    """For the page and the routes of administration."""

    @property
    def guard(self) -> Guard:
        """What is checked of every request."""
        own = {self.host} if self.host in LOOPBACK else {self.host, socket.gethostname()}
        names = frozenset(name.lower() for name in {*own, *self.names})
        return Guard(names, "; to allow it, start the endpoint with --allow-host", self.token)


def listening(host: str, port: int) -> socket.socket:
    """A socket. Clients may connect from now on. Raises UsageError."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        fix = "name another --port; 0 takes a free one."
        raise UsageError(f"can't listen on {host}:{port}: {error.strerror}", fix=fix) from error
    made.listen(128)
    return made


@dataclass
class Endpoint:
    """All parts of a running endpoint."""

    app: App
    customization: Customization
    answers: Answers
    training: TrainingJobs
    journal: Journal
    begins: Sequence[Callable[[], None]]

    def begin(self) -> None:
        """Go on with what was under way."""
        for begin in self.begins:
            begin()

    def close(self) -> None:
        """End what works for it."""
        self.customization.close()
        self.training.close()
        self.answers.close()
        self.journal.close()


def build(given: Options, url: str, folder: Path, warn: Callable[[str], object]) -> Endpoint:
    """Put the parts together. `folder` is where jobs work; `given.state` says if it is kept."""
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.endpoint.journal import Journal
    from cloudft.endpoint.moto_app import moto_app
    from cloudft.home import Home

    services = Services(given, url)
    machines = Machines(moto_app(ACCOUNT), services.once)
    moto = Journal(machines, given.state, warn)
    authority = Authority(services, given.region) if given.authorization else None
    s3 = Hands(lambda: services.new("s3"), authority)
    state, faults = State(given.region, given.state), Faults()
    foundation = Foundation(
        given.region,
        as_on_aws=given.as_on_aws,
        stand_in=given.stand_in,
        stand_ins=given.stand_ins,
    )
    backend = LocalBackend(Home(folder))
    answers = Answers(_opener(backend))

    def teach(identifier: str, questions: Sequence[Question]) -> Iterable[str]:
        teacher = identifier.rpartition("/")[2]
        name = foundation.stand_in(teacher.partition(".")[2] if teacher[2:3] == "." else teacher)
        return [reply.text for reply in answers.batch(Who(None, name, "base"), questions)]

    trainer: Trainer = LocalTrainer(backend, teach, given.settings)
    if given.fast:
        trainer = InstantTrainer(given.seconds)
    customization = Customization(
        state,
        foundation,
        trainer,
        s3,
        at_once=given.jobs_at_once,
        folder=folder,
        faults=faults,
    )
    runtime = Runtime(state, foundation, customization, answers)
    transfers, batches = Transfers(state, s3, folder), Batches(state, s3, runtime)
    serving = ServingOperations(state, 0.0 if given.fast else CREATING_S)
    seconds = given.seconds if given.fast else None
    stores = Hands(lambda: services.new("s3"), authority, SAGEMAKER)
    logs = Hands(lambda: services.new("logs"), authority, SAGEMAKER)
    python = given.training_env / "bin" / "python" if given.training_env else None
    training = TrainingJobs(state, stores, logs, folder, faults, seconds, python)
    rooms = (foundation, customization, serving, transfers, batches, runtime, training)
    stacks = Stacks(state, Engine(services, given.region, state.save, state.lock))
    forms: dict[str, Any] = {"cloudformation": stacks}
    if authority is not None:
        forms["iam"] = Simulator(authority)
    app = App(state, rooms, moto, faults, folder / "jobs", given.secrets, forms, given.guard)
    begins = (
        *(room.begin for room in (customization, transfers, batches, training)),
        stacks.begin,
    )
    return Endpoint(app, customization, answers, training, moto, begins)


class Services:
    """Clients of the services beside Bedrock: our own (moto's), or the S3 that was named."""

    def __init__(self, given: Options, url: str) -> None:
        self._given = given
        self._url = url
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._single: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        """The client of a service, made once."""
        if service not in self._clients:
            self._clients[service] = self.new(service)
        return self._clients[service]

    def once(self, service: str) -> Any:
        """A client that tries each request once, made once: state machines retry by themselves."""
        if service not in self._single:
            self._single[service] = self.new(service, {"total_max_attempts": 1})
        return self._single[service]

    def new(self, service: str, retries: Mapping[str, int] | None = None) -> Any:
        """Another client of it."""
        import boto3
        from botocore.config import Config

        named = self._given.s3 if service == "s3" else None
        known = dict(self._given.secrets or {})
        key = os.environ.get("AWS_ACCESS_KEY_ID", "endpoint")
        secret = os.environ.get("AWS_SECRET_ACCESS_KEY", "endpoint")
        if known and named is None:
            key, secret = next(iter(known.items()))
        # A Bedrock API key in the environment is not for plain HTTP, and botocore prefers it.
        config = Config(retries=dict(retries) if retries else None, auth_scheme_preference="sigv4")
        with self._lock:  # boto3's session is for one thread at a time
            return boto3.client(
                service,
                endpoint_url=named or self._url,
                region_name=self._given.region,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                config=config,
            )


def _opener(backend: Any) -> Callable[[Who], Any]:
    from cloudft.spec.load import load_job

    def open_child(who: Who) -> Any:
        if who.job is not None:
            return backend.child(who.job)
        flags = {"name": "asked", "base_model": who.model, "data.train": "none.jsonl"}
        return backend.open_base(load_job(None, flags=flags))

    return open_child


def serve(
    given: Options, ready: Callable[[str], None], warn: Callable[[str], object] = print
) -> None:
    """Serve until SIGINT or SIGTERM; `ready` gets the URL, `warn` what is wrong with the state.

    Raises UsageError; StoreError and BadDocument for a state that can't be used.
    """
    from werkzeug.serving import make_server

    with contextlib.ExitStack() as stack:
        folder = given.state
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="cloudft-endpoint-")
            folder = Path(stack.enter_context(temporary))
        _take(folder, stack)
        ours = stack.enter_context(listening(given.host, given.port))
        host = given.host if given.host in LOOPBACK else "127.0.0.1"
        url = f"http://{host}:{ours.getsockname()[1]}"
        endpoint = build(given, url, folder, warn)
        server = make_server(
            given.host,
            0,
            endpoint.app,
            threaded=True,
            request_handler=_handler(),
            fd=ours.fileno(),
        )
        server.passthrough_errors = True
        vars(server)["daemon_threads"] = True
        stack.callback(endpoint.close)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if given.until_pid:
            threading.Thread(target=_outlive, args=(given.until_pid,), daemon=True).start()
        threading.Thread(target=endpoint.begin, daemon=True).start()
        ready(url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _take(folder: Path, stack: contextlib.ExitStack) -> None:
    """Make the folder, for its owner's eyes (it holds training data), and hold it alone.

    Raises UsageError while another endpoint has it: two would overwrite each other's state.
    """
    with as_store_error("the endpoint's folder can't be used", folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(folder / "endpoint.lock")
    if lock is None:
        raise UsageError(f"another endpoint keeps its state in {folder}", fix="name another.")
    stack.callback(os.close, lock)


def _outlive(pid: int) -> None:
    """End this process when that one is gone."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return  # a second signal would break off the orderly end
        time.sleep(1)


def _handler() -> Any:
    from werkzeug.serving import WSGIRequestHandler

    class Handler(WSGIRequestHandler):
        """Says that it is not AWS; says nothing about requests."""

        protocol_version = "HTTP/1.1"

        def version_string(self) -> str:
            return SERVER

        def log(self, type: str, message: str, *args: Any) -> None:
            """Requests are not logged: they may hold what is nobody's business."""

        def run_wsgi(self) -> None:
            """A dropped reply breaks the connection off without a word."""
            try:
                super().run_wsgi()
            except Dropped:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
