"""Imports of merged models into Bedrock. As a customization job is, one is found by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from cloudft.aws.tags import JOB, TOKEN
from cloudft.backends import backend as backend_by_name
from cloudft.backends.base import (
    Answer,
    Asks,
    Backend,
    Decoding,
    Finds,
    Generates,
    Imports,
    Opens,
    Prompt,
    StagedJob,
    Stranger,
)
from cloudft.backends.bedrock import output, stack
from cloudft.backends.bedrock import states as bedrock_states
from cloudft.backends.bedrock.imports import convert, preflight, request, rules, serve, states
from cloudft.backends.bedrock.request import NAMES, PLAN, place_of
from cloudft.backends.on_aws import OnAws, not_there, plan_bytes
from cloudft.catalogue import import_rules
from cloudft.errors import (
    AwsConflict,
    AwsNotFound,
    JobNotFound,
    JobStateConflict,
    UsageError,
)
from cloudft.files import as_store_error
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.spec.portable import portable
from cloudft.types import (
    DataFile,
    Estimate,
    Finding,
    JobState,
    LogLine,
    Manifest,
    Metric,
    Plan,
    Volume,
)

BLOCK = 1024 * 1024
PRICES = "Custom Model Import is paid by use and by storage, at prices that no source here has"


class ImportBackend(OnAws, Backend, Imports, Finds, Generates, Opens):
    """Import jobs of one account and Region, and the models that they make."""

    name = "import"
    poll_seconds = 15.0
    asking_costs = True

    def place_of(self, job: LoadedJob) -> Mapping[str, Any]:
        """Region, profile and endpoint of the job file's bedrock section."""
        return place_of(job)

    def completed(self, job: LoadedJob) -> LoadedJob:
        """With the outputs of its stack, where it names one."""
        return stack.completed(job, self.at(place_of(job)).aws)

    def check(self, job: LoadedJob) -> list[Finding]:
        """What Bedrock would refuse of the place: Region, role, bucket."""
        return preflight.findings(job, self.at(place_of(job)).aws)

    def estimate(self, job: LoadedJob, volumes: Mapping[str, Volume]) -> Estimate:
        """An import itself costs nothing, and an idle model no inference; its storage does."""
        return Estimate(
            backend=self.name,
            train_tokens=0,
            epochs=0,
            usd={"training": 0.0, "storagePerMonth": None, "servingPerHour": 0.0},
            seconds=None,
            price_source=PRICES,
            price_date="",
        )

    def look_at(self, job: LoadedJob, config: Mapping[str, Any], file: str) -> list[Finding]:
        """What config.json alone tells, before anything is merged."""
        return list(rules.architecture(config, file, job.spec.bedrock.region))

    def take(
        self, job: LoadedJob, manifest: Manifest, folder: Path
    ) -> tuple[StagedJob, list[Finding]]:
        """Put the folder into the form that Bedrock reads, and hold it against Bedrock's rules."""
        with as_store_error("the merged model can't be made ready", folder):
            try:
                convert.convert(folder, import_rules().transformers)
            except ValueError as error:
                message = f"{folder} can't be put into Bedrock's form: {error}"
                raise UsageError(message, file=str(folder), fix=rules.OTHER) from error
            supervised = job.spec.customization_type == "FINE_TUNING"
            found = rules.findings(folder, supervised=supervised, region=job.spec.bedrock.region)
            files = {path.name: _file(path) for path in rules.files(folder)}
        return request.MergedJob(job, manifest, folder, files=files), found

    def plan(self, staged: StagedJob) -> Plan:
        """The calls, in order, with everything that is in them."""
        if not isinstance(staged, request.MergedJob):
            raise UsageError("an import is made of a trained job", fix="cloudft import JOB")
        return Plan(
            backend=self.name,
            token=request.token(staged),
            name=staged.job.spec.name,
            request={
                "hyperParameters": dict(staged.job.spec.hyperparameters),
                "place": place_of(staged.job),
                "calls": request.calls(staged),
                "model": {name: file.sha256 for name, file in staged.files.items()},
            },
            files={name: staged.folder / name for name in sorted(staged.files)},
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, {}),
            spec=portable(staged.job),
        )

    def submit(self, plan: Plan, progress: Callable[[int], None] | None = None) -> str:
        """Send the model to S3, then create the import, unless it is there."""
        here = self.at(plan.request["place"])
        known = here._named(plan)
        if known is not None:
            return known
        here._send(plan, progress)
        return here._create(plan)

    def find(self, plan: Plan) -> str | None:
        """By its name, which follows from the plan's token."""
        return self.at(plan.request["place"])._named(plan)

    def _named(self, plan: Plan) -> str | None:
        """The ARN of the plan's import when it was created before. Its tag is the proof."""
        try:
            arn = str(self._get(plan.job_id)["jobArn"])
        except JobNotFound:
            return None
        told = self._tags(arn).get(TOKEN)
        if told not in (None, plan.token):
            message = f"an import {plan.job_id} is there, and it is another one ({arn})"
            raise AwsConflict(message, fix="give the job another name.")
        return arn

    def _send(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        *puts, _ = plan.request["calls"]
        for (name, path), call in zip(plan.files.items(), puts[:-1], strict=True):
            sha256 = plan.request["model"][name]
            self.send_file(call["parameters"], path, sha256, progress)
        self.send(puts[-1]["parameters"], plan_bytes(plan))

    def _create(self, plan: Plan) -> str:
        what, call = f"the import {plan.job_id} can't be created", plan.request["calls"][-1]
        made = self.create(what, call, lambda: self._named(plan))
        return made if isinstance(made, str) else str(made["jobArn"])

    def _get(self, job_id: str) -> Mapping[str, Any]:
        what, operation = f"the import {job_id} can't be looked at", "get_model_import_job"
        answer = self.look_up(what, "bedrock", operation, jobIdentifier=job_id)
        if answer is None:
            raise not_there(f"Bedrock has no import {job_id}")
        return answer

    def _tags(self, arn: str) -> dict[str, str]:
        what = f"the tags of {arn} can't be read"
        answer = self.aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
        return {tag["key"]: tag["value"] for tag in answer["tags"]}

    def describe(self, job_id: str) -> JobState:
        """One look; of a completed import, its model is looked at too."""
        answer = self._get(job_id)
        if answer["status"] != "Completed":
            return states.state(answer)
        try:
            return states.state(answer, self._model(answer))
        except JobStateConflict:  # the model was removed since
            return states.state(answer)

    def _model(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """The imported model. Raises JobStateConflict before there is one, or when it is gone."""
        name = answer["jobName"]
        if answer["status"] != "Completed":
            message = f"{name} is {answer['status']}: there is no imported model"
            raise JobStateConflict(message, fix=f"`cloudft watch {name}` waits for its end.")
        arn = str(answer["importedModelArn"])
        what, operation = f"the model {arn} can't be looked at", "get_imported_model"
        try:
            return self.aws.call(what, "bedrock", operation, modelIdentifier=arn)
        except AwsNotFound as error:
            message = f"the model of {name} was removed from Bedrock"
            fix = "import it once more: cloudft import JOB --again"
            raise JobStateConflict(message, fix=fix) from error

    def strangers(self, known: Collection[str]) -> Iterator[Stranger]:
        """Imports whose tag says that cloudft made them; their plan lies in S3."""
        what, key = "the imports can't be listed", "modelImportJobSummaries"
        for summary in self.aws.pages(what, "bedrock", "list_model_import_jobs", key):
            name, arn = summary["jobName"], summary["jobArn"]
            if name in known or not NAMES.fullmatch(name) or self._tags(arn).get(JOB) != name:
                continue
            plan = self._plan_of(self._get(arn))
            if plan is not None:
                created = str(bedrock_states.iso(summary["creationTime"]))
                yield Stranger(plan, arn, created)

    def _plan_of(self, answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
        uri = answer["modelDataSource"]["s3DataSource"]["s3Uri"]
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        key = f"{prefix.partition(request.MODELS)[0]}jobs/{answer['jobName']}/{PLAN}"
        try:
            plan: Mapping[str, Any] = orjson.loads(output.read(self.aws, {"Bucket": bucket}, key))
        except AwsNotFound:
            return None
        return plan

    def metrics(self, job_id: str) -> Iterator[Metric]:
        """None: nothing is trained."""
        self._get(job_id)
        yield from ()

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Its beginning and its end. The cursor is a line's number."""
        lines = list(states.log(self._get(job_id)))
        yield from lines[0 if after is None else int(after) + 1 :]

    def stop(self, job_id: str) -> None:
        """Nothing for an import that has ended. Raises JobStateConflict: Bedrock can't stop one."""
        if self._get(job_id)["status"] == "InProgress":
            message = f"{job_id} can't be stopped: Bedrock has no operation for it"
            raise JobStateConflict(message, fix="wait for its end, then `cloudft gc`.")

    def artifacts(self, job_id: str, to: Path) -> Path:
        """Raises JobStateConflict: the model stays with Bedrock."""
        self._get(job_id)
        message = f"{job_id} leaves no files: its model is in Bedrock"
        raise JobStateConflict(message, fix="those of the trained job are with that job.")

    def generate(
        self, job_id: str, prompts: Sequence[Prompt], variants: Sequence[str], decoding: Decoding
    ) -> Iterator[Answer]:
        """Ask the imported model; the base is asked on this machine."""
        asks = self.open(job_id)
        try:
            yield from asks.ask(prompts, variants, decoding)
        finally:
            asks.close()

    def open(self, job_id: str) -> Asks:
        """The imported model, and its open base on this machine."""
        answer = self._get(job_id)
        model = serve.Imported(self.aws, self._model(answer))
        return serve.Beside(model, lambda: self.open_base(self._job(answer["jobName"])))

    def open_base(self, job: LoadedJob) -> Asks:
        """The open weights, on this machine."""
        local = backend_by_name("local", self.home)
        assert isinstance(local, Opens)
        return local.open_base(job)

    def _job(self, name: str) -> LoadedJob:
        path = self.home.jobs / name / "record.json"
        with as_store_error(f"the record of {name} can't be read", path):
            return load_spec(orjson.loads(path.read_bytes())["spec"])


def _file(path: Path) -> DataFile:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    size = path.stat().st_size
    return DataFile(0, 0, 0, name=path.name, sha256=digest.hexdigest(), bytes=size)
