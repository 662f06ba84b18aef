"""A name that is taken is looked up, however AWS says so: ours is gone on with, another's is named.

Bedrock says it as a ValidationException, where its service model lists a ConflictException.
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
from endpoint import BUCKET, KEYS, REGION, Endpoint, running

from cloudft import preparing
from cloudft.aws.client import Aws, Place, aws_errors
from cloudft.backends.base import Decoding, Prompt, without_data
from cloudft.backends.bedrock import batch
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.bedrock.imports.backend import ImportBackend
from cloudft.backends.bedrock.imports.request import MergedJob
from cloudft.errors import AwsConflict, AwsRefused, JobStateConflict
from cloudft.home import Home
from cloudft.spec.load import LoadedJob, load_job
from cloudft.types import DataFile

OTHERS = {"tags": [], "jobTags": [], "clientRequestToken": "theirs"}


class Raced(Aws):
    """AWS that makes a thing just before it is made, and keeps no token.

    That is a try whose answer was lost, or a process beside this one; `changes` make it another's.
    """

    def __init__(self, place: Place, operation: str, changes: Mapping[str, Any]) -> None:
        super().__init__(place)
        self.operation, self.changes = operation, changes

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        if operation == self.operation:
            first = parameters | {k: v for k, v in self.changes.items() if k in parameters}
            super().call(what, service, operation, **first)
            parameters |= {"clientRequestToken": "forgotten"}
        return super().call(what, service, operation, **parameters)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running("--clock", "fast", "--jobs", "100") as made:
        yield made


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class Bench:
    """What a creation is tried with."""

    job: LoadedJob
    home: Home
    endpoint: Endpoint

    def aws(self, operation: str, changes: Mapping[str, Any]) -> Aws:
        place = Place(region=REGION, endpoint_url=self.endpoint.url)
        return Raced(place, operation, changes)


@pytest.fixture
def bench(endpoint: Endpoint, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    tiny.write_jsonl(tmp_path / "train.jsonl", tiny.pairs(8))
    section = {**endpoint.section, "endpoint_url": endpoint.url}
    name = "".join(c for c in request.node.name if c.isalnum())[-40:]
    spec = {"name": name, "base_model": "nova-lite", "data": {"train": "train.jsonl"}}
    path = tmp_path / "cloudft.yaml"
    path.write_text(yaml.safe_dump({**spec, "bedrock": section}))
    return Bench(load_job(path), Home(tmp_path / "home"), endpoint)


def customized(bench: Bench, changes: Mapping[str, Any]) -> None:
    aws = bench.aws("create_model_customization_job", changes)
    backend = BedrockBackend(bench.home, aws)
    staged, _ = preparing.prepare(bench.job, backend, bench.home)
    plan = backend.plan(staged)
    assert backend.find(plan) is None
    assert backend.submit(plan) == backend.find(plan)


def imported(bench: Bench, changes: Mapping[str, Any]) -> None:
    backend = ImportBackend(bench.home, bench.aws("create_model_import_job", changes))
    bench.home.path.mkdir()
    (bench.home.path / "config.json").write_bytes(b"{}")
    files = {"config.json": DataFile(0, 0, 0, name="config.json", sha256="0" * 64, bytes=2)}
    staged = without_data(bench.job)
    plan = backend.plan(MergedJob(bench.job, staged.manifest, bench.home.path, files=files))
    assert backend.submit(plan) == backend.find(plan)


def asked(bench: Bench, changes: Mapping[str, Any]) -> None:
    """The batch that is found has nothing to read: no model is loaded here."""
    nowhere = {"s3InputFormat": "JSONL", "s3Uri": f"s3://{BUCKET}/nowhere.jsonl"}
    changes = {**changes, "inputDataConfig": {"s3InputDataConfig": nowhere}}
    aws, role = (
        bench.aws("create_model_invocation_job", changes),
        bench.endpoint.section["role_arn"],
    )
    batched = batch.Batched(
        aws, {"base": "amazon.nova-lite-v1:0"}, batch.Place(BUCKET, "team/", None, role)
    )
    prompts = [Prompt([{"role": "user", "content": "Where is my parcel?"}])]
    with pytest.raises(JobStateConflict, match="is Failed"):
        list(batched.ask(prompts, ["base"], Decoding()))


def deployed(bench: Bench, changes: Mapping[str, Any]) -> None:
    backend = BedrockBackend(bench.home, bench.aws("create_custom_model_deployment", changes))
    staged, _ = preparing.prepare(bench.job, backend, bench.home)
    job = backend.submit(backend.plan(staged))
    bedrock = bench.endpoint.client("bedrock")
    while bedrock.get_model_customization_job(jobIdentifier=job)["status"] == "InProgress":
        pass
    plan = backend.plan_serving(job, provisioned=False, units=1, hours=2)
    thing = backend.deploy(plan)
    assert [thing.id] == [one.id for one in backend.servings(job)]


CREATIONS = [customized, imported, deployed]


@pytest.mark.parametrize("make", [*CREATIONS, asked])
def test_ours_is_gone_on_with(bench: Bench, make: Callable[..., None]) -> None:
    make(bench, {})


@pytest.mark.parametrize("make", CREATIONS)
def test_another_ones_is_named_and_left_alone(bench: Bench, make: Callable[..., None]) -> None:
    with pytest.raises(AwsConflict, match="is there, and it"):
        make(bench, OTHERS)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("The provided job name is currently in use.", AwsConflict),
        ("The model name own already exists", AwsConflict),
        ("The name of the role is too long", AwsRefused),
    ],
)
def test_a_taken_name_is_a_conflict_by_bedrocks_words_too(
    message: str, kind: type[AwsRefused]
) -> None:
    told: Any = {"Error": {"Code": "ValidationException", "Message": message}}
    with pytest.raises(AwsRefused) as refused, aws_errors("it can't be created"):
        raise ClientError(told, "CreateModelCustomizationJob")
    assert type(refused.value) is kind
