"""The seam between a job and what runs it: narrow here, comfort above it (jobs.py).

A backend is one folder with the same file names as its neighbours: `backend.py`, `request.py`
(pure), `preflight.py`, `serve.py`. What not every backend can do is a type of its own.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.errors import DamagedJob, JobNotFound, UsageError
from cloudft.spec.load import LoadedJob
from cloudft.types import (
    CallerIdentity,
    DataVolume,
    Estimate,
    Finding,
    JobState,
    Listing,
    LogLine,
    Manifest,
    Metric,
    Plan,
    StagedFile,
)

ProgressCallback = Callable[[str, int, int], None]
"""Told what goes on, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class StagedJob:
    """A job whose data is staged in `folder`. A later `attempt` is another job of the same text."""

    job: LoadedJob
    manifest: Manifest
    folder: Path
    attempt: int = 0


def with_placeholder_data(job: LoadedJob) -> StagedJob:
    """The job with a stand-in for its staged data: what its request looks like."""
    roles = ("train", "validation") if job.spec.data.validation is not None else ("train",)
    files = {
        role: StagedFile(0, 0, 0, name=f"{role}.jsonl", sha256="0" * 64, bytes=0) for role in roles
    }
    kind = job.spec.customization_type
    empty = Manifest("0" * 64, kind, job.model.formats.get(kind, ""), job.spec.seed, files, (), "")
    return StagedJob(job, empty, Path())


class Backend(ABC):
    """Runs jobs. Every method may be called from any process, at any time."""

    name: str
    poll_seconds: float = 30.0
    """How often it makes sense to look at a job."""
    longest_poll_seconds: float | None = None
    """How rarely, when nothing has changed for long."""
    inference_is_billed: bool = False
    """True where a job's models are asked elsewhere, for money."""

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """The job with what it leaves to the backend's account to say. Reads only.

        Raises CheckFailed where the account says nothing of use, AwsRefused and AwsUnreachable.
        """
        return job

    @abstractmethod
    def check(self, job: LoadedJob) -> list[Finding]:
        """What this backend adds to the checks of spec and data. Reads only."""

    @abstractmethod
    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Tokens, time and cost of a job with so much data by role, before anything runs."""

    @abstractmethod
    def plan(self, staged: StagedJob) -> Plan:
        """The exact request as a value. Touches nothing; the same input gives the same plan."""

    @abstractmethod
    def submit(self, plan: Plan, progress: Callable[[int], None] | None = None) -> str:
        """Start the job; returns the backend's id. Twice with one plan is one job.

        `progress` is told the bytes that have gone to where the job runs.
        """

    @abstractmethod
    def describe(self, job_id: str) -> JobState:
        """One look at the job. Raises JobNotFound for an id that this backend does not have."""

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """One look at each of these jobs, by id; those that this backend lacks are left out.

        A backend that can ask for many at once does; what takes a call for each job, such as
        bringing artifacts home, is left out then.
        """
        found = {}
        for job_id in job_ids:
            with contextlib.suppress(JobNotFound, DamagedJob):
                found[job_id] = self.describe(job_id)
        return found

    def location_of(self, job: LoadedJob) -> Mapping[str, Any]:
        """Where the job file wants the job to run: what `at` takes. Plain data."""
        return {}

    def bind(self, place: Mapping[str, Any]) -> Backend:
        """The same backend at that place: its account, its Region, its endpoint."""
        return self

    @abstractmethod
    def metrics(self, job_id: str) -> Iterator[Metric]:
        """The points of the loss curves known so far, by step."""

    @abstractmethod
    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """The log lines known so far, those behind the cursor `after` alone when it is given."""

    @abstractmethod
    def stop(self, job_id: str) -> None:
        """Ask the job to stop. A second call does nothing; one on an ended job neither."""

    @abstractmethod
    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy what the job left to the new folder `to`, in the layout of storage/artifacts.py.

        `on_copied` gets the size of each file that was copied, in bytes. Raise JobStateConflict for
        a job that has no artifacts, or a folder that exists.
        """


class SupportsResume(ABC):
    """A backend whose stopped or failed jobs can go on from a checkpoint."""

    @abstractmethod
    def resume(self, job_id: str) -> None:
        """Go on. Raises JobStateConflict for a job that runs, or that is complete."""


@dataclass(frozen=True)
class Prompt:
    """What to ask: a conversation to answer, or (with `text`) raw text to go on with."""

    messages: Sequence[Mapping[str, str]] = ()
    text: str | None = None


@dataclass(frozen=True)
class GenerationConfig:
    """How to answer. `temperature` 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 7


@dataclass(frozen=True)
class Answer:
    """One answer. `index` is the prompt's place; `variant` is `tuned` or `base`."""

    index: int
    variant: str
    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True)
class DiscoveredJob:
    """A job that was submitted from another machine: its id there, and what is known of it here.

    Its `request` names the place where it was found, never one that its plan names.
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
    """A backend that many machines submit to, and that can tell of the jobs of all of them."""

    @abstractmethod
    def find_submitted(self, plan: Plan) -> str | None:
        """The id there of this very plan's job, whoever submitted it; None when there is none."""

    @abstractmethod
    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """The jobs that cloudft made there, but those whose id is `known`.

        One whose plan can't be taken comes as the error that says why.
        """


class SupportsPricing(ABC):
    """A backend that can ask what things cost now."""

    @abstractmethod
    def with_current_prices(self, job: LoadedJob, estimate: Estimate) -> Estimate:
        """The estimate by the prices of now; as it was where they can't be had."""


class SupportsIdentity(ABC):
    """A backend that acts in an account, as somebody."""

    @abstractmethod
    def get_identity(self, job: LoadedJob) -> CallerIdentity:
        """Return who submits that job: account, identity, Region, and where each comes from."""


class SupportsGenerate(ABC):
    """A backend whose tuned model, and its base, can be asked."""

    @abstractmethod
    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """An answer for each prompt and variant, in the order in which they come."""


@dataclass(frozen=True)
class ScoringRequest:
    """A text whose likelihood is asked, behind `prompt`."""

    prompt: Prompt
    text: str


@dataclass(frozen=True)
class Likelihood:
    """How likely a model holds a text: the sum over its `tokens` of ln p, in nats.

    `greedy` is True when each of them was the likeliest there.
    """

    index: int
    variant: str
    log_likelihood: float
    tokens: int
    greedy: bool


class InferenceSession(ABC):
    """The models of one job, loaded or reachable, until `close`. For one caller at a time."""

    @abstractmethod
    def model_identities(self) -> Mapping[str, str]:
        """What the variants are: the sha256 of the weights in force, or the ARN that answers.

        Two variants that can't but answer alike (adapters that were never trained) are one.
        """

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """An answer for each prompt and variant, in the order in which they come."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the models."""


class SupportsLogLikelihood(ABC):
    """Models that tell how likely they hold given text: an ability of what `Asks`."""

    @abstractmethod
    def loglikelihood(
        self, wanted: Sequence[ScoringRequest], variants: Sequence[str]
    ) -> Iterator[Likelihood]:
        """Of each continuation, its end token left out, and variant; in the order they come."""

    @abstractmethod
    def loglikelihood_rolling(
        self, texts: Sequence[str], variants: Sequence[str], *, window: int | None = None
    ) -> Iterator[Likelihood]:
        """Of each whole document: windows of `window` tokens (the context at most) that overlap.

        Every token but the first is predicted once, from at least half a window of those before
        it where there are so many. `greedy` means nothing here and is False.
        """


class SupportsInference(ABC):
    """A backend whose models can be held open, for many questions."""

    @abstractmethod
    def open_session(self, job_id: str) -> InferenceSession:
        """The job's models. Raises JobStateConflict before there are any."""

    @abstractmethod
    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """The base model that this job would tune, alone: the variant `base`."""


class SupportsBatchInference(ABC):
    """A backend that answers many questions as a job of its own, without anything that serves."""

    @abstractmethod
    def open_batch_session(self, job_id: str) -> InferenceSession:
        """The job's models. Raises JobStateConflict before there are any."""


@dataclass(frozen=True)
class LmEvalMetric:
    """One figure of a benchmark's task for each of its records, in one order for both models."""

    task: str
    figure: str
    base: Sequence[float]
    tuned: Sequence[float]


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
        """The figures of every task; `include` is a folder with tasks of one's own.

        Raises TrainerError for a task that there is not, or whose data can't be had.
        """


class ModelImporter(ABC):
    """A backend that takes merged models of trained jobs in. Its `plan` takes what `take` gives."""

    @abstractmethod
    def validate_config(
        self, job: LoadedJob, config: Mapping[str, Any], file: str
    ) -> list[Finding]:
        """What the base model's config.json (in `file`) tells, before anything is merged."""

    @abstractmethod
    def prepare_model(
        self, job: LoadedJob, manifest: Manifest, folder: Path
    ) -> tuple[StagedJob, list[Finding]]:
        """The merged model in `folder`, put into the form that is read there, and its faults.

        Raises StoreError, UsageError. Twice is once.
        """


class SupportsExport(ABC):
    """A backend that hands out one merged model."""

    @abstractmethod
    def export(self, job_id: str, out: Path, dtype: str) -> Mapping[str, Any]:
        """Write the merged model to the new folder `out`; returns the proof that it is the same."""


class SupportsProbe(ABC):
    """A backend that finds out what a job takes by beginning with it."""

    @abstractmethod
    def probe(self, staged: StagedJob, steps: int, progress: ProgressCallback) -> Estimate:
        """The job's own tokens, steps, memory and time, from so many real steps that are dropped.

        Where memory does not suffice, no step is taken and `seconds` is None. Raises TrainerError.
        """


class SupportsTokenize(ABC):
    """A backend that has the tokenizer of the model that it trains."""

    @abstractmethod
    def tokenize(
        self, job: LoadedJob, lines: Iterable[bytes], *, preview: bool
    ) -> Iterator[Mapping[str, Any]]:
        """What the model sees of canonical lines.

        First `context` (tokens that it was made for) and `chatTemplate`; then for each line
        `tokens` and `learned` (how many carry loss), or with `preview` `pieces`: `id`, `text` and
        `learned` of each token. Raises TrainerError.
        """


IN_USE = "in-use"
"""The status of staged data that a running job reads, whoever made the job; its `id` may be a
prefix. Several backends may read the same bytes, and each knows its own jobs alone."""
IN_USE_PART_SUFFIX = "and their data"
"""How the names of an inventory's parts end that tell which data is in use."""


@dataclass(frozen=True)
class CloudResource:
    """Something that is there on the backend's side, and may cost.

    `kind` is `deployment`, `provisioned-throughput`, `custom-model`, `imported-model` or `data`;
    on SageMaker `training-job`, `warm-pool` or `data`. `backend` is the one that tells of it.
    `usd` has `perHour` and `perMonth`, None where no price is known. `job` is set when cloudft made
    it; `model` is the ARN that a serving serves; `expires_at` its time to live, ISO 8601. `basis`
    is what the price rests on: how it is billed, with source and date. `also` names further jobs
    that it belongs to; without `job_known` its tags could not be read, and `job` says nothing.
    """

    kind: str
    id: str
    name: str
    status: str
    created_at: str
    usd: Mapping[str, float | None]
    job: str | None = None
    model: str | None = None
    expires_at: str | None = None
    backend: str = "bedrock"
    basis: str = ""
    also: tuple[str, ...] = ()
    job_known: bool = True


def not_owned_error(thing: CloudResource) -> UsageError:
    """Return the error for what cloudft did not make: it is neither changed nor removed."""
    return UsageError(
        f"{thing.kind} {thing.name} is not cloudft's: it has no tag cloudft:job ({thing.id})",
        fix="remove it by the means that made it.",
    )


@dataclass(frozen=True)
class ServingPlan:
    """How a job's model would be served: the exact call, and what it costs while it stands.

    `stands` is what serves the model already: then `call` is not made, but `renewal`, which gives
    it the time to live that ends at `expires_at`; None where that stays as it is.
    """

    kind: str
    name: str
    call: Mapping[str, Any]
    usd: Mapping[str, float | None]
    expires_at: str | None = None
    existing: CloudResource | None = None
    renewal: Mapping[str, Any] | None = None


class SupportsServing(ABC):
    """A backend whose tuned models are asked through something that is made for it."""

    @abstractmethod
    def plan_serving(
        self, job_id: str, *, provisioned: bool, units: int, hours: float | None
    ) -> ServingPlan:
        """The cheapest way that the model allows, or provisioned throughput. Changes nothing.

        Raises JobStateConflict where something else serves the model already.
        """

    @abstractmethod
    def deploy(self, plan: ServingPlan) -> CloudResource:
        """Make it; twice with one plan is one. Raises JobStateConflict for another one there.

        What stands already gets the plan's time to live, where it has one.
        """

    @abstractmethod
    def list_servings(self, job_id: str) -> list[CloudResource]:
        """What serves the job's model now."""

    @abstractmethod
    def undeploy(self, job_id: str) -> list[CloudResource]:
        """Remove what serves the job's model and cloudft made; return what was removed.

        The model stays. Raises UsageError where only what others made serves it.
        """


class SupportsInventory(ABC):
    """A backend that can tell everything that stands in its account, whoever made it."""

    @abstractmethod
    def list_resources(self) -> Listing[CloudResource]:
        """Return everything that may cost, and the parts that can't be listed.

        What cloudft made is known by its tags.
        """

    @abstractmethod
    def remove_resource(self, thing: CloudResource) -> None:
        """Remove it. One that is gone already is no error; one in use is AwsConflict."""
