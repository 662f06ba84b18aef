"""The templates themselves: sound by cfn-lint, held to our own rules, read as AWS reads them."""

from __future__ import annotations

import contextlib
import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cfn_guard_rs
import pytest
import yaml
from base_stack import ALL_OPTIONS, BASE, PSEUDO, base_scope, resolve_outputs, resolve_resources

from cloudft.aws.request_validation import load_service_model
from cloudft.errors import UsageError
from cloudft.infra import change_sets
from cloudft.infra import template as templates
from cloudft.infra.costs import ResourceCost, resource_costs, sum_known_costs
from cloudft.infra.intrinsics import ResolveError, TemplateScope, sort_by_dependency

RULES = (templates.CHECKOUT / "rules" / "cloudft.guard").read_text()
FILES = sorted(templates.CHECKOUT.glob("*.yaml"))
Tree = dict[str, Any]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cfn_lint_finds_nothing(path: Path) -> None:
    lint = Path(sys.executable).with_name("cfn-lint")
    command = [str(lint), "-r", "us-east-1", "-t", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_template_is_deployable_as_it_is(path: Path) -> None:
    text = path.read_text()
    assert len(templates.format_request_body(text).encode()) <= 51_200, (
        "a longer one would have to lie in S3"
    )
    tokens = {type(token) for token in yaml.scan(text)}
    assert not tokens & {yaml.AliasToken, yaml.AnchorToken}, "CloudFormation knows no aliases"


def broken_rules(template: Tree) -> set[str]:
    report = cfn_guard_rs.run_checks(template, RULES)
    return {clause.Rule.name for clause in report.not_compliant}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_own_rules_hold(path: Path) -> None:
    assert broken_rules(templates.parse_template(path.read_text())) == set()


def _set(path: str, value: Any) -> Callable[[Tree], None]:
    def change(template: Tree) -> None:
        *way, last = path.split("/")
        node: Any = template["Resources"]
        for step in way:
            node = node[int(step) if isinstance(node, list) else step]
        node[int(last) if isinstance(node, list) else last] = value

    return change


BREAKS = {
    "buckets_block_public_access": _set(
        "DataBucket/Properties/PublicAccessBlockConfiguration/BlockPublicPolicy", False
    ),
    "buckets_are_retained": _set("OutputBucket/DeletionPolicy", "Delete"),
    "buckets_are_encrypted": _set("LogBucket/Properties/BucketEncryption", {}),
    "buckets_expire_incomplete_uploads": _set(
        "OutputBucket/Properties/LifecycleConfiguration/Rules", [{"Id": "x", "Status": "Enabled"}]
    ),
    "buckets_require_tls": _set(
        "DataBucketPolicy/Properties/PolicyDocument/Statement/0/Effect", "Allow"
    ),
    "keys_are_retained": _set("Key/DeletionPolicy", "Delete"),
    "roles_have_no_wildcard_actions": _set(
        "WatchRole/Properties/Policies/0/PolicyDocument/Statement/0/Action", ["bedrock:*"]
    ),
    "service_roles_require_source_account": _set(
        "BedrockRole/Properties/AssumeRolePolicyDocument/Statement/0/Condition", {}
    ),
    "logs_have_retention": _set("JobLog/Properties", {"LogGroupName": "x"}),
    "messages_are_encrypted": _set("JobTopic/Properties", {}),
    "networks_have_no_internet_route": lambda template: template["Resources"].update(
        Way={"Type": "AWS::EC2::InternetGateway"}
    ),
    "subnets_assign_no_public_address": _set("SubnetA/Properties/MapPublicIpOnLaunch", True),
    "policies_stop_and_delete_only_tagged_resources": _set(
        "ServingPolicy/Properties/PolicyDocument/Statement",
        [{"Action": "bedrock:DeleteCustomModel", "Condition": {"StringLike": {"a": "*"}}}],
    ),
    "roles_stop_and_delete_only_tagged_resources": _set(
        "WatchRole/Properties/Policies/0/PolicyDocument/Statement/0",
        {"Action": ["bedrock:ListCustomModels", "bedrock:StopModelCustomizationJob"]},
    ),
    "policies_do_not_invoke_every_model": _set(
        "ServingPolicy/Properties/PolicyDocument/Statement/2/Resource/0",
        {"Fn::Sub": "arn:${AWS::Partition}:bedrock:*::foundation-model/*"},
    ),
    "results_do_not_expire": _set(
        "OutputBucket/Properties/LifecycleConfiguration/Rules/3/ExpirationInDays", 90
    ),
    "instances_of_a_job_reach_each_other": lambda template: template["Resources"].pop(
        "JobsTalkToEachOther"
    ),
}


def test_every_rule_can_be_broken() -> None:
    assert BREAKS.keys() == set(re.findall(r"^rule (\w+)", RULES, re.MULTILINE))
    for rule, change in BREAKS.items():
        template = copy.deepcopy(BASE)
        change(template)
        assert rule in broken_rules(template), rule


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Prefix": "Team/"}, "Prefix is 'Team/'; it must be 1 to 63 lowercase letters"),
        ({"DataDays": "3"}, "at least 14"),
        ({"DataDays": "many"}, "a number"),
        ({"MonthlyBudgetUsd": "NaN"}, "a finite number"),
        ({"LogDays": "31"}, "one of 30, 60"),
        ({"WithVpc": "maybe"}, "one of yes, no"),
        ({"NotifyEmail": "a@b.ch,c@d.ch"}, "one e-mail address"),
        ({"GitHubProviderArn": "arn:aws:iam::000000000000:oidc-provider/evil"}, "that provider"),
        ({"VpcCidr": "10.0.0.0/28"}, "16 to 25 bit prefix"),
        ({"Perfix": "x"}, "unknown parameter Perfix (known: Prefix,"),
    ],
    ids=str,
)
def test_a_parameter_that_the_template_refuses_is_refused_here(
    given: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        change_sets.check_parameters("base", templates.load_template_text("base"), given, None)
    assert said in refused.value.message and "infra synth" in str(refused.value.fix)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_checkov_is_to_skip_has_a_reason(path: Path) -> None:
    """checkov itself runs by `make check-infra`, in an environment of its own."""
    for name, reported in templates.parse_template(path.read_text())["Resources"].items():
        for skipped in reported.get("Metadata", {}).get("checkov", {}).get("skip", ()):
            assert re.fullmatch(r"CKV2?_AWS_\d+", skipped["id"]), name
            assert len(skipped["comment"].split()) > 4, name


def test_every_parameter_says_what_it_is_and_stands_in_a_group() -> None:
    interface = BASE["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(BASE["Parameters"])
    for name, reported in BASE["Parameters"].items():
        assert reported["Description"], name
        bound = {"AllowedPattern", "AllowedValues", "MinValue"} & reported.keys()
        assert bound or reported["Type"] == "CommaDelimitedList", name
        assert "AllowedPattern" not in reported or "ConstraintDescription" in reported, name


def test_the_outputs_that_others_rely_on() -> None:
    always = {"DataBucketName", "OutputBucketName", "Prefix", "KeyArn", "BedrockRoleArn"}
    always |= {"ImportRoleArn", "SageMakerRoleArn", "CiPolicyArn"}
    always |= {"SubmitterPolicyArn", "ServingPolicyArn"}
    network = {"SubnetIds", "SecurityGroupIds"}
    assert always | {"JobTopicArn"} <= resolve_outputs({}).keys()
    assert not network & resolve_outputs({}).keys()
    assert network <= resolve_outputs(ALL_OPTIONS).keys()


def test_endpoints_without_a_network_break_a_rule() -> None:
    reported = list(
        TemplateScope(BASE, {"WithInterfaceEndpoints": "yes"}, PSEUDO, {}).failed_rules()
    )
    assert reported == ["WithInterfaceEndpoints: yes requires WithVpc: yes."]
    assert list(TemplateScope(BASE, ALL_OPTIONS, PSEUDO, {}).failed_rules()) == []


UNDER_WAY = {"InProgress", "Stopping", "Deleting", "Submitted", "Validating", "Scheduled"}


@pytest.mark.parametrize(
    ("rule", "kind", "field", "service", "shape"),
    [
        ("JobEnds", "Model Customization", "jobStatus", "bedrock", "ModelCustomizationJobStatus"),
        ("BatchEnds", "Batch Inference", "status", "bedrock", "ModelInvocationJobStatus"),
        (
            "TrainingEnds",
            "SageMaker Training",
            "TrainingJobStatus",
            "sagemaker",
            "TrainingJobStatus",
        ),
    ],
)
def test_every_end_of_a_job_is_heard_by_the_field_that_its_service_sends(
    rule: str, kind: str, field: str, service: str, shape: str
) -> None:
    """Fields: EventBridge events reference, Bedrock; SageMaker guide, "Events ... EventBridge"."""
    found = resolve_resources({})[rule]["Properties"]
    pattern = found["EventPattern"]
    assert pattern["source"] == [f"aws.{service}"]
    assert pattern["detail-type"] == [f"{kind} Job State Change"]
    reported = set(load_service_model(service).shape_for(shape).enum)
    assert set(pattern["detail"][field]) == reported - UNDER_WAY
    assert [target["Id"] for target in found["Targets"]] == ["topic", "log"]
    others = {key: value for key, value in pattern["detail"].items() if key != field}
    role = "arn:aws:iam::000000000000:role/team-SageMakerRole"
    assert others == ({"RoleArn": [role]} if service == "sagemaker" else {})


def test_a_budget_is_of_both_services_and_refused_where_there_are_none() -> None:
    reported = resolve_resources(ALL_OPTIONS)["Budget"]["Properties"]["Budget"]
    assert reported["CostFilters"] == {"Service": ["Amazon Bedrock", "Amazon SageMaker"]}
    for region, kinds in cfnlint_regions().items():
        pseudo = PSEUDO | {"AWS::Region": region}
        broken = list(TemplateScope(BASE, ALL_OPTIONS, pseudo, {}).failed_rules())
        assert bool(broken) == ("AWS::Budgets::Budget" not in kinds), region
        assert all("MonthlyBudgetUsd at 0" in words for words in broken)
        without = TemplateScope(BASE, {}, pseudo, {})
        assert not list(without.failed_rules()) and "Budget" not in without.active_resources()


def cfnlint_regions() -> dict[str, set[str]]:
    """Each Region with the types of our resources that its CloudFormation has."""
    from cfnlint.helpers import REGIONS
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER, ResourceNotFoundError

    found: dict[str, set[str]] = {region: set() for region in REGIONS}
    for region, kinds in found.items():
        for kind in {reported["Type"] for reported in BASE["Resources"].values()}:
            with contextlib.suppress(ResourceNotFoundError):
                PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, kind)
                kinds.add(kind)
    return found


def test_what_a_submit_sends_again_ends_and_what_jobs_have_made_stays() -> None:
    found = resolve_resources({})
    ends, stays = {}, {}
    for bucket in ("DataBucket", "OutputBucket"):
        rules = found[bucket]["Properties"]["LifecycleConfiguration"]["Rules"]
        ends[bucket] = {r["Prefix"] for r in rules if "ExpirationInDays" in r}
        stays[bucket] = {r["Prefix"] for r in rules if "Transitions" in r}
    assert ends["DataBucket"] == {"cloudft/data/", "cloudft/plans/", "cloudft/imports/"}
    assert ends["OutputBucket"] == {"cloudft/data/", "cloudft/models/", "cloudft/code/"}
    assert stays == {"DataBucket": set(), "OutputBucket": {"cloudft/jobs/"}}


def test_a_long_template_is_sent_as_json_and_one_that_is_too_long_is_refused() -> None:
    text = templates.load_template_text("base")
    assert len(text.encode()) > templates.MAX_BODY_BYTES, "else this test shows nothing"
    assert templates.parse_template(
        templates.format_request_body(text)
    ) == templates.parse_template(text)
    short = "Resources: {}\n"
    assert templates.format_request_body(short) is short
    with pytest.raises(UsageError, match="51200"):
        templates.format_request_body(f"Resources: {{}}\nDescription: {'x' * 60_000}\n")


def test_the_network_has_two_zones_that_do_not_overlap_and_only_s3_to_go_to() -> None:
    found = resolve_resources(ALL_OPTIONS)
    a, b = (found[name]["Properties"] for name in ("SubnetA", "SubnetB"))
    assert a["CidrBlock"] != b["CidrBlock"] and a["AvailabilityZone"] != b["AvailabilityZone"]
    kinds = {reported["Type"] for reported in found.values()}
    assert "AWS::EC2::Route" not in kinds
    [allowed] = found["S3Endpoint"]["Properties"]["PolicyDocument"]["Statement"]
    assert all(":::team-" in resource for resource in allowed["Resource"])


def test_a_message_of_eventbridge_is_allowed_without_a_condition_that_it_does_not_know() -> None:
    found = resolve_resources({})
    topic = found["JobTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    key = found["Key"]["Properties"]["KeyPolicy"]["Statement"]
    for statements in (topic, key):
        [events] = [
            s for s in statements if s["Principal"].get("Service") == "events.amazonaws.com"
        ]
        assert "Condition" not in events


def test_resources_come_behind_what_they_need() -> None:
    order = sort_by_dependency(base_scope(ALL_OPTIONS).active_resources())
    assert order.index("LogBucketPolicy") < order.index("DataBucket")
    assert order.index("BedrockRole") < order.index("BedrockRoleVpc")
    with pytest.raises(ResolveError, match="A, B"):
        sort_by_dependency(
            {name: {"Properties": {"x": {"Ref": other}}} for name, other in ("AB", "BA")}
        )


def test_a_function_or_a_name_that_is_not_known_is_refused() -> None:
    for value in ({"Fn::Transform": {}}, {"Ref": "Nobody"}, {"Fn::GetAtt": ["Key", "Size"]}):
        with pytest.raises(ResolveError):
            base_scope({}).resolve(value)


def test_what_stands_has_a_price_with_source_and_date_or_is_said_to_be_unknown() -> None:
    found = {
        cost.resource: cost for cost in resource_costs(base_scope(ALL_OPTIONS).active_resources())
    }
    assert found["Key"].per_month == 1.0 and found["Key"].source and found["Key"].date
    assert found["BedrockEndpoint"].per_month == pytest.approx(2 * 730 * 0.01)
    assert found["DataBucket"].per_month is None and "no price" in str(found["DataBucket"].note)
    assert "S3Endpoint" not in found, "a gateway endpoint costs nothing"
    assert sum_known_costs([ResourceCost("x", "y", None, None, None, None), found["Key"]]) == 1.0


def test_a_stack_that_is_deleted_leaves_what_can_not_be_made_again() -> None:
    kept = {
        n
        for n, reported in BASE["Resources"].items()
        if "Retain" in reported.get("DeletionPolicy", "")
    }
    assert kept == {"Key", "DataBucket", "OutputBucket", "LogBucket"}
