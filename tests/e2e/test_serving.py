"""Deploying a model: again after a removal, for longer, never twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from endpoint import Endpoint, running_endpoint
from processes import Cli
from served_models import count_updates, model_of, read_serving, tags_of

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.resources import CloudResource
from cloudft.errors import ResourceConflict
from cloudft.storage.home import Home

ON_DEMAND, BY_THE_HOUR = "nova-lite", "titan-text-express"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--jobs", "1000") as made:
        yield made


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trained(cli: Cli, aws: Endpoint, folder: Path, name: str, model: str) -> str:
    """Submit a job of that model and wait for it; return its id."""
    tiny.write_jsonl(folder / "train.jsonl", tiny.pairs(8))
    spec = {"name": name, "base_model": model, "data": {"train": "train.jsonl"}}
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump({**spec, "bedrock": aws.bedrock_section}))
    words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    return str(value(cli(*words))["id"])


def servings(aws: Endpoint, job: str) -> list[str]:
    """Return the ARNs of what serves the job's model."""
    bedrock = aws.client("bedrock")
    found = bedrock.list_provisioned_model_throughputs(nameContains=job)
    deployed = bedrock.list_custom_model_deployments(nameContains=job)
    return [s["provisionedModelArn"] for s in found["provisionedModelSummaries"]] + [
        s["customModelDeploymentArn"] for s in deployed["modelDeploymentSummaries"]
    ]


def deployed(cli: Cli, job: str, *words: str) -> Any:
    return value(cli("deploy", job, "--yes", *words, "--output", "json"))


@pytest.mark.parametrize("model", [ON_DEMAND, BY_THE_HOUR])
def test_a_model_is_deployed_again_after_each_removal(
    cli: Cli, aws: Endpoint, tmp_path: Path, model: str
) -> None:
    job = trained(cli, aws, tmp_path, f"again-{model}", model)
    seen = set()
    for hours in ((), ("--ttl", "1"), ()):
        made = deployed(cli, job, *hours)
        assert made["status"] == "ready" and servings(aws, job) == [made["id"]]
        assert (made["expiresAt"] is not None) == bool(hours)
        seen.add(made["id"])
        value(cli("undeploy", job, "--yes", "--output", "json"))
        assert servings(aws, job) == []
    assert len(seen) == 3


def test_what_another_machine_removed_is_deployed_again(
    cli: Cli, aws: Endpoint, tmp_path: Path, home: Path
) -> None:
    """Deploy again also when the creation was interrupted: its token can't be used again."""
    job = trained(cli, aws, tmp_path, "elsewhere", ON_DEMAND)
    [first, second] = [deployed(cli, job)["id"], None]
    bedrock = aws.client("bedrock")
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=first)
    [intent] = (home / "servings").iterdir()
    intent.write_text(json.dumps(json.loads(intent.read_text()) | {"arn": None}))
    second = deployed(cli, job)["id"]
    assert second != first and servings(aws, job) == [second]


def test_a_deploy_with_a_time_to_live_renews_it(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    job = trained(cli, aws, tmp_path, "renewed", ON_DEMAND)
    made = deployed(cli, job, "--ttl", "1")
    first = datetime.fromisoformat(made["expiresAt"])
    said = cli("deploy", job, "--yes", "--ttl", "50")
    assert said.returncode == 0 and "renewed until" in said.stderr
    kept = deployed(cli, job)
    assert kept["id"] == made["id"] and servings(aws, job) == [made["id"]]
    later = datetime.fromisoformat(kept["expiresAt"])
    assert 48 < (later - first).total_seconds() / 3600 < 50
    [listed] = [t for t in value(cli("ps", "--output", "json"))["things"] if t["id"] == made["id"]]
    assert listed["expiresAt"] == kept["expiresAt"]
    plan = value(cli("deploy", job, "--ttl", "9", "--dry-run", "--output", "json"))
    assert plan["stands"]["id"] == made["id"]
    assert plan["renewal"]["operation"] == "tag_resource"


def test_a_deploy_with_other_parameters_than_what_stands_is_refused_by_name(
    cli: Cli, aws: Endpoint, tmp_path: Path, home: Path
) -> None:
    job = trained(cli, aws, tmp_path, "other", ON_DEMAND)
    units = cli("deploy", job, "--yes", "--units", "2")
    assert units.returncode == 2 and "--provisioned" in units.stderr
    made = deployed(cli, job, "--provisioned", "--units", "2")
    name = made["name"]
    for words, message in (
        (("--provisioned",), f"{name} serves this model with 2 model units, and --units is 1"),
        ((), f"{name} serves this model already"),
        (("--ttl", "9"), f"{name} serves this model already"),
        (("--dry-run",), f"{made['name']} serves this model already"),
    ):
        refused = cli("deploy", job, "--yes", *words)
        assert refused.returncode == 2 and message in refused.stderr
    assert servings(aws, job) == [made["id"]]
    assert deployed(cli, job, "--provisioned", "--units", "2")["id"] == made["id"]
    price = "{provisioned_unit_hour: 7, source: our offer, date: 2026-11-01}"
    (home / "prices.yaml").write_text(f"models: {{{ON_DEMAND}: {price}}}")
    listed = value(cli("ps", "--cost", "--output", "json"))["things"]
    [seen] = [resource for resource in listed if resource["id"] == made["id"]]
    assert seen["usd"]["perHour"] == 14 and "our offer" in seen["basis"]


def test_what_is_being_made_is_named_when_it_cannot_be_looked_at(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    job = trained(cli, aws, tmp_path, "unseen", ON_DEMAND)
    aws.fault({"operation": "ListCustomModelDeployments", "do": "expire", "skip": 3})
    blind = cli("deploy", job, "--yes")
    [made] = servings(aws, job)
    assert blind.returncode == 4 and f"{job} is being created, but" in blind.stderr
    assert deployed(cli, job)["id"] == made and servings(aws, job) == [made]


def test_a_name_that_somebody_else_has_taken_is_not_ours(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    bedrock = aws.client("bedrock")
    job = trained(cli, aws, tmp_path, "taken", ON_DEMAND)
    model = bedrock.get_model_customization_job(jobIdentifier=job)["outputModelArn"]
    theirs = bedrock.create_custom_model_deployment(modelDeploymentName=job, modelArn=model)
    refused = cli("deploy", job, "--yes", "--ttl", "1")
    assert refused.returncode == 4 and "has no tag of this job" in refused.stderr
    left = cli("undeploy", job, "--yes")
    assert left.returncode == 2 and "was not created by cloudft" in left.stderr
    assert servings(aws, job) == [theirs["customModelDeploymentArn"]]


def test_what_is_in_use_says_what_has_to_go_first(
    cli: Cli, aws: Endpoint, tmp_path: Path, home: Path
) -> None:
    job = trained(cli, aws, tmp_path, "in-use", ON_DEMAND)
    bedrock = aws.client("bedrock")
    backend = BedrockBackend(Home(home), Aws(AwsLocation()))
    [model] = [
        t for t in backend.list_resources().items if t.kind == "custom-model" and t.job == job
    ]

    def remedy(resource: CloudResource) -> str:
        with pytest.raises(ResourceConflict) as refused:
            backend.remove_resource(resource)
        return str(refused.value.fix)

    deployed(cli, job)
    bedrock.create_provisioned_model_throughput(
        provisionedModelName="theirs", modelId=model.id, modelUnits=1
    )
    said = remedy(model)
    assert f"`cloudft undeploy {job}`" in said
    [theirs] = re.findall(
        r"aws bedrock delete-provisioned-model-throughput --provisioned-model-id ([^\s`]+)", said
    )
    bedrock.delete_provisioned_model_throughput(provisionedModelId=theirs)
    value(cli("undeploy", job, "--yes", "--output", "json"))
    bedrock.create_provisioned_model_throughput(
        provisionedModelName="month", modelId=model.id, modelUnits=1, commitmentDuration="OneMonth"
    )
    [month] = [t for t in backend.list_resources().items if t.name == "month"]
    assert "its commitment (OneMonth) ends at 20" in remedy(month)


def served_model(aws: Endpoint, arn: str) -> str:
    return str(read_serving(aws, arn)["modelArn"])


@pytest.mark.parametrize("model", [ON_DEMAND, BY_THE_HOUR])
def test_a_new_model_behind_a_deployment_and_back(
    cli: Cli, aws: Endpoint, tmp_path: Path, home: Path, model: str
) -> None:
    first = trained(cli, aws, tmp_path, f"old-{model}", model)
    second = trained(cli, aws, tmp_path, f"new-{model}", model)
    made = deployed(cli, first, "--ttl", "5")
    arn, name = made["id"], made["name"]
    plan = value(cli("deploy", second, "--update", name, "--dry-run", "--output", "json"))
    assert [call["operation"] for call in plan["calls"]][::2] == ["tag_resource"] * 2
    assert served_model(aws, arn) == model_of(aws, first)
    done = cli("deploy", second, "--update", first, "--yes")
    assert done.returncode == 0 and f"serves {second}" in done.stdout
    assert f"now   {first}" in done.stderr and f"then  {second}" in done.stderr
    again = value(cli("deploy", second, "--update", arn, "--yes", "--output", "json"))
    assert again["job"] == second and count_updates(aws, arn) == 1
    assert served_model(aws, arn) == model_of(aws, second)
    [listed] = [t for t in value(cli("ps", "--output", "json"))["things"] if t["id"] == arn]
    assert listed["job"] == second and listed["expiresAt"] == made["expiresAt"]
    # A deployment of the new job is this one; the old job has none, and its name is in use.
    assert deployed(cli, second)["id"] == arn
    refused = cli("deploy", first, "--yes")
    assert refused.returncode == 4 and f"cloudft deploy {first} --update {name}" in refused.stderr
    # By the job that it was created for, although it serves another one now.
    dry = value(cli("deploy", "--rollback", f"old-{model}", "--dry-run", "--output", "json"))
    assert (dry["resource"]["id"], dry["toJob"]) == (arn, first)
    assert "could be rolled back to the model" in cli("delete", first, "--yes").stderr
    kept = value(cli("gc", "--yes", "--output", "json"))
    assert model_of(aws, first) in [one["thing"]["id"] for one in kept["left"]]
    served = cli("delete", second, "--yes")
    assert served.returncode == 2 and f"cloudft undeploy {second}" in served.stderr
    value(cli("deploy", "--rollback", name, "--yes", "--output", "json"))
    assert served_model(aws, arn) == model_of(aws, first)
    assert tags_of(aws, arn)["cloudft:job"] == first and count_updates(aws, arn) == 2
    again = value(cli("deploy", "--rollback", arn, "--yes", "--output", "json"))
    assert again["job"] == first and count_updates(aws, arn) == 2
    value(cli("gc", arn, "--yes", "--output", "json"))  # this machine has deleted the job
    assert servings(aws, first) == []


def test_an_update_that_is_refused_changes_nothing(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    first = trained(cli, aws, tmp_path, "base-a", ON_DEMAND)
    other = trained(cli, aws, tmp_path, "base-b", "nova-micro")
    second = trained(cli, aws, tmp_path, "base-c", ON_DEMAND)
    arn = deployed(cli, first)["id"]
    theirs = aws.client("bedrock").create_custom_model_deployment(
        modelDeploymentName="theirs-alone", modelArn=model_of(aws, second)
    )["customModelDeploymentArn"]
    # botocore: `failureMessage` is that of a creation that failed.
    aws.fault({"operation": "updateDetails", "do": "fail", "message": "no capacity"})
    for words, code, message in (
        ((other, "--update", first), 2, "customized from amazon.nova-micro"),
        ((second, "--update", "theirs-alone"), 2, "update it with the tool that created it"),
        ((second, "--update", "nothing"), 2, "no deployment is named nothing"),
        ((second, "--update", first, "--ttl", "3"), 2, "--ttl can't be changed by --update"),
        ((second, "--rollback", first), 2, "--rollback takes no JOB"),
        (("--rollback", first), 2, "has had no update"),
        ((), 2, "no JOB is named"),
        (
            (second, "--update", first),
            2,
            "failed: AWS names no reason; it still serves that of " + first,
        ),
    ):
        refused = cli("deploy", *words, "--yes")
        assert refused.returncode == code and message in refused.stderr, refused.stderr
        assert served_model(aws, arn) == model_of(aws, first)
    assert count_updates(aws, arn) == 1 and count_updates(aws, theirs) == 0
    back = cli("deploy", "--rollback", first, "--yes")
    assert back.returncode == 0 and "already" in back.stderr and count_updates(aws, arn) == 1
    value(cli("deploy", second, "--update", first, "--yes", "--output", "json"))
    assert served_model(aws, arn) == model_of(aws, second)


def test_an_update_whose_answer_is_lost_is_sent_once(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    first = trained(cli, aws, tmp_path, "lost-a", ON_DEMAND)
    second = trained(cli, aws, tmp_path, "lost-b", ON_DEMAND)
    arn = deployed(cli, first)["id"]
    aws.fault(
        {"operation": "UpdateCustomModelDeployment", "do": "throttle"},
        {"operation": "UpdateCustomModelDeployment", "do": "drop"},
    )
    value(cli("deploy", second, "--update", first, "--yes", "--output", "json"))
    assert served_model(aws, arn) == model_of(aws, second)
    assert count_updates(aws, arn) == 2  # the first was throttled: it did nothing


def test_a_commitment_is_bought_with_its_price_and_stays_to_its_end(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    job = trained(cli, aws, tmp_path, "term", ON_DEMAND)
    words = ("--provisioned", "--commitment", "onemonth")
    plan = value(cli("deploy", job, *words, "--dry-run", "--output", "json"))
    assert plan["call"]["parameters"]["commitmentDuration"] == "OneMonth"
    total = plan["commitment"]["usd"]
    assert plan["usd"]["perHour"] == 55 and total / 55 / 24 in (28, 29, 30, 31)
    enough = ("--max-cost", f"{total + 55 * 72:.0f}")  # another month may begin meanwhile
    for more, code, message in (
        (("--yes",), 2, "--yes alone does not buy a commitment: the term costs"),
        (("--yes", "--max-cost", f"{total - 55 * 73:.0f}"), 6, "above --max-cost"),
        (("--yes", "--max-cost", "9"), 6, "fix: set a higher --max-cost"),
    ):
        refused = cli("deploy", job, *words, *more)
        assert refused.returncode == code and message in refused.stderr, refused.stderr
    aws.fault({"operation": "CreateProvisionedModelThroughput", "do": "quota"})
    quota = cli("deploy", job, *words, "--yes", *enough)
    assert quota.returncode == 5 and "until AWS Support grants them" in quota.stderr
    assert servings(aws, job) == []
    made = deployed(cli, job, *words, *enough)
    assert deployed(cli, job, *words)["id"] == made["id"]  # it exists: nothing is bought
    other = cli("deploy", job, "--provisioned", "--yes")
    assert other.returncode == 2 and "set --commitment OneMonth" in other.stderr
    listed = cli("ps", "--cost")
    assert "COMMITTED UNTIL" in listed.stdout and "(OneMonth)" in listed.stdout
    for command in (("undeploy", job), ("gc", made["name"])):
        refused = cli(*command, "--yes")
        assert refused.returncode == 2 and "has a commitment (OneMonth) until" in refused.stderr
    left = cli("gc", "--live", "--yes", "--kind", "provisioned-throughput")
    assert left.returncode == 0 and "a term that has not ended" in left.stderr
    assert servings(aws, job) == [made["id"]]
