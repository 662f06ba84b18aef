"""Optional capabilities of a backend, one abstract class each.

A backend that has one inherits from it; callers test for it with `isinstance`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.aws.permissions import Policy
from cloudft.backends.base import StagedJob
from cloudft.backends.evaluation_jobs import (
    AnsweredRecord,
    EvaluationPlan,
    JudgedAnswers,
    JudgeSettings,
)
from cloudft.backends.export_options import ExportOptions
from cloudft.backends.resources import CloudResource, ModelShare, ServingPlan, ServingUpdatePlan
from cloudft.data.checks.check import DataReport
from cloudft.data.checks.content_limits import MediaUse
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.errors import DamagedJob
from cloudft.grading import GraderConfig, GradingSample, GradingSession
from cloudft.inference import (
    Answer,
    GenerationConfig,
    InferenceSession,
    LmEvalMetric,
    Prompt,
)
from cloudft.spec.load import LoadedJob
from cloudft.types import AdapterReach, CallerIdentity, Estimate, Finding, Listing, Manifest, Plan

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of an activity, how much of it is done, and how much there is."""


SLOW_TOKENIZER_S = 2.0
SLOW_TOKENIZER = "preparing the model's tokenizer; its first use takes up to a minute"
"""What is said of a tokenizer that has not answered after so many seconds."""


class SupportsResume(ABC):
    """A backend that resumes a stopped or failed job from its last checkpoint."""

    @abstractmethod
    def resume(self, job_id: str) -> None:
        """Resume the job. Raise JobStateConflict for one that is running or completed."""


@dataclass(frozen=True)
class DiscoveredJob:
    """A job that another machine submitted: its id in the backend, and what can be trusted of it.

    `request` has the location where the job was found, never one that its plan names.
    """

    backend_job_id: str
    created_at: str
    name: str
    token: str
    customization_type: str
    base_model: str
    hyper_parameters: Mapping[str, Any]
    request: Mapping[str, Any]
    manifest: Mapping[str, Any]
    estimate: Mapping[str, Any]
    spec: Mapping[str, Any]


class SupportsDiscovery(ABC):
    """A backend whose jobs, submitted from any machine, can be listed."""

    @abstractmethod
    def find_submitted(self, plan: Plan) -> str | None:
        """Return the backend's id of the job of this exact plan, from any machine, or None."""

    @abstractmethod
    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Yield the jobs that cloudft created in the account, except those whose id is `known`.

        A job whose plan is not acceptable is yielded as the error that says why.
        """


@dataclass(frozen=True)
class RecordsQuota:
    """How many records an account may train and validate with, together.

    `source` names the quota. `remedy` ends a sentence that says how to get by with it: how it is
    raised, or that it can't be.
    """

    limit: int
    source: str
    remedy: str


class SupportsRecordsQuota(ABC):
    """A backend whose account may have another limit on records than the documented one."""

    @abstractmethod
    def records_quota(self, job: LoadedJob) -> RecordsQuota | None:
        """Return the account's limit; None where it has none of its own, or can't be read."""


class SupportsPricing(ABC):
    """A backend that can look up current prices."""

    @abstractmethod
    def with_current_prices(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """Return the estimate at current prices; unchanged where they can't be looked up."""


class SupportsIdentity(ABC):
    """A backend that acts in an account, under an identity."""

    @abstractmethod
    def get_identity(self, job: LoadedJob) -> CallerIdentity:
        """Return who submits the job: account, identity, Region, and the origin of each."""


class SupportsGenerate(ABC):
    """A backend that generates answers with a job's tuned model and with its base model."""

    @abstractmethod
    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Yield an answer for each prompt and variant, in order of completion."""


class SupportsInference(ABC):
    """A backend whose models can be held open, for many requests."""

    @abstractmethod
    def open_session(self, job_id: str) -> InferenceSession:
        """Open the job's models. Raise JobStateConflict before there are any."""

    @abstractmethod
    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """Open only the base model that this job would tune: the variant `base`."""


class SupportsInferenceProfiles(ABC):
    """A backend whose base models are called by inference profiles in some Regions."""

    @abstractmethod
    def use_inference_profile(self, profile: str | None, note: Callable[[str], None]) -> None:
        """Call base models by a profile: an area, an id or an ARN; chosen if None.

        `note` gets what people should know about the choice, when a model is opened.
        """


class SupportsBatchInference(ABC):
    """A backend that answers many prompts as a batch job, without a deployment."""

    @abstractmethod
    def open_batch_session(self, job_id: str) -> InferenceSession:
        """Open the job's models. Raise JobStateConflict before there are any."""


class SupportsEvaluationJobs(ABC):
    """A backend whose service judges answers by jobs of its own."""

    @abstractmethod
    def plan_evaluation(
        self,
        job_id: str,
        answers: Mapping[str, Sequence[AnsweredRecord]],
        settings: JudgeSettings,
    ) -> EvaluationPlan:
        """Return the exact requests for the answers of each variant. Changes nothing."""

    @abstractmethod
    def check_evaluation(self, job_id: str, plan: EvaluationPlan) -> list[Finding]:
        """Return what the role and the caller lack for the plan's jobs."""

    @abstractmethod
    def run_evaluation(
        self, job_id: str, plan: EvaluationPlan, progress: ProgressCallback
    ) -> list[JudgedAnswers]:
        """Create what does not exist yet, wait for the end, and return the judgments.

        The same plan twice creates one job for each variant. Raise JobStateConflict for a job that
        failed.
        """


class SupportsLmEval(ABC):
    """A backend that runs the tasks of EleutherAI's lm-eval on a job's models."""

    @abstractmethod
    def run_lm_eval(
        self,
        job_id: str,
        tasks: Sequence[str],
        *,
        include: Path | None,
        limit: int | None,
        progress: ProgressCallback,
    ) -> Iterator[LmEvalMetric]:
        """Yield the metrics of every task; `include` is a folder with one's own tasks.

        Raise TrainerError for an unknown task, and for one whose data is not available.
        """


class ModelImporter(ABC):
    """A backend that imports merged models. Its `plan` takes what `prepare_model` returns."""

    @abstractmethod
    def validate_config(
        self, job: LoadedJob, config: Mapping[str, Any], file: str
    ) -> list[Finding]:
        """Check the base model's config.json (in `file`) before anything is merged."""

    @abstractmethod
    def prepare_model(
        self, job: LoadedJob, manifest: Manifest, folder: Path
    ) -> tuple[StagedJob, list[Finding]]:
        """Convert the merged model in `folder` to the format of the importer, and check it.

        Idempotent. Raise StoreError, UsageError.
        """


class ImportsStoredModels(ABC):
    """A backend that imports a model which lies in S3 already."""

    @abstractmethod
    def prepare_stored_model(
        self, job: LoadedJob, manifest: Manifest, uri: str
    ) -> tuple[StagedJob, list[Finding]]:
        """Check the model in the folder `uri` without downloading its weights; change nothing.

        Raise UsageError where there is none, CloudRefused and CloudUnreachable.
        """


class DerivesModels(ABC):
    """A backend that makes a model out of another one. Its `plan` takes what `derive` returns."""

    @abstractmethod
    def derive(
        self, job: LoadedJob, manifest: Manifest, source: str
    ) -> tuple[StagedJob, list[Finding]]:
        """Return the job that makes a model out of `source`, and what Bedrock would refuse."""

    @abstractmethod
    def policy_of(self, staged: StagedJob) -> Policy:
        """Return the IAM policy that the submitting identity needs."""


class SupportsExport(ABC):
    """A backend that exports a job's tuned model."""

    @abstractmethod
    def export(self, job_id: str, out: Path, options: ExportOptions) -> Mapping[str, Any]:
        """Write the tuned model to the new folder `out`; return the proof of equivalence."""


class SupportsRuntimeCheck(ABC):
    """A backend that runs an exported model in another runtime, beside the job's tuned model."""

    @abstractmethod
    def check_runtime(
        self, job_id: str, folder: Path, runtime: str, python: str, request: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """Yield what `runtime`, in the interpreter `python`, makes of the export in `folder`.

        `request` has `records` (prompt, and text or reply to score) and `maxNewTokens`. After each
        record comes `done` and `total`, the result at the end. Raise TrainerError where the runtime
        is missing or refuses the model.
        """


class SupportsProbe(ABC):
    """A backend that measures what a job takes by running some of its steps."""

    @abstractmethod
    def probe(self, staged: StagedJob, steps: int, progress: ProgressCallback) -> Estimate:
        """Return the job's own tokens, steps, memory and time, from `steps` discarded steps.

        Where memory does not suffice, no step is run and `seconds` is None. Raise TrainerError.
        """


class SupportsAdapters(ABC):
    """A backend that knows what the adapters of a job reach in its model."""

    @abstractmethod
    def describe_adapters(self, job: LoadedJob) -> AdapterReach | None:
        """Return it; None for a job without adapters, or whose model is not on this machine.

        Takes seconds: the trainer builds the model without its weights.
        """


class SupportsWarmStart(ABC):
    """A backend whose jobs start sooner within a context."""

    @abstractmethod
    def warm_start(self, job: LoadedJob) -> AbstractContextManager[None]:
        """Return a context in which this job, and others with its model and method, start sooner.

        Jobs go on when it ends.
        """


def warm_start(backend: object, job: LoadedJob) -> AbstractContextManager[None]:
    """Return the backend's context of warm starts; for one without, a context that does nothing."""
    return backend.warm_start(job) if isinstance(backend, SupportsWarmStart) else nullcontext()


class SupportsMedia(ABC):
    """A backend whose jobs read images, videos and documents that records name."""

    @abstractmethod
    def check_media(self, job: LoadedJob, media: MediaUse) -> list[Finding]:
        """Return what is wrong with the objects that the records of a job name. Reads only."""


class SupportsInvocationLogs(ABC):
    """A backend whose jobs can train on invocation logs, which stay where they are."""

    @abstractmethod
    def read_invocation_logs(
        self, job: LoadedJob, limits: DatasetLimits, progress: Callable[[int], None]
    ) -> DataReport:
        """Return what a job would train on of its logs, as the volume of `train`. Reads only.

        `progress` gets the number of records read so far. Raise CloudRefused and CloudUnreachable.
        """


class TokenPreviewSession(ABC):
    """A loaded tokenizer that previews one record after another. Not thread-safe."""

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """Return what `tokenize` yields first, and `specialIds`. Waits until it is loaded.

        Raise TrainerError.
        """

    @abstractmethod
    def preview(self, line: bytes) -> Mapping[str, Any]:
        """Return the tokens of a canonical line, as `tokenize` does. Raise TrainerError.

        After an error the session can only be closed.
        """

    @abstractmethod
    def close(self) -> None:
        """End the session."""


class SupportsTokenize(ABC):
    """A backend that has the tokenizer of the model that it trains."""

    @abstractmethod
    def tokenize(
        self, job: LoadedJob, lines: Iterable[bytes], *, preview: bool
    ) -> Iterator[Mapping[str, Any]]:
        """Yield what the model sees of canonical lines.

        First `context` (the context length in tokens) and `chatTemplate`; then for each line
        `tokens` and `learned` (how many tokens carry loss), or with `preview` `pieces`: `id`,
        `text` and `learned` of each token. Raise TrainerError.
        """

    @abstractmethod
    def open_preview(self, job: LoadedJob) -> TokenPreviewSession:
        """Start to load the job's tokenizer for previews. Raise UsageError where it has none."""


class SupportsChatTemplate(ABC):
    """A backend whose trainer renders records with the chat template of the trained model."""

    @abstractmethod
    def load_template_features(self, job: LoadedJob) -> Mapping[str, Sequence[str]] | None:
        """Return what the template renders, in chats with tools (`withTools`) and without.

        The keys are `withTools` and `withoutTools`; features are those of
        data/checks/template_limits.py. None if the tokenizer is not on this machine. Raise
        TrainerError.
        """

    @abstractmethod
    def has_template(self, job: LoadedJob) -> bool:
        """Return whether the tokenizer of the trained model is on this machine."""

    @abstractmethod
    def render(self, job: LoadedJob, lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
        """Yield what rendering and tokenizing canonical lines gives.

        First `context` (the context length in tokens), `chatTemplate` and `writesDate`; then for
        each line `tokens`, `learned` and perhaps `lastTurnOnly`, or `problem` and `fix` for one
        that the template refuses. Raise TrainerError.
        """


class SupportsGrading(ABC):
    """A backend that runs a grader's file on this machine, within its limits on AWS."""

    @abstractmethod
    def open_grader(self, config: GraderConfig) -> GradingSession:
        """Load a grader in a process of its own. Raise GraderFailed, TrainerError."""

    @abstractmethod
    def read_rewards(self, reply: object, ids: Sequence[str]) -> list[float]:
        """Return the rewards in the reply of a grader that ran elsewhere, in the samples' order.

        Raise TrainerError for a reply that a training refuses.
        """


class SupportsGraderInvocation(ABC):
    """A backend whose jobs are graded by a function elsewhere, which can be invoked for a test."""

    @abstractmethod
    def invoke_grader(
        self, job: LoadedJob, samples: Sequence[GradingSample], here: SupportsGrading
    ) -> list[Finding]:
        """Return what is wrong with the function's reply to one event with these answers.

        Where the job names the grader's file, its rewards `here` must be the same.
        """


class SupportsServing(ABC):
    """A backend whose tuned models need a deployment before they answer."""

    @abstractmethod
    def plan_serving(
        self,
        job_id: str,
        *,
        provisioned: bool,
        units: int,
        hours: float | None,
        commitment: str | None = None,
    ) -> ServingPlan:
        """Plan the cheapest deployment that the model allows, or provisioned throughput.

        `commitment` is the term of the throughput, `OneMonth` or `SixMonths`. Changes nothing.
        Raise JobStateConflict where another deployment serves the model already.
        """

    @abstractmethod
    def deploy(self, plan: ServingPlan) -> CloudResource:
        """Create the deployment; the same plan twice creates one.

        An existing one gets the plan's time to live, where it has one. Raise JobStateConflict
        where another deployment serves the model.
        """

    @abstractmethod
    def list_servings(self, job_id: str, *, with_rollbacks: bool = False) -> list[CloudResource]:
        """Return what serves the job's model now.

        With `with_rollbacks` also what an update or a rollback would make serve it.
        """

    @abstractmethod
    def undeploy(self, job_id: str) -> list[CloudResource]:
        """Remove what serves the job's model and was created by cloudft; return what was removed.

        The model stays. Raise UsageError where only deployments that others created serve it,
        JobStateConflict where one of them has a commitment that has not ended.
        """


class SupportsServingUpdate(ABC):
    """A backend that puts another model behind a deployment, whose address stays.

    A deployment is named by its id, its name, or one of `deployed_jobs`, whose model it serves.
    """

    @abstractmethod
    def plan_update(
        self, job_id: str, deployment: str, deployed_jobs: Collection[str]
    ) -> ServingUpdatePlan:
        """Plan that a deployment serve the model of a job. Changes nothing.

        Raise UsageError for a deployment that does not exist or that cloudft did not create, and
        for a model that it can't serve; JobStateConflict while another update is under way.
        """

    @abstractmethod
    def plan_rollback(self, deployment: str, deployed_jobs: Collection[str]) -> ServingUpdatePlan:
        """Plan that a deployment serve the model of before its last update. Changes nothing.

        Raise the same errors, and JobStateConflict where there is no such model.
        """

    @abstractmethod
    def update_serving(self, plan: ServingUpdatePlan) -> CloudResource:
        """Update the deployment and wait until its model answers; the same plan twice updates once.

        Raise JobStateConflict where it serves another model by now, and where the update failed.
        """


class SharesModels(ABC):
    """A backend whose tuned models can be shared with another account."""

    @abstractmethod
    def plan_share(self, job_id: str, account: str) -> tuple[ModelShare, list[Finding]]:
        """Return the share of a job's model, as it would be made or as it exists, and warnings.

        Changes nothing. Raise JobStateConflict before there is a model, ResourceConflict for a
        share of that name that cloudft did not make.
        """

    @abstractmethod
    def share(self, share: ModelShare) -> ModelShare:
        """Make the share; the same one twice makes one."""

    @abstractmethod
    def unshare(self, share: ModelShare) -> None:
        """Remove the share, if it exists. Copies in the other account stay."""


class SupportsInventory(ABC):
    """A backend that can list every billable resource in its account, also foreign ones."""

    @abstractmethod
    def list_resources(self) -> Listing[CloudResource]:
        """Return everything that may be billed, and the parts that can't be listed.

        What cloudft created is recognized by its tags.
        """

    @abstractmethod
    def remove_resource(self, resource: CloudResource) -> None:
        """Remove it. Removing a missing one does nothing; one in use raises ResourceConflict."""
