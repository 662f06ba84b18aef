"""Conflicts of names: a resource of cloudft's is adopted, a foreign one is named in the error.

Bedrock refuses a name in use with a ValidationException, although its service model lists a
ConflictException.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from botocore.exceptions import ClientError
from endpoint import AWS_KEYS, BUCKET, REGION, Endpoint, running_endpoint

from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.error_translation import translate_aws_errors
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import batch_inference
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.bedrock.model_import.backend import ImportBackend
from cloudft.backends.bedrock.model_import.request import MergedJob
from cloudft.errors import CloudRefused, JobStateConflict, ResourceConflict
from cloudft.inference import GenerationConfig, Prompt
from cloudft.jobs import prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import StagedFile

FOREIGN = {"tags": [], "jobTags": [], "clientRequestToken": "theirs"}


class RacingAws(Aws):
    """AWS in which each resource is created just before cloudft creates it, and without its token.

    That is an earlier call whose response was lost, or a process beside this one. `changes` to its
    parameters make it a foreign resource.
    """

    def __init__(self, location: AwsLocation, operation: str, changes: Mapping[str, Any]) -> None:
        super().__init__(location)
        self.operation, self.changes = operation, changes

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        if operation == self.operation:
            first = parameters | {k: v for k, v in self.changes.items() if k in parameters}
            super().call(what, service, operation, **first)
            parameters |= {"clientRequestToken": "forgotten"}
        return super().call(what, service, operation, **parameters)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--jobs", "100") as made:
        yield made


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class Setup:
    """What a creation is tried with."""

    job: LoadedJob
    home: Home
    endpoint: Endpoint

    def aws(self, operation: str, changes: Mapping[str, Any]) -> Aws:
        place = AwsLocation(region=REGION, endpoint_url=self.endpoint.url)
        return RacingAws(place, operation, changes)


@pytest.fixture
def setup(endpoint: Endpoint, tmp_path: Path, request: pytest.FixtureRequest) -> Setup:
    tiny.write_jsonl(tmp_path / "train.jsonl", tiny.pairs(8))
    section = {**endpoint.bedrock_section, "endpoint_url": endpoint.url}
    name = "".join(c for c in request.node.name if c.isalnum())[-40:]
    spec = {"name": name, "base_model": "nova-lite", "data": {"train": "train.jsonl"}}
    path = tmp_path / "cloudft.yaml"
    path.write_text(yaml.safe_dump({**spec, "bedrock": section}))
    return Setup(load_job(path), Home(tmp_path / "home"), endpoint)


def create_customization_job(setup: Setup, changes: Mapping[str, Any]) -> None:
    aws = setup.aws("create_model_customization_job", changes)
    backend = BedrockBackend(setup.home, aws)
    staged, _ = prepare.prepare(setup.job, backend, setup.home)
    plan = backend.plan(staged)
    assert backend.find_submitted(plan) is None
    assert backend.submit(plan) == backend.find_submitted(plan)


def create_import_job(setup: Setup, changes: Mapping[str, Any]) -> None:
    backend = ImportBackend(setup.home, setup.aws("create_model_import_job", changes))
    setup.home.path.mkdir()
    (setup.home.path / "config.json").write_bytes(b"{}")
    files = {"config.json": StagedFile(0, 0, 0, name="config.json", sha256="0" * 64, bytes=2)}
    staged = with_placeholder_data(setup.job)
    plan = backend.plan(MergedJob(setup.job, staged.manifest, setup.home.path, files=files))
    assert backend.submit(plan) == backend.find_submitted(plan)


def create_batch(setup: Setup, changes: Mapping[str, Any]) -> None:
    """Find a batch whose input does not exist, so that it fails: no model is loaded here."""
    nowhere = {"s3InputFormat": "JSONL", "s3Uri": f"s3://{BUCKET}/nowhere.jsonl"}
    changes = {**changes, "inputDataConfig": {"s3InputDataConfig": nowhere}}
    aws, role = (
        setup.aws("create_model_invocation_job", changes),
        setup.endpoint.bedrock_section["role_arn"],
    )
    batched = batch_inference.BatchInferenceSession(
        aws,
        {"base": "amazon.nova-lite-v1:0"},
        batch_inference.BatchLocation(BUCKET, "team/", None, role),
    )
    prompts = [Prompt([{"role": "user", "content": "Where is my parcel?"}])]
    with pytest.raises(JobStateConflict, match="is Failed"):
        list(batched.generate(prompts, ["base"], GenerationConfig()))


def create_deployment(setup: Setup, changes: Mapping[str, Any]) -> None:
    backend = BedrockBackend(setup.home, setup.aws("create_custom_model_deployment", changes))
    staged, _ = prepare.prepare(setup.job, backend, setup.home)
    job = backend.submit(backend.plan(staged))
    bedrock = setup.endpoint.client("bedrock")
    while bedrock.get_model_customization_job(jobIdentifier=job)["status"] == "InProgress":
        pass
    plan = backend.plan_serving(job, provisioned=False, units=1, hours=2)
    resource = backend.deploy(plan)
    assert [resource.id] == [one.id for one in backend.list_servings(job)]


CREATIONS = [create_customization_job, create_import_job, create_deployment]


@pytest.mark.parametrize("make", [*CREATIONS, create_batch])
def test_a_resource_of_cloudft_is_adopted(setup: Setup, make: Callable[..., None]) -> None:
    make(setup, {})


@pytest.mark.parametrize("make", CREATIONS)
def test_a_foreign_resource_is_named_and_left_alone(
    setup: Setup, make: Callable[..., None]
) -> None:
    with pytest.raises(ResourceConflict, match="exists, and it"):
        make(setup, FOREIGN)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("The provided job name is currently in use.", ResourceConflict),
        ("The model name own already exists", ResourceConflict),
        ("The name of the role is too long", CloudRefused),
    ],
)
def test_a_name_in_use_is_a_conflict_by_its_message_too(
    message: str, kind: type[CloudRefused]
) -> None:
    response: Any = {"Error": {"Code": "ValidationException", "Message": message}}
    with pytest.raises(CloudRefused) as refused, translate_aws_errors("it can't be created"):
        raise ClientError(response, "CreateModelCustomizationJob")
    assert type(refused.value) is kind
