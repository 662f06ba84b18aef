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

from cloudft.endpoint.app import App
from cloudft.endpoint.bedrock.batch_inference import BatchInference
from cloudft.endpoint.bedrock.customization_jobs import CustomizationJobs
from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.local_inference import InferenceRequest, LocalInference, ModelRef
from cloudft.endpoint.bedrock.model_import_jobs import ModelImportJobs
from cloudft.endpoint.bedrock.runtime import BedrockRuntime
from cloudft.endpoint.cloudformation.api import CloudFormation
from cloudft.endpoint.cloudformation.engine import StackEngine
from cloudft.endpoint.fault_injection import ConnectionDropped, FaultInjector
from cloudft.endpoint.iam.authorizer import (
    SAGEMAKER_PRINCIPAL,
    PolicyAuthorizer,
    PolicySimulator,
    RoleClientFactory,
)
from cloudft.endpoint.moto.step_functions import StepFunctionsMiddleware
from cloudft.endpoint.protocols.messages import SERVER_HEADER
from cloudft.endpoint.sagemaker.training_jobs import TrainingJobs
from cloudft.endpoint.state import ACCOUNT, State
from cloudft.endpoint.training.trainers import LocalTrainer, SimulatedTrainer, Trainer
from cloudft.errors import UsageError
from cloudft.storage.atomic_files import as_store_error, try_lock
from cloudft.web.request_guard import RequestGuard

DEPLOYMENT_CREATION_S = 1.0
"""How long a deployment is `Creating` by the real clock."""
if TYPE_CHECKING:
    from cloudft.endpoint.moto.replay_log import ReplayLog

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class EndpointOptions:
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
    max_concurrent_jobs: int = 2
    as_on_aws: bool = False
    s3: str | None = None
    authorization: bool = False
    secret_keys: Mapping[str, str] | None = None
    until_pid: int | None = None
    training_env: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    """Host names that it goes by, beside `localhost`, IP addresses and `host`."""
    token: str = field(default_factory=new_token, repr=False)
    """For the page and the routes of administration."""

    @property
    def request_guard(self) -> RequestGuard:
        """What is checked of every request."""
        own = {self.host} if self.host in LOOPBACK_HOSTS else {self.host, socket.gethostname()}
        names = frozenset(name.lower() for name in {*own, *self.allowed_hosts})
        return RequestGuard(
            names, "; to allow it, start the endpoint with --allow-host", self.token
        )


def open_listening_socket(host: str, port: int) -> socket.socket:
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
    customization: CustomizationJobs
    inference: LocalInference
    training_jobs: TrainingJobs
    journal: ReplayLog
    resume_callbacks: Sequence[Callable[[], None]]

    def resume_unfinished_work(self) -> None:
        """Go on with what was under way."""
        for begin in self.resume_callbacks:
            begin()

    def close(self) -> None:
        """End what works for it."""
        self.customization.close()
        self.training_jobs.close()
        self.inference.close()
        self.journal.close()


def build_endpoint(
    given: EndpointOptions, url: str, folder: Path, warn: Callable[[str], object]
) -> Endpoint:
    """Put the parts together. `folder` is where jobs work; `given.state` says if it is kept."""
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.endpoint.moto.moto_app import create_moto_app
    from cloudft.endpoint.moto.replay_log import ReplayLog
    from cloudft.storage.home import Home

    services = ServiceClients(given, url)
    machines = StepFunctionsMiddleware(create_moto_app(ACCOUNT), services.without_retries)
    moto = ReplayLog(machines, given.state, warn)
    authority = PolicyAuthorizer(services, given.region) if given.authorization else None
    s3 = RoleClientFactory(lambda: services.create("s3"), authority)
    state, faults = State(given.region, given.state), FaultInjector()
    foundation = FoundationModels(
        given.region,
        as_on_aws=given.as_on_aws,
        stand_in=given.stand_in,
        stand_ins=given.stand_ins,
    )
    backend = LocalBackend(Home(folder))
    answers = LocalInference(_model_process_opener(backend))

    def teach(identifier: str, questions: Sequence[InferenceRequest]) -> Iterable[str]:
        teacher = identifier.rpartition("/")[2]
        name = foundation.stand_in(teacher.partition(".")[2] if teacher[2:3] == "." else teacher)
        return [
            reply.text for reply in answers.generate_batch(ModelRef(None, name, "base"), questions)
        ]

    trainer: Trainer = LocalTrainer(backend, teach, given.settings)
    if given.fast:
        trainer = SimulatedTrainer(given.seconds)
    customization = CustomizationJobs(
        state,
        foundation,
        trainer,
        s3,
        max_concurrent_jobs=given.max_concurrent_jobs,
        folder=folder,
        faults=faults,
    )
    runtime = BedrockRuntime(state, foundation, customization, answers)
    transfers, batches = ModelImportJobs(state, s3, folder), BatchInference(state, s3, runtime)
    serving = Deployments(state, 0.0 if given.fast else DEPLOYMENT_CREATION_S)
    seconds = given.seconds if given.fast else None
    stores = RoleClientFactory(lambda: services.create("s3"), authority, SAGEMAKER_PRINCIPAL)
    logs = RoleClientFactory(lambda: services.create("logs"), authority, SAGEMAKER_PRINCIPAL)
    python = given.training_env / "bin" / "python" if given.training_env else None
    training = TrainingJobs(state, stores, logs, folder, faults, seconds, python)
    rooms = (foundation, customization, serving, transfers, batches, runtime, training)
    stacks = CloudFormation(state, StackEngine(services, given.region, state.save, state.lock))
    forms: dict[str, Any] = {"cloudformation": stacks}
    if authority is not None:
        forms["iam"] = PolicySimulator(authority)
    app = App(
        state, rooms, moto, faults, folder / "jobs", given.secret_keys, forms, given.request_guard
    )
    begins = (
        *(room.begin for room in (customization, transfers, batches, training)),
        stacks.begin,
    )
    return Endpoint(app, customization, answers, training, moto, begins)


class ServiceClients:
    """Clients of the services beside Bedrock: our own (moto's), or the S3 that was named."""

    def __init__(self, given: EndpointOptions, url: str) -> None:
        self._options = given
        self._url = url
        self._lock = threading.Lock()
        self._with_retries: dict[str, Any] = {}
        self._without_retries: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        """The client of a service, made once."""
        if service not in self._with_retries:
            self._with_retries[service] = self.create(service)
        return self._with_retries[service]

    def without_retries(self, service: str) -> Any:
        """A client that tries each request once, made once: state machines retry by themselves."""
        if service not in self._without_retries:
            self._without_retries[service] = self.create(service, {"total_max_attempts": 1})
        return self._without_retries[service]

    def create(self, service: str, retries: Mapping[str, int] | None = None) -> Any:
        """Another client of it."""
        import boto3
        from botocore.config import Config

        named = self._options.s3 if service == "s3" else None
        known = dict(self._options.secret_keys or {})
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
                region_name=self._options.region,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                config=config,
            )


def _model_process_opener(backend: Any) -> Callable[[ModelRef], Any]:
    from cloudft.spec.load import load_job

    def open_child(who: ModelRef) -> Any:
        if who.local_job_id is not None:
            return backend.start_model_process(who.local_job_id)
        flags = {"name": "asked", "base_model": who.model, "data.train": "none.jsonl"}
        return backend.open_base_session(load_job(None, flags=flags))

    return open_child


def serve(
    given: EndpointOptions, ready: Callable[[str], None], warn: Callable[[str], object] = print
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
        _lock_state_folder(folder, stack)
        ours = stack.enter_context(open_listening_socket(given.host, given.port))
        host = given.host if given.host in LOOPBACK_HOSTS else "127.0.0.1"
        url = f"http://{host}:{ours.getsockname()[1]}"
        endpoint = build_endpoint(given, url, folder, warn)
        server = make_server(
            given.host,
            0,
            endpoint.app,
            threaded=True,
            request_handler=_request_handler_class(),
            fd=ours.fileno(),
        )
        server.passthrough_errors = True
        vars(server)["daemon_threads"] = True
        stack.callback(endpoint.close)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if given.until_pid:
            threading.Thread(target=_terminate_after, args=(given.until_pid,), daemon=True).start()
        threading.Thread(target=endpoint.resume_unfinished_work, daemon=True).start()
        ready(url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _lock_state_folder(folder: Path, stack: contextlib.ExitStack) -> None:
    """Make the folder, for its owner's eyes (it holds training data), and hold it alone.

    Raises UsageError while another endpoint has it: two would overwrite each other's state.
    """
    with as_store_error("the endpoint's folder can't be used", folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(folder / "endpoint.lock")
    if lock is None:
        raise UsageError(f"another endpoint keeps its state in {folder}", fix="name another.")
    stack.callback(os.close, lock)


def _terminate_after(pid: int) -> None:
    """End this process when that one is gone."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return  # a second signal would break off the orderly end
        time.sleep(1)


def _request_handler_class() -> Any:
    from werkzeug.serving import WSGIRequestHandler

    class Handler(WSGIRequestHandler):
        """Says that it is not AWS; says nothing about requests."""

        protocol_version = "HTTP/1.1"

        def version_string(self) -> str:
            return SERVER_HEADER

        def log(self, type: str, message: str, *args: Any) -> None:
            """Requests are not logged: they may hold what is nobody's business."""

        def run_wsgi(self) -> None:
            """A dropped reply breaks the connection off without a word."""
            try:
                super().run_wsgi()
            except ConnectionDropped:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
