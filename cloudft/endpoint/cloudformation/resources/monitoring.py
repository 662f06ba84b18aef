"""Topics, rules, budgets, alarms, and the functions that watch."""

from __future__ import annotations

import io
import uuid
import zipfile
from typing import Any

import orjson

from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    ClientFactory,
    ResourceRequest,
    ResourceType,
    names_of,
    tags_of,
)
from cloudft.infra.intrinsics import CreatedResource


def _create_topic(asked: ResourceRequest) -> CreatedResource:
    sns, given = asked.client("sns"), asked.properties
    settings = {"KmsMasterKeyId": given["KmsMasterKeyId"]} if "KmsMasterKeyId" in given else {}
    tags = tags_of(given)
    made = sns.create_topic(Name=asked.name, Attributes=settings, Tags=tags)["TopicArn"]
    return CreatedResource(made, {"TopicArn": made, "TopicName": asked.name})


RESOURCE_TYPES["AWS::SNS::Topic"] = ResourceType(
    names_of("KmsMasterKeyId", "Tags"),
    _create_topic,
    lambda services, piece: services("sns").delete_topic(TopicArn=piece.physical),
)


def _put_topic_policy(asked: ResourceRequest) -> CreatedResource:
    policy = orjson.dumps(asked.properties["PolicyDocument"]).decode()
    topics = asked.properties["Topics"]
    for topic in topics:
        asked.client("sns").set_topic_attributes(
            TopicArn=topic, AttributeName="Policy", AttributeValue=policy
        )
    return CreatedResource(f"{asked.name}")


def _keep_topic_policy(services: ClientFactory, piece: StackResource) -> None:
    """It goes with the topic that it is of."""


RESOURCE_TYPES["AWS::SNS::TopicPolicy"] = ResourceType(
    names_of("PolicyDocument", "Topics"), _put_topic_policy, _keep_topic_policy
)


def _subscribe(asked: ResourceRequest) -> CreatedResource:
    kept = asked.pick("TopicArn", "Protocol", "Endpoint")
    made = asked.client("sns").subscribe(**kept, ReturnSubscriptionArn=True)
    return CreatedResource(made["SubscriptionArn"])


RESOURCE_TYPES["AWS::SNS::Subscription"] = ResourceType(
    names_of("Endpoint", "Protocol", "TopicArn"),
    _subscribe,
    lambda services, piece: services("sns").unsubscribe(SubscriptionArn=piece.physical),
)


def _create_rule(asked: ResourceRequest) -> CreatedResource:
    events, given = asked.client("events"), asked.properties
    said = asked.pick("Description", "ScheduleExpression")
    if "EventPattern" in given:
        said["EventPattern"] = orjson.dumps(given["EventPattern"]).decode()
    made = events.put_rule(Name=asked.name, State="ENABLED", **said)["RuleArn"]
    if given.get("Targets"):
        events.put_targets(Rule=asked.name, Targets=[dict(t) for t in given["Targets"]])
    return CreatedResource(asked.name, {"Arn": made})


def _delete_rule(services: ClientFactory, piece: StackResource) -> None:
    events, ids = services("events"), [t["Id"] for t in piece.properties.get("Targets", ())]
    if ids:
        events.remove_targets(Rule=piece.physical, Ids=ids)
    events.delete_rule(Name=piece.physical)


RESOURCE_TYPES["AWS::Events::Rule"] = ResourceType(
    names_of("Description", "EventPattern", "ScheduleExpression", "Targets"),
    _create_rule,
    _delete_rule,
)


def _create_budget(asked: ResourceRequest) -> CreatedResource:
    budget = dict(asked.properties["Budget"])
    limit = {name: str(value) for name, value in budget["BudgetLimit"].items()}
    told = asked.properties.get("NotificationsWithSubscribers", ())
    asked.client("budgets").create_budget(
        AccountId=asked.account,
        Budget={**budget, "BudgetLimit": limit},
        NotificationsWithSubscribers=[dict(one) for one in told],
    )
    return CreatedResource(budget["BudgetName"])


def _delete_budget(services: ClientFactory, piece: StackResource) -> None:
    account = services("sts").get_caller_identity()["Account"]
    services("budgets").delete_budget(AccountId=account, BudgetName=piece.physical)


RESOURCE_TYPES["AWS::Budgets::Budget"] = ResourceType(
    names_of("Budget", "NotificationsWithSubscribers"), _create_budget, _delete_budget
)


def _create_alarm(asked: ResourceRequest) -> CreatedResource:
    given = dict(asked.properties)
    numbers = {name: int(given[name]) for name in ("Period", "EvaluationPeriods")}
    threshold = {"Threshold": float(given["Threshold"])}
    asked.client("cloudwatch").put_metric_alarm(
        **{**given, **numbers, **threshold, "AlarmName": asked.name}
    )
    arn = f"arn:aws:cloudwatch:{asked.region}:{asked.account}:alarm:{asked.name}"
    return CreatedResource(asked.name, {"Arn": arn})


RESOURCE_TYPES["AWS::CloudWatch::Alarm"] = ResourceType(
    names_of(
        "AlarmActions",
        "AlarmDescription",
        "ComparisonOperator",
        "Dimensions",
        "EvaluationPeriods",
        "MetricName",
        "Namespace",
        "OKActions",
        "Period",
        "Statistic",
        "Threshold",
        "TreatMissingData",
    ),
    _create_alarm,
    lambda services, piece: services("cloudwatch").delete_alarms(AlarmNames=[piece.physical]),
)


def _create_function(asked: ResourceRequest) -> CreatedResource:
    given = asked.properties
    kept = asked.pick("Description", "Handler", "Role", "Runtime", "Environment", "LoggingConfig")
    sizes = {name: int(given[name]) for name in ("MemorySize", "Timeout") if name in given}
    code = {"ZipFile": _zip_code(given["Code"]["ZipFile"])}
    made = asked.client("lambda").create_function(
        FunctionName=asked.name, Code=code, **kept, **sizes
    )
    return CreatedResource(asked.name, {"Arn": made["FunctionArn"]})


def _zip_code(code: str) -> bytes:
    """A function whose code stands in the template: index.py."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", code)
    return packed.getvalue()


def _update_function(asked: ResourceRequest, piece: StackResource) -> None:
    service: Any = asked.client("lambda")
    service.update_function_code(
        FunctionName=piece.physical, ZipFile=_zip_code(asked.properties["Code"]["ZipFile"])
    )
    service.update_function_configuration(
        FunctionName=piece.physical, **asked.pick("Description", "Environment")
    )


RESOURCE_TYPES["AWS::Lambda::Function"] = ResourceType(
    names_of(
        "Code",
        "Description",
        "Environment",
        "Handler",
        "LoggingConfig",
        "MemorySize",
        "Role",
        "Runtime",
        "Timeout",
    ),
    _create_function,
    lambda services, piece: services("lambda").delete_function(FunctionName=piece.physical),
    _update_function,
)


def _add_permission(asked: ResourceRequest) -> CreatedResource:
    kept = asked.pick("Action", "FunctionName", "Principal", "SourceArn")
    identifier = uuid.uuid4().hex
    asked.client("lambda").add_permission(StatementId=identifier, **kept)
    return CreatedResource(identifier)


def _remove_permission(services: ClientFactory, piece: StackResource) -> None:
    name = piece.properties["FunctionName"]
    services("lambda").remove_permission(FunctionName=name, StatementId=piece.physical)


RESOURCE_TYPES["AWS::Lambda::Permission"] = ResourceType(
    names_of("Action", "FunctionName", "Principal", "SourceArn"),
    _add_permission,
    _remove_permission,
)
