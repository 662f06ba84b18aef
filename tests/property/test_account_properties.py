"""For any account and any flags: what cloudft did not create stays as it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.account import cleanup
from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.capabilities import SupportsInventory
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.errors import (
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    PermissionDenied,
    ResourceNotFound,
    UsageError,
)
from cloudft.infra import change_sets as changes
from cloudft.infra import destroy
from cloudft.storage.home import Home
from cloudft.storage.ledger import SubmittedJobs

ACCOUNT = "000000000000"
MADE = datetime(2026, 1, 1, tzinfo=timezone.utc)
EXPIRES = {
    "never": None,
    "past": "2026-01-02T00:00:00+00:00",
    "naive": "2026-01-02T00:00:00",
    "future": "2999-01-01T00:00:00+00:00",
    "no-time": "soon",
}
SERVINGS = ("deployment", "provisioned-throughput")
MODELS = ("custom-model", "imported-model")
LISTS = (
    *("list_custom_model_deployments", "list_provisioned_model_throughputs"),
    *("list_custom_models", "list_imported_models", "list_model_customization_jobs"),
    *("list_model_import_jobs", "list_tags_for_resource", "get_imported_model"),
    *("get_model_customization_job", "list_objects_v2", "get_caller_identity"),
    *("list_training_jobs", "describe_training_job"),
)


@dataclass(frozen=True)
class Item:
    """A resource of an account. `owner`: `own` (this home's), `deleted` (its job is), ..."""

    number: int
    kind: str
    owner: str
    expires: str
    digest: int
    running: bool

    @property
    def job(self) -> str:
        """Return its job's name; a foreign one may look like cloudft's."""
        return f"job-{self.owner}-{self.number:08x}"

    @property
    def arn(self) -> str:
        """Return its id."""
        return f"arn:aws:bedrock:us-east-1:{ACCOUNT}:{self.kind}/{self.number}"

    @property
    def key(self) -> str:
        """Return its staged file."""
        return f"team/data/{self.digest:064x}/train.jsonl"

    @property
    def tags(self) -> dict[str, str]:
        """Return its tags."""
        found = {"team": "support"}
        if self.owner != "foreign":
            found["cloudft:job"] = self.job
        if EXPIRES[self.expires]:
            found["cloudft:expires"] = str(EXPIRES[self.expires])
        return found


ITEMS = st.lists(
    st.builds(
        Item,
        number=st.integers(0, 40),
        kind=st.sampled_from([*SERVINGS, *MODELS, "data", "training-data", "warm-pool"]),
        owner=st.sampled_from(["own", "deleted", "other", "foreign"]),
        expires=st.sampled_from(sorted(EXPIRES)),
        digest=st.integers(0, 1),
        running=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda item: item.number,
)
WANTED = st.just(cleanup.GarbageCriteria()) | st.builds(
    cleanup.GarbageCriteria,
    kinds=st.sets(st.sampled_from([*SERVINGS, *MODELS, "data"]), max_size=2),
    expired_only=st.booleans(),
    days=st.sampled_from([0.0, 1.0]),
    live=st.booleans(),
    all_homes=st.booleans(),
)
WHOLE: st.SearchStrategy[dict[str, type[CloudftError]]] = st.just({})
BROKEN = WHOLE | st.dictionaries(
    st.sampled_from(LISTS), st.sampled_from([PermissionDenied, CloudUnreachable]), max_size=2
)


@dataclass
class Account(Aws):
    """An account in memory: its items, its S3 objects, and operations that fail."""

    items: dict[str, Item]
    broken: Mapping[str, type[CloudftError]]
    objects: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(AwsLocation("us-east-1"))

    def call(self, what: str, service: str, operation: str, **given: Any) -> Mapping[str, Any]:
        """Make one call."""
        if operation in self.broken:
            raise self.broken[operation](f"{what}: no")
        answer: Mapping[str, Any] = getattr(self, operation)(**given)
        return answer

    def _of(self, *kinds: str) -> list[Item]:
        return [item for item in self.items.values() if item.kind in kinds]

    def get_caller_identity(self) -> Mapping[str, Any]:
        return {"Account": ACCOUNT}

    def list_custom_model_deployments(self) -> Mapping[str, Any]:
        names = {"Arn": "arn", "Name": "job"}
        found = [
            {f"customModelDeployment{n}": getattr(i, a) for n, a in names.items()}
            | {"status": "Active", "createdAt": MADE, "modelArn": "arn:model"}
            for i in self._of("deployment")
        ]
        return {"modelDeploymentSummaries": found}

    def list_provisioned_model_throughputs(self) -> Mapping[str, Any]:
        found = [
            {
                "provisionedModelArn": i.arn,
                "provisionedModelName": i.job,
                "status": "InService",
                "creationTime": MADE,
                "modelArn": "arn:model",
                "foundationModelArn": "arn:aws:bedrock:::foundation-model/none",
                "modelUnits": 1,
            }
            for i in self._of("provisioned-throughput")
        ]
        return {"provisionedModelSummaries": found}

    def _models(self, kind: str) -> Mapping[str, Any]:
        found = [
            {"modelArn": i.arn, "modelName": i.job, "creationTime": MADE, "baseModelArn": "arn:x/y"}
            for i in self._of(kind)
        ]
        return {"modelSummaries": found}

    def list_custom_models(self, isOwned: bool) -> Mapping[str, Any]:
        return self._models("custom-model")

    def list_imported_models(self) -> Mapping[str, Any]:
        return self._models("imported-model")

    def get_imported_model(self, modelIdentifier: str) -> Mapping[str, Any]:
        if modelIdentifier not in self.items:
            raise ResourceNotFound("gone")
        return {}

    def list_evaluation_jobs(self, statusEquals: str) -> Mapping[str, Any]:
        return {"jobSummaries": []}

    def list_tags_for_resource(self, resourceARN: str) -> Mapping[str, Any]:
        tags = self.items[resourceARN].tags
        return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def list_model_customization_jobs(self) -> Mapping[str, Any]:
        found = [
            {"jobArn": i.arn, "jobName": i.job, "status": self._status(i)} for i in self._of("data")
        ]
        return {"modelCustomizationJobSummaries": found}

    @staticmethod
    def _status(item: Item) -> str:
        return "InProgress" if item.running else "Completed"

    def get_model_customization_job(self, jobIdentifier: str) -> Mapping[str, Any]:
        item = self.items[jobIdentifier]
        return {
            "jobName": item.job,
            "status": self._status(item),
            "creationTime": MADE,
            "trainingDataConfig": {"s3Uri": f"s3://bucket/{item.key}"},
            "validationDataConfig": {},
        }

    def list_model_import_jobs(self) -> Mapping[str, Any]:
        return {}

    def list_training_jobs(self, **_: Any) -> Mapping[str, Any]:
        found = [
            {
                "TrainingJobName": i.job,
                "TrainingJobStatus": self._status(i),
                "WarmPoolStatus": {"Status": "Available" if i.kind == "warm-pool" else "Reused"},
            }
            for i in self._of("training-data", "warm-pool")
        ]
        return {"TrainingJobSummaries": found}

    def describe_training_job(self, TrainingJobName: str) -> Mapping[str, Any]:
        [item] = [i for i in self.items.values() if i.job == TrainingJobName]
        source = {"S3Uri": f"s3://bucket/{item.key.rpartition('/')[0]}/"}
        marks = {} if item.owner == "foreign" else {"cloudft-job": item.job}
        return {
            "TrainingJobName": item.job,
            "TrainingJobArn": item.arn,
            "TrainingJobStatus": self._status(item),
            "CreationTime": MADE,
            "HyperParameters": marks,
            "StoppingCondition": {},
            "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r",
            "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
            "InputDataConfig": [{"DataSource": {"S3DataSource": source}}],
        }

    def list_objects_v2(self, Prefix: str, **_: Any) -> Mapping[str, Any]:
        keys = [key for key in sorted(self.objects) if key.startswith(Prefix)]
        return {"Contents": [{"Key": key, "Size": 1} for key in keys]}

    def head_bucket(self, Bucket: str) -> Mapping[str, Any]:
        raise PermissionDenied("no")

    def delete_object(self, Key: str, **_: Any) -> Mapping[str, Any]:
        self.objects.discard(Key)
        return {}

    def _delete(self, arn: str) -> Mapping[str, Any]:
        del self.items[arn]
        return {}

    def delete_custom_model_deployment(self, **given: str) -> Mapping[str, Any]:
        return self._delete(*given.values())

    delete_provisioned_model_throughput = delete_custom_model_deployment
    delete_custom_model = delete_custom_model_deployment
    delete_imported_model = delete_custom_model_deployment

    def get_custom_model_deployment(self, **_: str) -> Mapping[str, Any]:
        raise ResourceNotFound("gone")

    get_provisioned_model_throughput = get_custom_model_deployment
    get_custom_model = get_custom_model_deployment

    def update_training_job(self, TrainingJobName: str, **_: Any) -> Mapping[str, Any]:
        [item] = [i for i in self.items.values() if i.job == TrainingJobName]
        return self._delete(item.arn)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    yield Home(folder)
    shutil.rmtree(folder)


def furnish(home: Home, items: list[Item]) -> None:
    """Write what this home knows: its own jobs, those that it deleted, and adopted ones."""
    shutil.rmtree(home.path, ignore_errors=True)
    for item in items:
        if item.owner in ("own", "deleted"):
            SubmittedJobs(home.jobs).add(item.job)
        if item.owner in ("own", "other"):  # others' jobs are known once they were listed
            (home.jobs / item.job).mkdir(parents=True)


def collect(account: Account, home: Home, wanted: cleanup.GarbageCriteria) -> None:
    """Do what `gc --yes` does."""
    backends = {
        "bedrock": BedrockBackend(home, account),
        "sagemaker": SageMakerBackend(home, account),
    }

    def chosen(name: str, *_: Any) -> SupportsInventory:
        return backends[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleanup, "_inventory_backend", chosen)
        listing = cleanup.list_account(None, home, {})
        assert bool(listing.unavailable) <= bool(account.broken)
        account.broken = {}
        found = cleanup.find_garbage(listing, home, wanted)
        list(cleanup.remove_resources(home, {}, found.removable))


def users(items: list[Item], key: str) -> list[Item]:
    """Return the jobs that read a staged file."""
    return [i for i in items if i.kind in ("data", "training-data", "warm-pool") and i.key == key]


@settings(max_examples=150, deadline=None)
@given(items=ITEMS, wanted=WANTED, broken=BROKEN, name=st.none() | st.integers(0, 11))
def test_gc_removes_nothing_that_it_must_not(
    items: list[Item],
    wanted: cleanup.GarbageCriteria,
    broken: Any,
    name: int | None,
    tmp_path_factory: Any,
) -> None:
    home = Home(tmp_path_factory.getbasetemp() / "gc-home")
    furnish(home, items)
    files = {i.key for i in items if i.kind in ("data", "training-data", "warm-pool")}
    account = Account({i.arn: i for i in items}, broken, set(files))
    named = items[name] if name is not None and name < len(items) else None
    wanted = cleanup.GarbageCriteria(**{**vars(wanted), "names": (named.job,) if named else ()})
    refused = None
    try:
        collect(account, home, wanted)
    except CloudftError as error:
        refused = error
    gone = [i for i in items if i.arn not in account.items]
    if refused is not None:
        assert gone == [] and account.objects == files, "nothing goes before a refusal"
        assert named is not None
    for item in gone:
        assert item.owner != "foreign"
        assert not item.running or item.kind not in ("warm-pool", "training-data")
        if item == named:
            continue
        assert named is None, "a name means itself alone"
        assert wanted.all_homes or item.owner != "other"
        expired = item.expires in ("past", "naive")
        orphan = item.kind in MODELS and item.owner == "deleted"
        assert wanted.live or (expired and item.kind != "warm-pool") or orphan
    for key in files - account.objects:
        readers = users(items, key)
        marked = [i for i in readers if i.owner != "foreign"]
        assert marked and not any(i.running for i in readers)
        assert wanted.all_homes or all(i.owner != "other" or i == named for i in marked)
    if refused is None and not broken and named is None and wanted == cleanup.GarbageCriteria():
        left = [i for i in account.items.values() if i.kind in SERVINGS and i.owner == "own"]
        assert not [i for i in left if i.expires in ("past", "naive")], "the expired is removed"


def test_a_foreign_name_is_refused_by_name(home: Home) -> None:
    item = Item(1, "deployment", "foreign", "past", 0, False)
    account = Account({item.arn: item}, {})
    for name in (item.job, item.arn):
        with pytest.raises(
            UsageError, match=r"deployment job-foreign.* was not created by cloudft"
        ):
            collect(
                account, home, cleanup.GarbageCriteria(names=(name,), live=True, all_homes=True)
            )
    with pytest.raises(UsageError, match="no resource is named other"):
        collect(account, home, cleanup.GarbageCriteria(names=("other",)))
    unread = Account({}, {"list_custom_models": CloudUnreachable})
    with pytest.raises(CloudUnreachable, match="custom models"):
        collect(unread, home, cleanup.GarbageCriteria(names=("other",)))


STATUSES = ("CREATE_COMPLETE", "ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS", "CREATE_FAILED", "gone")


@dataclass(frozen=True)
class StackItem:
    """A stack of the name `team`, existing or deleted, with a bucket and a key."""

    number: int
    marked: bool
    status: str
    change_sets: tuple[str, ...]

    @property
    def arn(self) -> str:
        """Return its id."""
        return f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/team/{self.number}"


STACKS = st.lists(
    st.builds(
        StackItem,
        number=st.integers(0, 9),
        marked=st.booleans(),
        status=st.sampled_from(STATUSES),
        change_sets=st.sets(st.sampled_from(["cloudft-1", "theirs"])).map(tuple),
    ),
    max_size=3,
    unique_by=lambda stack: stack.number,
).filter(lambda stacks: sum(stack.status != "gone" for stack in stacks) < 2)


class Formation(Aws):
    """CloudFormation and the leftovers of stacks, in memory; records every change and its stack."""

    def __init__(self, stacks: list[StackItem]) -> None:
        super().__init__(AwsLocation("us-east-1"))
        self.stacks = stacks
        self.changed: list[int] = []
        self.gone: set[int] = set()

    def call(self, what: str, service: str, operation: str, **given: Any) -> Mapping[str, Any]:
        """Make one call."""
        answer: Mapping[str, Any] = getattr(self, operation)(**given)
        return answer

    def _find(self, name: str) -> StackItem:
        for stack in self.stacks:
            there = stack.status != "gone" and stack.number not in self.gone
            if name == stack.arn or (name == "team" and there):
                return stack
        raise CloudRefused(f"Stack with id {name} does not exist")

    def describe_stacks(self, StackName: str) -> Mapping[str, Any]:
        stack = self._find(StackName)
        gone = stack.status == "gone" or stack.number in self.gone
        tags = {"cloudft:infra": "base"} if stack.marked else {"team": "data"}
        if stack.status == "REVIEW_IN_PROGRESS":
            tags = {}
        reported = {
            "StackName": "team",
            "StackId": stack.arn,
            "StackStatus": "DELETE_COMPLETE" if gone else stack.status,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            "CreationTime": MADE,
        }
        return {"Stacks": [reported]}

    def list_stacks(self, **_: Any) -> Mapping[str, Any]:
        found = [
            {"StackName": "team", "StackId": s.arn, "DeletionTime": s.number}
            for s in self.stacks
            if s.status == "gone"
        ]
        return {"StackSummaries": found}

    def list_change_sets(self, StackName: str) -> Mapping[str, Any]:
        stack = self._find(StackName)
        return {
            "Summaries": [
                {"ChangeSetName": name, "ChangeSetId": name, "CreationTime": MADE}
                for name in stack.change_sets
            ]
        }

    def list_stack_resources(self, StackName: str) -> Mapping[str, Any]:
        number = self._find(StackName).number
        kinds = {"Bucket": "AWS::S3::Bucket", "Key": "AWS::KMS::Key"}
        return {
            "StackResourceSummaries": [
                {
                    "LogicalResourceId": name,
                    "ResourceType": kind,
                    "PhysicalResourceId": f"{name.lower()}-{number}",
                    "ResourceStatus": "DELETE_SKIPPED",
                }
                for name, kind in kinds.items()
            ]
        }

    def describe_stack_events(self, StackName: str) -> Mapping[str, Any]:
        return {"StackEvents": []}

    def head_bucket(self, **_: Any) -> Mapping[str, Any]:
        return {}

    def describe_key(self, **_: Any) -> Mapping[str, Any]:
        return {"KeyMetadata": {"KeyState": "Enabled"}}

    def list_object_versions(self, **_: Any) -> Mapping[str, Any]:
        return {}

    def list_multipart_uploads(self, **_: Any) -> Mapping[str, Any]:
        return {}

    def list_custom_models(self, **_: Any) -> Mapping[str, Any]:
        return {}

    list_imported_models = list_custom_models
    list_model_customization_jobs = list_custom_models

    def delete_stack(self, StackName: str, **_: Any) -> Mapping[str, Any]:
        number = self._find(StackName).number
        self.changed.append(number)
        self.gone.add(number)
        return {}

    def delete_bucket(self, Bucket: str, **_: Any) -> Mapping[str, Any]:
        self.changed.append(int(Bucket.rpartition("-")[2]))
        return {}

    def schedule_key_deletion(self, KeyId: str, **_: Any) -> Mapping[str, Any]:
        self.changed.append(int(KeyId.rpartition("-")[2]))
        return {"DeletionDate": MADE}

    def create_change_set(self, StackName: str, **_: Any) -> Mapping[str, Any]:
        self.changed.append(self._find(StackName).number)
        raise UsageError("enough")

    def delete_change_set(self, ChangeSetName: str, **_: Any) -> Mapping[str, Any]:
        raise AssertionError("change sets of waiting stacks are left alone")


@settings(max_examples=200, deadline=None)
@given(stacks=STACKS, data=st.sampled_from(["delete", "keep", ""]), deploys=st.booleans())
def test_stacks_without_the_mark_stay_as_they_were(
    stacks: list[StackItem], data: str, deploys: bool
) -> None:
    account = Formation(stacks)
    by_number = {stack.number: stack for stack in stacks}
    try:
        if deploys:
            changes.delete_empty_stack(account, "team")
            before = changes.find_stack(account, "team")
            text = "Resources: {A: {Type: 'AWS::SNS::Topic'}}"
            changes.create_change_set(account, "team", text, {}, before)
        else:
            end = destroy.plan_destroy(
                account, "team", delete_data=data == "delete", keep_data=data == "keep"
            )
            destroy.execute_destroy(
                account, end, lambda _: None, lambda _: None, sleep=lambda _: None
            )
    except CloudftError:
        pass
    for number in account.changed:
        stack = by_number[number]
        waits = stack.status == "REVIEW_IN_PROGRESS" and "theirs" not in stack.change_sets
        assert stack.marked or waits
    present = [stack for stack in stacks if stack.status != "gone"]
    if not deploys and present and present[0].marked and present[0].status == "CREATE_COMPLETE":
        assert account.changed, "ours is removed"
