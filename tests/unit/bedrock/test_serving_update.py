"""Another model behind a deployment: once, never over somebody else's update, and back again.

The endpoint's clock is real: a deployment is `Updating` for a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from endpoint import AWS_KEYS, REGION, Endpoint, running_endpoint
from served_models import (
    NOVA_LITE,
    NOVA_MICRO,
    count_updates,
    model_of,
    read_serving,
    tags_of,
    write_completed_jobs,
)

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock import serving_update
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.errors import (
    CloudUnreachable,
    CredentialsExpired,
    JobStateConflict,
    PermissionDenied,
    UsageError,
)
from cloudft.storage.home import Home

OLD, NEW, THIRD, OTHER_BASE = "old-00000001", "new-00000002", "third-00000003", "micro-00000004"
BASES = {OLD: NOVA_LITE, NEW: NOVA_LITE, THIRD: NOVA_LITE, OTHER_BASE: NOVA_MICRO}
KINDS = ("deployment", "provisioned-throughput")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = write_completed_jobs(tmp_path_factory.mktemp("state"), BASES)
    with running_endpoint("--state", folder) as made:
        yield made


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


class InterruptedAws(Aws):
    """AWS where something happens just before or after the first call of an operation."""

    def __init__(
        self,
        location: AwsLocation,
        operation: str = "",
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(location)
        self.operation, self.before, self.after = operation, before, after

    def _interrupted(
        self, call: Callable[..., Mapping[str, Any]], *words: str, **parameters: object
    ) -> Mapping[str, Any]:
        if words[2] != self.operation:
            return call(*words, **parameters)
        self.operation = ""
        self.before()
        response = call(*words, **parameters)
        self.after()
        return response

    def call(self, *words: str, **parameters: object) -> Any:
        return self._interrupted(super().call, *words, **parameters)

    def call_without_retry(self, *words: str, **parameters: object) -> Any:
        return self._interrupted(super().call_without_retry, *words, **parameters)


def location(endpoint: Endpoint) -> AwsLocation:
    return AwsLocation(region=REGION, endpoint_url=endpoint.url)


@pytest.fixture
def backend(endpoint: Endpoint, tmp_path: Path) -> BedrockBackend:
    return BedrockBackend(Home(tmp_path / "home"), Aws(location(endpoint)))


@pytest.fixture(params=KINDS)
def arn(backend: BedrockBackend, request: pytest.FixtureRequest) -> Iterator[str]:
    """Deploy the old model, on demand or provisioned."""
    provisioned = request.param != "deployment"
    plan = backend.plan_serving(OLD, provisioned=provisioned, units=1, hours=9)
    resource = backend.deploy(plan)
    yield resource.id
    for job in (OLD, NEW, THIRD):
        for serving in backend.list_servings(job):
            backend.remove_resource(serving)


def update(backend: BedrockBackend, arn: str, job: str = NEW) -> None:
    resource = backend.update_serving(backend.plan_update(job, arn, [arn]))
    assert (resource.status, resource.job) == ("ready", job)


def roll_back(backend: BedrockBackend, arn: str) -> None:
    backend.update_serving(backend.plan_rollback(arn, [arn]))


def served(endpoint: Endpoint, arn: str) -> str:
    return str(read_serving(endpoint, arn)["modelArn"])


def interrupted(
    backend: BedrockBackend, endpoint: Endpoint, operation: str, **hooks: Callable[[], object]
) -> BedrockBackend:
    return BedrockBackend(backend.home, InterruptedAws(location(endpoint), operation, **hooks))


def operation_of(arn: str) -> str:
    kind = "deployment" if ":custom-model-deployment/" in arn else "provisioned-throughput"
    return serving_update.UPDATE_OPERATIONS[kind][0]


def stop() -> None:
    raise KeyboardInterrupt


def test_the_old_model_answers_until_the_new_one_does(
    backend: BedrockBackend, endpoint: Endpoint, arn: str
) -> None:
    with pytest.raises(KeyboardInterrupt):  # Ctrl-C once it is sent
        update(interrupted(backend, endpoint, operation_of(arn), after=stop), arn)
    # On a busy machine the second may be over by now.
    for work, message in (
        (lambda: backend.plan_update(THIRD, arn, []), "is being updated to"),
        (
            lambda: backend.plan_serving(NEW, provisioned=":prov" in arn, units=1, hours=None),
            "is being updated to this model",
        ),
    ):
        try:
            work()
        except JobStateConflict as error:
            assert message in str(error)
        else:
            assert served(endpoint, arn) == model_of(endpoint, NEW)
    while served(endpoint, arn) == model_of(endpoint, OLD):
        time.sleep(0.1)
    # Its end is in no tag yet, and it belongs to the new job all the same.
    assert [one.job for one in backend.list_servings(NEW)] == [NEW]
    update(backend, arn)  # the same command follows it
    assert served(endpoint, arn) == model_of(endpoint, NEW)
    assert count_updates(endpoint, arn) == 1
    tags = tags_of(endpoint, arn)
    assert tags["cloudft:job"] == NEW and tags["cloudft:update"] == "updated"
    assert tags["cloudft:expires"]
    assert [one.id for one in backend.list_servings(NEW)] == [arn]
    assert backend.list_servings(OLD) == []
    assert [one.id for one in backend.list_servings(OLD, with_rollbacks=True)] == [arn]
    roll_back(backend, arn)
    roll_back(backend, arn)  # again: it does not undo itself
    assert served(endpoint, arn) == model_of(endpoint, OLD)
    assert count_updates(endpoint, arn) == 2


@pytest.mark.parametrize("kind", ["update", "rollback"])
@pytest.mark.parametrize(
    ("call", "moment"), [("tag_resource", "after"), ("update", "before"), ("update", "after")]
)
def test_what_is_interrupted_is_finished_by_another_machine(
    endpoint: Endpoint,
    backend: BedrockBackend,
    arn: str,
    call: str,
    moment: str,
    kind: str,
    tmp_path: Path,
) -> None:
    """A rollback that is sent again must not undo itself."""
    if kind == "rollback":
        update(backend, arn)
    sent, work = count_updates(endpoint, arn), update if kind == "update" else roll_back
    operation = call if call == "tag_resource" else operation_of(arn)
    with pytest.raises(KeyboardInterrupt):
        work(interrupted(backend, endpoint, operation, **{moment: stop}), arn)
    elsewhere = BedrockBackend(Home(tmp_path / "elsewhere"), Aws(location(endpoint)))
    work(elsewhere, arn)
    wanted = NEW if kind == "update" else OLD
    assert served(endpoint, arn) == model_of(endpoint, wanted)
    assert count_updates(endpoint, arn) == sent + 1
    assert tags_of(endpoint, arn)["cloudft:job"] == wanted


@pytest.mark.parametrize("arn", ["deployment"], indirect=True)
def test_an_interrupted_update_can_be_rolled_back_instead(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        update(interrupted(backend, endpoint, "tag_resource", after=stop), arn)
    roll_back(backend, arn)
    roll_back(backend, arn)
    assert served(endpoint, arn) == model_of(endpoint, OLD)
    assert count_updates(endpoint, arn) == 0
    [seen] = backend.list_servings(OLD)
    assert (seen.job, seen.next_model, seen.previous_model) == (OLD, None, None)


@pytest.mark.parametrize("fault", ["drop", "unavailable", "throttle"])
def test_what_does_not_reach_aws_is_sent_again_and_what_does_is_not(
    endpoint: Endpoint, backend: BedrockBackend, arn: str, fault: str
) -> None:
    operation = operation_of(arn)
    name = "".join(word.title() for word in operation.split("_"))
    endpoint.fault({"operation": name, "do": fault})
    update(backend, arn)
    assert served(endpoint, arn) == model_of(endpoint, NEW)
    assert count_updates(endpoint, arn) == (1 if fault == "drop" else 2)


@pytest.mark.parametrize("arn", ["deployment"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "error"), [("deny", PermissionDenied), ("expire", CredentialsExpired)]
)
def test_what_is_refused_is_not_sent_again(
    endpoint: Endpoint, backend: BedrockBackend, arn: str, fault: str, error: type[Exception]
) -> None:
    endpoint.fault({"operation": "UpdateCustomModelDeployment", "do": fault})
    with pytest.raises(error):
        update(backend, arn)
    assert count_updates(endpoint, arn) == 1 and served(endpoint, arn) == model_of(endpoint, OLD)


@pytest.mark.parametrize("arn", ["deployment"], indirect=True)
def test_an_outage_after_the_update_says_that_it_continues(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    def fail() -> None:
        endpoint.fault({"operation": "GetCustomModelDeployment", "do": "deny"})

    with pytest.raises(PermissionDenied, match="was sent and continues, but") as refused:
        update(interrupted(backend, endpoint, operation_of(arn), after=fail), arn)
    assert f"`cloudft deploy {NEW} --update {OLD}` follows it" in str(refused.value.fix)
    update(backend, arn)
    assert count_updates(endpoint, arn) == 1


def set_model(endpoint: Endpoint, arn: str, job: str) -> None:
    """Put a model behind a deployment as somebody with the console does."""
    bedrock = endpoint.client("bedrock")
    bedrock.update_custom_model_deployment(
        customModelDeploymentIdentifier=arn, modelArn=model_of(endpoint, job)
    )
    while read_serving(endpoint, arn)["updateDetails"]["updateStatus"] == "Updating":
        pass


@pytest.mark.parametrize("arn", ["deployment"], indirect=True)
def test_an_update_of_somebody_else_is_never_undone_silently(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    plan = backend.plan_update(NEW, arn, [])
    set_model(endpoint, arn, THIRD)
    with pytest.raises(JobStateConflict, match="somebody else updated it, and nothing was changed"):
        backend.update_serving(plan)
    assert served(endpoint, arn) == model_of(endpoint, THIRD)

    def set_old() -> None:
        set_model(endpoint, arn, OLD)

    # Between the update's end and the look at it.
    late = interrupted(backend, endpoint, operation_of(arn))
    late.aws.after = lambda: (wait_for_end(endpoint, arn), set_old())
    with pytest.raises(JobStateConflict, match="was updated by somebody else meanwhile"):
        update(late, arn)
    assert served(endpoint, arn) == model_of(endpoint, OLD)


@pytest.mark.parametrize("arn", ["deployment"], indirect=True)
def test_a_rollback_undoes_no_update_of_somebody_else(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    update(backend, arn)
    set_model(endpoint, arn, THIRD)
    with pytest.raises(JobStateConflict, match="no update by cloudft put behind it"):
        backend.plan_rollback(arn, [arn])
    assert served(endpoint, arn) == model_of(endpoint, THIRD)
    set_model(endpoint, arn, NEW)
    roll_back(backend, arn)
    assert served(endpoint, arn) == model_of(endpoint, OLD)


def wait_for_end(endpoint: Endpoint, arn: str) -> None:
    while read_serving(endpoint, arn)["updateDetails"]["updateStatus"] == "Updating":
        pass


@pytest.mark.parametrize("same", [True, False])
def test_of_two_at_once_one_sends_the_update(
    endpoint: Endpoint, backend: BedrockBackend, arn: str, same: bool
) -> None:
    jobs = [NEW, NEW] if same else [NEW, THIRD]
    plans = [backend.plan_update(job, arn, []) for job in jobs]
    others = [BedrockBackend(backend.home, Aws(location(endpoint))) for _ in jobs]
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(one.update_serving, plan) for one, plan in zip(others, plans, strict=True)
        ]
        errors = [one.exception() for one in done]
    assert count_updates(endpoint, arn) == 1
    assert sum(error is None for error in errors) == (2 if same else 1)
    winner = jobs[errors.index(None)]
    assert served(endpoint, arn) == model_of(endpoint, winner)
    assert tags_of(endpoint, arn)["cloudft:job"] == winner


def test_a_failed_update_says_which_model_is_served(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    endpoint.fault({"operation": "updateDetails", "do": "fail", "message": "no capacity"})
    with pytest.raises(JobStateConflict, match=f"to the model of {NEW} failed") as failed:
        update(backend, arn)
    got = read_serving(endpoint, arn)
    assert got["modelArn"] == model_of(endpoint, OLD)
    if ":provisioned-model/" in arn:
        assert got["status"] == "Failed" and "no capacity; its status is Failed" in str(
            failed.value
        )
        assert f"--rollback {arn}" in str(failed.value.fix)
    else:
        assert got["status"] == "Active" and f"it still serves that of {OLD}" in str(failed.value)
    [seen] = [one for one in backend.list_servings(OLD) if one.id == arn]
    assert (seen.job, seen.next_model) == (OLD, None)
    roll_back(backend, arn)
    got = read_serving(endpoint, arn)
    assert got["status"] in ("Active", "InService") and got["modelArn"] == model_of(endpoint, OLD)
    update(backend, arn)
    assert served(endpoint, arn) == model_of(endpoint, NEW)


@pytest.mark.parametrize("arn", ["deployment"], indirect=True)
def test_a_rollback_needs_a_model_that_is_there(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    with pytest.raises(JobStateConflict, match="has had no update"):
        backend.plan_rollback(arn, [])
    with pytest.raises(
        UsageError, match=r"customized from amazon.nova-lite.* from amazon.nova-mic"
    ):
        backend.plan_update(OTHER_BASE, arn, [])
    gone = "arn:aws:bedrock:us-east-1:000000000000:custom-model/amazon.nova-lite-v1:0/aaaaaaaaaaaa"
    tags = {
        "cloudft:update": "updated",
        "cloudft:update-from": gone,
        "cloudft:update-from-job": "x",
    }
    endpoint.client("bedrock").tag_resource(
        resourceARN=arn, tags=[{"key": key, "value": value} for key, value in tags.items()]
    )
    with pytest.raises(JobStateConflict, match="which old-00000001 served before, was removed"):
        backend.plan_rollback(arn, [])


@pytest.mark.parametrize("arn", ["deployment"], indirect=True)
def test_a_model_is_in_use_while_it_is_served_or_being_deployed(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    bedrock = endpoint.client("bedrock")
    with pytest.raises(KeyboardInterrupt):
        update(interrupted(backend, endpoint, operation_of(arn), after=stop), arn)
    for job in (OLD, NEW):
        with pytest.raises(bedrock.exceptions.ConflictException):
            bedrock.delete_custom_model(modelIdentifier=model_of(endpoint, job))
    wait_for_end(endpoint, arn)


@pytest.mark.parametrize("arn", ["provisioned-throughput"], indirect=True)
def test_throughput_is_neither_updated_nor_removed_while_it_is_updated(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    """Bedrock user guide, "Modify a Provisioned Throughput", 2026-10."""
    bedrock = endpoint.client("bedrock")
    with pytest.raises(KeyboardInterrupt):
        update(interrupted(backend, endpoint, operation_of(arn), after=stop), arn)
    got = read_serving(endpoint, arn)
    assert got["status"] == "Updating" and got["desiredModelArn"] == model_of(endpoint, NEW)
    [listed] = bedrock.list_provisioned_model_throughputs(statusEquals="Updating")[
        "provisionedModelSummaries"
    ]
    assert listed["provisionedModelArn"] == arn
    with pytest.raises(bedrock.exceptions.ConflictException):
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    with pytest.raises(bedrock.exceptions.ValidationException):
        bedrock.update_provisioned_model_throughput(
            provisionedModelId=arn, desiredModelId=model_of(endpoint, THIRD)
        )
    update(backend, arn)


def test_an_outage_is_not_taken_for_an_answer(
    endpoint: Endpoint, backend: BedrockBackend, arn: str
) -> None:
    """What can't be sent is an error after some attempts; it is not taken as sent."""
    name = "".join(word.title() for word in operation_of(arn).split("_"))
    endpoint.fault({"operation": name, "do": "unavailable", "times": 9})
    plan = backend.plan_update(NEW, arn, [])
    with pytest.raises(CloudUnreachable):
        serving_update.apply_update(backend.aws, plan, backend.home.servings, lambda _: None)
    assert count_updates(endpoint, arn) == serving_update.MAX_SENDS
    assert served(endpoint, arn) == model_of(endpoint, OLD)
