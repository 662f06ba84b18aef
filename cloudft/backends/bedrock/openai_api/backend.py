"""Run reinforcement fine-tuning by Bedrock's OpenAI-compatible API.

A job is found again by the name of its training file: the API has no client token, so each upload
and each creation is looked for before it is made, and after every answer that did not come.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from cloudft.aws.client import Aws
from cloudft.backends.aws_base.api_call import ApiCall, AwsRequest, planned_request
from cloudft.backends.aws_base.backend import AwsBackend, job_not_found
from cloudft.backends.aws_base.grader_package import STACK_SUFFIX
from cloudft.backends.base import Backend, Location, StagedJob
from cloudft.backends.bedrock import job_cost, stack
from cloudft.backends.bedrock.openai_api import inventory, preflight, request, states
from cloudft.backends.bedrock.openai_api.chat import ChatModels
from cloudft.backends.bedrock.openai_api.request import SERVICE
from cloudft.backends.bedrock.request import base_model_identifier
from cloudft.backends.capabilities import (
    DiscoveredJob,
    SupportsDiscovery,
    SupportsGenerate,
    SupportsInference,
    SupportsInventory,
)
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.resources import CloudResource
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    DamagedJob,
    JobStateConflict,
)
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.storage import artifacts as layout
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store
from cloudft.types import (
    DataVolume,
    Estimate,
    Finding,
    JobState,
    Listing,
    LogLine,
    Metric,
    Plan,
    is_job_id,
)

ARTIFACTS = "artifacts"
PAGE = 100
RETRY_S = 60.0
"""How long an upload or a creation without an answer is repeated."""
T = TypeVar("T")


class OpenAIFineTuningBackend(
    AwsBackend, Backend, SupportsDiscovery, SupportsGenerate, SupportsInference, SupportsInventory
):
    """Fine-tuning jobs of one account and Region. Its models answer without a deployment."""

    name = "bedrock"
    inference_is_billed = True

    def __init__(self, home: Home, aws: Aws | None = None) -> None:
        super().__init__(home, aws)
        self._records: dict[str, JobRecord] = {}

    def location_of(self, job: LoadedJob) -> Location:
        """Return Region, profile and endpoint of the job file, and the API."""
        return request.location_of(job)

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """Return the job with the grader of its stack, where it names one: it needs nothing else.

        Raise CheckFailed where there is no such grader, CloudRefused and CloudUnreachable.
        """
        name = job.spec.bedrock.stack
        if name is None:
            return job
        aws = self.aws_for(self.location_of(job))
        return stack.with_grader(job, aws, f"{name}{STACK_SUFFIX}")

    def check(self, job: LoadedJob) -> list[Finding]:
        """Return what the API would refuse, and what the caller may not read."""
        return preflight.check_job(job, self.aws_for(self.location_of(job)))

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Return an estimate by the catalogue's price of an hour, bounded by max_hours."""
        return job_cost.estimate_job(self.name, job, volumes["train"])

    def plan(self, staged: StagedJob) -> Plan:
        """Return the uploads and the creation, with all their parameters."""
        token = request.request_token(staged)
        calls = request.api_calls(staged, token)
        files = {
            str(call.file): staged.folder / staged.manifest.files[str(call.file)].name
            for call in calls
            if call.file
        }
        return Plan(
            backend=self.name,
            token=token,
            name=staged.job.spec.name,
            request=AwsRequest(
                hyper_parameters=request.hyperparameters_of(staged.job),
                place=request.location_of(staged.job),
                calls=calls,
            ).to_json(),
            files=files,
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, staged.volumes),
            spec=to_portable_values(staged.job),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Upload the files and create the job, each unless it is there; return the job's id."""
        self.aws_for(plan.request["place"])
        existing = self._find_job(plan.job_id)
        if existing is not None:
            return str(existing["id"])
        inventory.record_use(self.home, str(self.aws.region))
        *uploads, create = planned_request(plan).calls
        ids = {str(call.file): self._upload(plan, call, observer) for call in uploads}
        parameters = {**create.parameters, "training_file": ids["train"]}
        if "validation_file" in parameters:
            parameters["validation_file"] = ids["validation"]
        failure = f"the job {plan.job_id} can't be created"

        def create_job() -> Mapping[str, Any]:
            return self.aws.call_without_retry(failure, SERVICE, create.operation, **parameters)

        job = _find_or_make(lambda: self._find_job(plan.job_id), create_job)
        return str(self._settle(plan.job_id, job)["id"])

    def _upload(self, plan: Plan, call: ApiCall, observer: RunObserver) -> str:
        """Return the id of an uploaded file, which is uploaded unless it is there."""
        from urllib3 import encode_multipart_formdata

        role, path = str(call.file), plan.files[str(call.file)]
        name, size = request.file_name(plan.job_id, role), plan.manifest.files[role].bytes

        def send() -> Mapping[str, Any]:
            form, content_type = encode_multipart_formdata(
                {"purpose": request.PURPOSE, "file": (name, path.read_bytes(), "application/jsonl")}
            )
            response = self.aws.call_without_retry(
                f"{path.name} can't be uploaded",
                SERVICE,
                call.operation,
                form=form,
                content_type=content_type,
            )
            observer.on_upload(size)
            return response

        def find() -> Mapping[str, Any] | None:
            files = [file for file in self._list_files(name) if file.get("bytes") == size]
            return files[0] if files else None

        return str(_find_or_make(find, send)["id"])

    def _settle(self, name: str, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the job that stays where two submits at once have created two: the oldest.

        The others are cancelled before they have cost much.
        """
        first, *others = self._list_own_jobs(name) or [job]
        for other in others:
            if not states.has_ended(other):
                self._cancel(str(other["id"]))
        return first

    def _list_files(self, name: str) -> list[Mapping[str, Any]]:
        """Return the files of that name, the oldest first."""
        failure = "the files can't be listed"
        listed = self.aws.paginate(failure, SERVICE, "list_files", "data", purpose=request.PURPOSE)
        found = [file for file in listed if file["filename"] == name]
        return _oldest_first(found)

    def _list_jobs(self) -> Iterator[Mapping[str, Any]]:
        failure, operation = "the jobs can't be listed", "list_fine_tuning_jobs"
        return self.aws.paginate(failure, SERVICE, operation, "data", limit=PAGE)

    def _list_own_jobs(self, name: str) -> list[Mapping[str, Any]]:
        """Return the jobs of that name, the oldest first."""
        files = {file["id"] for file in self._list_files(request.file_name(name))}
        if not files:
            return []
        found = [job for job in self._list_jobs() if job["training_file"] in files]
        return _oldest_first(found)

    def _find_job(self, name: str) -> Mapping[str, Any] | None:
        """Return the job whose training file has the name of this one; None without any."""
        return next(iter(self._list_own_jobs(name)), None)

    def find_submitted(self, plan: Plan) -> str | None:
        """Return the id of the job of this exact plan, from any machine, or None."""
        self.aws_for(plan.request["place"])
        job = self._find_job(plan.job_id)
        return None if job is None else str(job["id"])

    def list_untracked(self, known: Collection[str]) -> Iterator[DiscoveredJob | DamagedJob]:
        """Yield nothing: the API keeps no plan of a job that another machine could read."""
        yield from ()

    def _get_job(self, job_id: str) -> Mapping[str, Any]:
        """Return the job of the API's id, or of the id of a job that was interrupted."""
        job: Mapping[str, Any] | None
        if is_job_id(job_id):
            job = self._find_job(job_id)
        else:
            failure, operation = f"can't read the job {job_id}", "get_fine_tuning_job"
            job = self.describe_or_none(failure, SERVICE, operation, fine_tuning_job_id=job_id)
        if job is None:
            raise job_not_found(f"Bedrock's OpenAI-compatible API has no job {job_id}")
        return job

    def _record_of(self, job: Mapping[str, Any]) -> JobRecord | None:
        """Return this machine's record of a job; None where it has none."""
        identifier = str(job["id"])
        if identifier not in self._records:
            for record in Store(self.home.jobs).iter_records():
                if isinstance(record, JobRecord) and record.backend_job_id is not None:
                    self._records[record.backend_job_id] = record
        return self._records.get(identifier)

    def describe(self, job_id: str) -> JobState:
        """Return the job's state; write the curves of a completed job the first time."""
        job = self._get_job(job_id)
        record = self._record_of(job)
        name = record.id if record is not None else job_id
        folder = self.home.jobs / name / ARTIFACTS
        if job["status"] == "succeeded" and record is not None and not layout.is_complete(folder):
            self._write_artifacts(job, record, folder)
        return self._state(job, record, name)

    def _state(self, job: Mapping[str, Any], record: JobRecord | None, name: str) -> JobState:
        folder = self.home.jobs / name / ARTIFACTS
        is_there = record is not None and layout.is_complete(folder)
        return states.to_job_state(job, name, str(folder) if is_there else None)

    def _write_artifacts(self, job: Mapping[str, Any], record: JobRecord, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        (folder / layout.MANIFEST).write_bytes(orjson.dumps(record.manifest, option=options))
        (folder / layout.RESULT).write_bytes(orjson.dumps(dict(job), option=options))
        states.write_curves(self._list_events(str(job["id"])), folder)

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """Return the states of these jobs from the account's list."""
        missing, found = set(job_ids), {}
        for job in self._list_jobs():
            if job["id"] in missing:
                record = self._record_of(job)
                found[job["id"]] = self._state(job, record, record.id if record else job["id"])
                missing.remove(job["id"])
            if not missing:
                break
        return found

    def _list_events(self, job_id: str) -> list[Mapping[str, Any]]:
        """Return a job's events in order of time: the API lists the newest first."""
        listed = self.aws.paginate(
            f"the events of {job_id} can't be listed",
            SERVICE,
            "list_fine_tuning_events",
            "data",
            fine_tuning_job_id=job_id,
            limit=PAGE,
        )
        return list(listed)[::-1]

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """Yield the points of the curves so far, while the job runs too."""
        state = self.describe(job_id)
        if state.artifacts is not None:
            points = layout.read_metrics(Path(state.artifacts))
        else:
            points = states.to_metrics(self._list_events(state.summary["fineTuningJob"]))
        yield from sorted(points, key=lambda point: (point.step, point.split))

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield the job's events. The cursor is an event's id."""
        job = self._get_job(job_id)
        yield from states.log_lines(self._list_events(str(job["id"])), after)

    def stop(self, job_id: str) -> None:
        """Cancel the job, unless it has ended."""
        job = self._get_job(job_id)
        if not states.has_ended(job):
            self._cancel(str(job["id"]))

    def _cancel(self, identifier: str) -> None:
        failure = f"the job {identifier} can't be cancelled"
        try:
            self.aws.call(failure, SERVICE, "cancel_fine_tuning_job", fine_tuning_job_id=identifier)
        except CloudRefused:
            if not states.has_ended(self._get_job(identifier)):  # it has ended meanwhile
                raise

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy the curves and the manifest; the model stays in Bedrock."""
        return layout.copy_artifacts(job_id, self.describe(job_id).artifacts, to, on_copied)

    def generate(
        self,
        job_id: str,
        prompts: Sequence[Prompt],
        variants: Sequence[str],
        decoding: GenerationConfig,
    ) -> Iterator[Answer]:
        """Yield answers of the job's model and of its base model."""
        return self.open_session(job_id).generate(prompts, variants, decoding)

    def open_session(self, job_id: str) -> InferenceSession:
        """Return the job's model and its base model. Raise JobStateConflict before its end."""
        job = self._get_job(job_id)
        tuned = job.get("fine_tuned_model")
        if not tuned:
            raise JobStateConflict(
                f"{job_id} is {job['status']}: it has no model",
                fix=f"`cloudft watch {job_id}` waits for its end.",
            )
        return ChatModels(self.aws, {"tuned": str(tuned), "base": str(job["model"])})

    def list_resources(self) -> Listing[CloudResource]:
        """Return what the API's jobs have left in this account and Region."""
        return inventory.with_openai_resources(Listing((), ()), self.home, self.aws)

    def remove_resource(self, resource: CloudResource) -> None:
        """Delete an uploaded file."""
        inventory.delete_file(self.aws, resource)

    def open_base_session(self, job: LoadedJob) -> InferenceSession:
        """Return the base model."""
        aws = self.aws_for(self.location_of(job))
        return ChatModels(aws, {"base": base_model_identifier(job)})


def _oldest_first(listed: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return items of a list, which has the newest first, in order of creation.

    Times are in whole seconds: of those of one second, the list's order counts.
    """
    in_order = list(listed)[::-1]
    return sorted(in_order, key=lambda item: int(item.get("created_at", 0)))


def _find_or_make(find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """Return what is there, else what is made; repeated while no answer comes.

    Where the answer to a creation is lost, the next round finds what was created.
    """
    from tenacity import (
        Retrying,
        retry_if_exception_type,
        stop_after_delay,
        wait_random_exponential,
    )

    def find_or_make() -> T:
        found = find()
        return make() if found is None else found

    retrying = Retrying(
        retry=retry_if_exception_type(CloudUnreachable),
        stop=stop_after_delay(RETRY_S),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )
    return retrying(find_or_make)
