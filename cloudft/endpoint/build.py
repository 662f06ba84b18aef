"""Build the endpoint: its state, services, clients and WSGI application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudft.backends.local.backend import LocalBackend
from cloudft.catalogue import CustomizationApi, find_model, find_weights
from cloudft.endpoint.app import App, AppOptions, RegionServices
from cloudft.endpoint.bedrock.batch_inference import BatchInference
from cloudft.endpoint.bedrock.custom_models import CustomModels
from cloudft.endpoint.bedrock.customization_jobs import CustomizationJobs
from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.evaluation_jobs import EvaluationJobs
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.inference_profiles import InferenceProfiles
from cloudft.endpoint.bedrock.inference_request import InferenceRequest, ModelRef
from cloudft.endpoint.bedrock.invocation_logging import InvocationLogging
from cloudft.endpoint.bedrock.local_inference import LocalInference
from cloudft.endpoint.bedrock.model_copy_jobs import ModelCopyJobs
from cloudft.endpoint.bedrock.model_import_jobs import ModelImportJobs
from cloudft.endpoint.bedrock.runtime import BedrockRuntime
from cloudft.endpoint.bedrock.runtime_chat import RuntimeChat
from cloudft.endpoint.clients import ServiceClients
from cloudft.endpoint.cloudformation.change_sets import ChangeSets
from cloudft.endpoint.cloudformation.drift import DriftDetection
from cloudft.endpoint.cloudformation.engine import StackEngine
from cloudft.endpoint.cloudformation.stack_operations import StackOperations
from cloudft.endpoint.cloudformation.stacks import Stacks
from cloudft.endpoint.cloudformation.store import StackStore
from cloudft.endpoint.cloudformation.templates import TemplateReader, Templates
from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.grader_functions import GraderFunctions
from cloudft.endpoint.iam.authorizer import (
    SAGEMAKER_PRINCIPAL,
    PolicyAuthorizer,
    RoleClientFactory,
)
from cloudft.endpoint.iam.simulator import PolicySimulator
from cloudft.endpoint.local_models import LocalModels
from cloudft.endpoint.moto.moto_app import create_moto_app
from cloudft.endpoint.moto.replay_log import ReplayLog
from cloudft.endpoint.moto.step_functions import StepFunctionsMiddleware
from cloudft.endpoint.openai_api.chat import ChatCompletions
from cloudft.endpoint.openai_api.files import Files
from cloudft.endpoint.openai_api.fine_tuning_jobs import FineTuningJobs
from cloudft.endpoint.options import EndpointOptions
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.query_service import QueryService
from cloudft.endpoint.sagemaker.model_registry import ModelRegistry
from cloudft.endpoint.sagemaker.serverless import ServerlessService
from cloudft.endpoint.sagemaker.training_jobs import TrainingJobs
from cloudft.endpoint.service_quotas import ServiceQuotas
from cloudft.endpoint.state import ACCOUNT, State
from cloudft.endpoint.training.distillation import Teacher
from cloudft.endpoint.training.trainers import LocalTrainer, SimulatedTrainer, Trainer
from cloudft.errors import CloudftError
from cloudft.storage.home import Home

DEPLOYMENT_CREATION_S = 1.0
"""How long a deployment is `Creating`, and a copy `InProgress`, by the real clock."""
OPENAI = "openai"
"""Folder of the files and jobs of Bedrock's OpenAI-compatible API."""
REGIONS = "regions"
"""Folder of the states and jobs of further Regions, one folder each."""


@dataclass
class Endpoint:
    """The parts of a running endpoint. `resume_callbacks` are called in their order."""

    app: App
    customization: CustomizationJobs
    fine_tuning: FineTuningJobs
    inference: LocalInference
    training_jobs: TrainingJobs
    replay_log: ReplayLog
    stand_in: str
    resume_callbacks: Sequence[Callable[[], None]]
    other_customization: Sequence[CustomizationJobs] = ()
    """The jobs of further Regions."""

    def resume_unfinished_work(self) -> None:
        """Resume the jobs that were unfinished when the endpoint ended."""
        for resume in self.resume_callbacks:
            resume()

    def warm_up(self, note: Callable[[str], object]) -> None:
        """Load the stand-in, if its weights are on this machine. `note` gets how that goes."""
        try:
            weights = find_weights(find_model(self.stand_in))
            if not any(location.is_present for location in weights):
                return
            note(f"loading {self.stand_in}: base models answer then (slower the very first time)")
            started = time.monotonic()
            self.inference.warm_up(ModelRef(None, self.stand_in, "base"))
            note(f"{self.stand_in} answers after {time.monotonic() - started:.1f} s")
        except (CloudftError, ServiceError) as error:
            note(f"{self.stand_in} can't be loaded: {error.message}")

    def close(self) -> None:
        """End the threads and processes that work for the endpoint, and close its files."""
        for customization in (self.customization, *self.other_customization):
            customization.close()
        self.fine_tuning.close()
        self.training_jobs.close()
        self.inference.close()
        self.replay_log.close()


def build_endpoint(
    options: EndpointOptions, url: str, folder: Path, warn: Callable[[str], object]
) -> Endpoint:
    """Return an endpoint that is reached at `url`, from the state of `options.state`.

    Jobs work in `folder`. `warn` gets sentences about a damaged state, and about jobs that learned
    nothing. Raises StoreError and BadDocument for a state that can't be used.
    """
    clients = ServiceClients(options, url)
    # The log is outermost: it records what moto, its state machines included, accepted.
    step_functions = StepFunctionsMiddleware(create_moto_app(ACCOUNT), clients.without_retries)
    replay_log = ReplayLog(step_functions, options.state, warn)
    policies = PolicyAuthorizer(clients, options.region)
    # Without it jobs may do everything; the simulator answers by the policies in either case.
    authorizer = policies if options.authorization else None
    state, faults = State(options.region, options.state), FaultInjector()
    # Its jobs are its own; converted weights are shared with all of cloudft, for a conversion takes
    # half a minute.
    backend = LocalBackend(Home(folder, str(Home.from_environ().models)))
    inference = LocalInference(LocalModels(backend))
    s3 = RoleClientFactory(lambda: clients.create("s3"), authorizer)
    functions = GraderFunctions(options.graders, options.region, folder / "functions")
    parts = _SharedParts(options, backend, inference, s3, clients, faults, warn, functions)
    bedrock = _build_bedrock(parts, state, folder)
    others = [
        _build_bedrock(parts, _build_other_state(state, name, options), folder / REGIONS / name)
        for name in options.other_regions
        if name != options.region
    ]
    trainer, stand_in = bedrock.customization.trainer, options.stand_in
    serverless = ServerlessService(trainer, stand_in, registry := ModelRegistry(state))
    training = _build_training_jobs(options, state, clients, authorizer, folder, faults, serverless)
    stacks, cloudformation = _build_cloudformation(state, clients)
    fine_tuning, openai_services = _build_openai_api(parts, state, trainer, folder)
    iam = QueryService("iam", [PolicySimulator(policies)], is_complete=False)
    app = App(
        state,
        (*bedrock.services, training, registry),
        replay_log,
        faults,
        _app_options(parts, folder, others, openai_services),
        (cloudformation, iam),
    )
    callbacks = [
        *(resume for region in (bedrock, *others) for resume in region.resume_callbacks),
        *(fine_tuning.resume, training.resume, stacks.resume),
    ]
    return Endpoint(
        app,
        bedrock.customization,
        fine_tuning,
        inference,
        training,
        replay_log,
        options.stand_in,
        callbacks,
        [other.customization for other in others],
    )


@dataclass(frozen=True)
class _SharedParts:
    """The parts that the Regions of an endpoint share."""

    options: EndpointOptions
    backend: LocalBackend
    inference: LocalInference
    s3: RoleClientFactory
    clients: ServiceClients
    faults: FaultInjector
    warn: Callable[[str], object]
    functions: GraderFunctions


@dataclass(frozen=True)
class _Bedrock:
    """Bedrock in one Region."""

    state: State
    services: Sequence[object]
    customization: CustomizationJobs
    resume_callbacks: Sequence[Callable[[], None]]


def _app_options(
    parts: _SharedParts,
    folder: Path,
    others: Sequence[_Bedrock],
    openai_services: Sequence[object],
) -> AppOptions:
    options = parts.options
    return AppOptions(
        folder / "jobs",
        options.secret_keys,
        options.request_guard,
        {other.state.region: RegionServices(other.state, other.services) for other in others},
        functions=parts.functions,
        openai_services=openai_services,
    )


def _build_other_state(home: State, region: str, options: EndpointOptions) -> State:
    """Return the state of one more Region, which lies below that of the first."""
    folder = options.state / REGIONS / region if options.state else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    state = State(region, folder)
    state.join(home)
    return state


def _build_bedrock(parts: _SharedParts, state: State, folder: Path) -> _Bedrock:
    """Return Bedrock's services in the Region of a state, whose jobs work in `folder`."""
    options, inference, s3 = parts.options, parts.inference, parts.s3
    models = _build_models(options, state.region)
    profiles = InferenceProfiles(state, models)
    customization = CustomizationJobs(
        state,
        models,
        _build_trainer(options, parts.backend, _build_teacher(profiles, inference)),
        s3,
        max_concurrent_jobs=options.max_concurrent_jobs,
        invoke_requests=profiles.invoke_requests,
        folder=folder,
        faults=parts.faults,
        warn=parts.warn,
        functions=parts.functions,
    )
    seconds = 0.0 if options.fast else DEPLOYMENT_CREATION_S
    deployments = Deployments(state, models, seconds, parts.faults)
    logging = InvocationLogging(state, lambda: parts.clients("s3"), parts.warn)
    runtime = BedrockRuntime(state, profiles, customization, deployments, inference, logging.log)
    created = CustomModels(state, s3, folder)
    imports, copies = ModelImportJobs(state, s3, folder), ModelCopyJobs(state, folder, seconds)
    batches, evaluations = BatchInference(state, s3, runtime), EvaluationJobs(state, s3, runtime)
    services = (
        *(models, customization, deployments, imports, copies, batches, evaluations, runtime),
        *(profiles, created, logging, ServiceQuotas(state), RuntimeChat(runtime)),
    )
    resumable = (customization, imports, created, copies, batches, evaluations)
    return _Bedrock(state, services, customization, [service.resume for service in resumable])


def _build_openai_api(
    parts: _SharedParts, state: State, trainer: Trainer, folder: Path
) -> tuple[FineTuningJobs, Sequence[object]]:
    """Return the jobs and all services of Bedrock's OpenAI-compatible API."""
    options, folder = parts.options, folder / OPENAI
    models = _build_models(options, state.region, "openai")
    files = Files(state, folder / "files")
    jobs = FineTuningJobs(
        state,
        files,
        models,
        trainer,
        max_concurrent_jobs=options.max_concurrent_jobs,
        folder=folder,
        faults=parts.faults,
        functions=parts.functions,
    )
    return jobs, (files, jobs, ChatCompletions(state, models, parts.inference))


def _build_cloudformation(state: State, clients: ServiceClients) -> tuple[Stacks, QueryService]:
    """Return the operations on stacks, and the service with all of CloudFormation's operations."""
    engine = StackEngine(clients, state.region, state.save, state.lock)
    store, reader = StackStore(state), TemplateReader(clients)
    operations = StackOperations(store, engine, reader)
    stacks = Stacks(operations)
    implementations = (
        stacks,
        ChangeSets(operations),
        Templates(store, reader),
        DriftDetection(store, engine),
    )
    return stacks, QueryService("cloudformation", implementations, is_complete=True)


def _build_models(
    options: EndpointOptions, region: str, api: CustomizationApi = "bedrock"
) -> FoundationModels:
    return FoundationModels(
        region,
        as_on_aws=options.as_on_aws,
        stand_in=options.stand_in,
        stand_ins=options.stand_ins,
        api=api,
    )


def _build_trainer(options: EndpointOptions, backend: LocalBackend, teacher: Teacher) -> Trainer:
    if options.fast:
        return SimulatedTrainer(options.seconds)
    return LocalTrainer(backend, teacher, options.settings)


def _build_training_jobs(  # noqa: PLR0913  # the parts of the endpoint that jobs use
    options: EndpointOptions,
    state: State,
    clients: ServiceClients,
    authorizer: PolicyAuthorizer | None,
    folder: Path,
    faults: FaultInjector,
    serverless: ServerlessService,
) -> TrainingJobs:
    return TrainingJobs(
        state,
        RoleClientFactory(lambda: clients.create("s3"), authorizer, SAGEMAKER_PRINCIPAL),
        RoleClientFactory(lambda: clients.create("logs"), authorizer, SAGEMAKER_PRINCIPAL),
        folder,
        faults,
        options.seconds if options.fast else None,
        options.training_env / "bin" / "python" if options.training_env else None,
        serverless,
    )


def _build_teacher(profiles: InferenceProfiles, inference: LocalInference) -> Teacher:
    """Return the function that answers a distillation's questions by the teacher's stand-in."""

    def answer(identifier: str, requests: Sequence[InferenceRequest]) -> Iterable[str]:
        models = profiles.foundation
        base = profiles.find_model(identifier) or models.require_on_demand(identifier)
        name = models.stand_in(base.identifier)
        results = inference.generate_batch(ModelRef(None, name, "base"), requests)
        return [result.text for result in results]

    return answer
