"""Topics, rules, budgets, alarms, and the functions that watch."""

from __future__ import annotations

import io
import uuid
import zipfile
from typing import Any

import orjson

from cloudft.endpoint.stacks.records import Piece
from cloudft.endpoint.stacks.types import TYPES, Asked, Services, Type, known, tags_of
from cloudft.infrastructure.evaluate import Made


def _make_topic(asked: Asked) -> Made:
    sns, given = asked.services("sns"), asked.properties
    settings = {"KmsMasterKeyId": given["KmsMasterKeyId"]} if "KmsMasterKeyId" in given else {}
    tags = tags_of(given)
    made = sns.create_topic(Name=asked.name, Attributes=settings, Tags=tags)["TopicArn"]
    return Made(made, {"TopicArn": made, "TopicName": asked.name})


TYPES["AWS::SNS::Topic"] = Type(
    known("KmsMasterKeyId", "Tags"),
    _make_topic,
    lambda services, piece: services("sns").delete_topic(TopicArn=piece.physical),
)


def _put_topic_policy(asked: Asked) -> Made:
    policy = orjson.dumps(asked.properties["PolicyDocument"]).decode()
    topics = asked.properties["Topics"]
    for topic in topics:
        asked.services("sns").set_topic_attributes(
            TopicArn=topic, AttributeName="Policy", AttributeValue=policy
        )
    return Made(f"{asked.name}")


def _nothing(services: Services, piece: Piece) -> None:
    """It goes with the topic that it is of."""


TYPES["AWS::SNS::TopicPolicy"] = Type(
    known("PolicyDocument", "Topics"), _put_topic_policy, _nothing
)


def _subscribe(asked: Asked) -> Made:
    kept = asked.take("TopicArn", "Protocol", "Endpoint")
    made = asked.services("sns").subscribe(**kept, ReturnSubscriptionArn=True)
    return Made(made["SubscriptionArn"])


TYPES["AWS::SNS::Subscription"] = Type(
    known("Endpoint", "Protocol", "TopicArn"),
    _subscribe,
    lambda services, piece: services("sns").unsubscribe(SubscriptionArn=piece.physical),
)


def _make_rule(asked: Asked) -> Made:
    events, given = asked.services("events"), asked.properties
    said = asked.take("Description", "ScheduleExpression")
    if "EventPattern" in given:
        said["EventPattern"] = orjson.dumps(given["EventPattern"]).decode()
    made = events.put_rule(Name=asked.name, State="ENABLED", **said)["RuleArn"]
    if given.get("Targets"):
        events.put_targets(Rule=asked.name, Targets=[dict(t) for t in given["Targets"]])
    return Made(asked.name, {"Arn": made})


def _remove_rule(services: Services, piece: Piece) -> None:
    events, ids = services("events"), [t["Id"] for t in piece.properties.get("Targets", ())]
    if ids:
        events.remove_targets(Rule=piece.physical, Ids=ids)
    events.delete_rule(Name=piece.physical)


TYPES["AWS::Events::Rule"] = Type(
    known("Description", "EventPattern", "ScheduleExpression", "Targets"), _make_rule, _remove_rule
)


def _make_budget(asked: Asked) -> Made:
    budget = dict(asked.properties["Budget"])
    limit = {name: str(value) for name, value in budget["BudgetLimit"].items()}
    told = asked.properties.get("NotificationsWithSubscribers", ())
    asked.services("budgets").create_budget(
        AccountId=asked.account,
        Budget={**budget, "BudgetLimit": limit},
        NotificationsWithSubscribers=[dict(one) for one in told],
    )
    return Made(budget["BudgetName"])


def _remove_budget(services: Services, piece: Piece) -> None:
    account = services("sts").get_caller_identity()["Account"]
    services("budgets").delete_budget(AccountId=account, BudgetName=piece.physical)


TYPES["AWS::Budgets::Budget"] = Type(
    known("Budget", "NotificationsWithSubscribers"), _make_budget, _remove_budget
)


def _make_alarm(asked: Asked) -> Made:
    given = dict(asked.properties)
    numbers = {name: int(given[name]) for name in ("Period", "EvaluationPeriods")}
    threshold = {"Threshold": float(given["Threshold"])}
    asked.services("cloudwatch").put_metric_alarm(
        **{**given, **numbers, **threshold, "AlarmName": asked.name}
    )
    arn = f"arn:aws:cloudwatch:{asked.region}:{asked.account}:alarm:{asked.name}"
    return Made(asked.name, {"Arn": arn})


TYPES["AWS::CloudWatch::Alarm"] = Type(
    known(
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
    _make_alarm,
    lambda services, piece: services("cloudwatch").delete_alarms(AlarmNames=[piece.physical]),
)


def _make_function(asked: Asked) -> Made:
    given = asked.properties
    kept = asked.take("Description", "Handler", "Role", "Runtime", "Environment", "LoggingConfig")
    sizes = {name: int(given[name]) for name in ("MemorySize", "Timeout") if name in given}
    code = {"ZipFile": _zipped(given["Code"]["ZipFile"])}
    made = asked.services("lambda").create_function(
        FunctionName=asked.name, Code=code, **kept, **sizes
    )
    return Made(asked.name, {"Arn": made["FunctionArn"]})


def _zipped(code: str) -> bytes:
    """A function whose code stands in the template: index.py."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", code)
    return packed.getvalue()


def _update_function(asked: Asked, piece: Piece) -> None:
    service: Any = asked.services("lambda")
    service.update_function_code(
        FunctionName=piece.physical, ZipFile=_zipped(asked.properties["Code"]["ZipFile"])
    )
    service.update_function_configuration(
        FunctionName=piece.physical, **asked.take("Description", "Environment")
    )


TYPES["AWS::Lambda::Function"] = Type(
    known(
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
    _make_function,
    lambda services, piece: services("lambda").delete_function(FunctionName=piece.physical),
    _update_function,
)


def _permit(asked: Asked) -> Made:
    kept = asked.take("Action", "FunctionName", "Principal", "SourceArn")
    identifier = uuid.uuid4().hex
    asked.services("lambda").add_permission(StatementId=identifier, **kept)
    return Made(identifier)


def _forbid(services: Services, piece: Piece) -> None:
    name = piece.properties["FunctionName"]
    services("lambda").remove_permission(FunctionName=name, StatementId=piece.physical)


TYPES["AWS::Lambda::Permission"] = Type(
    known("Action", "FunctionName", "Principal", "SourceArn"), _permit, _forbid
)
