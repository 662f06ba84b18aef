"""Resource types for monitoring: SNS topics, event rules, budgets, alarms, Lambda functions."""

from __future__ import annotations

import io
import uuid
import zipfile

import orjson

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    Arguments,
    Properties,
    ResourceRequest,
    ResourceType,
    property_names,
    tags_of,
)
from cloudft.infra.intrinsics import CreatedResource


def _create_topic(request: ResourceRequest) -> CreatedResource:
    sns, properties = request.client("sns"), request.properties
    settings = (
        {"KmsMasterKeyId": properties["KmsMasterKeyId"]} if "KmsMasterKeyId" in properties else {}
    )
    tags = tags_of(properties)
    created = sns.create_topic(Name=request.name, Attributes=settings, Tags=tags)["TopicArn"]
    return CreatedResource(created, {"TopicArn": created, "TopicName": request.name})


RESOURCE_TYPES["AWS::SNS::Topic"] = ResourceType(
    property_names("KmsMasterKeyId", "Tags"),
    _create_topic,
    lambda client, resource: client("sns").delete_topic(TopicArn=resource.physical),
)


def _put_topic_policy(request: ResourceRequest) -> CreatedResource:
    policy = orjson.dumps(request.properties["PolicyDocument"]).decode()
    topics = request.properties["Topics"]
    for topic in topics:
        request.client("sns").set_topic_attributes(
            TopicArn=topic, AttributeName="Policy", AttributeValue=policy
        )
    return CreatedResource(f"{request.name}")


def _keep_topic_policy(client: ClientFactory, resource: StackResource) -> None:
    """Do nothing: the policy is deleted with its topic."""


RESOURCE_TYPES["AWS::SNS::TopicPolicy"] = ResourceType(
    property_names("PolicyDocument", "Topics"), _put_topic_policy, _keep_topic_policy
)


def _subscribe(request: ResourceRequest) -> CreatedResource:
    arguments = request.pick("TopicArn", "Protocol", "Endpoint")
    created = request.client("sns").subscribe(**arguments, ReturnSubscriptionArn=True)
    return CreatedResource(created["SubscriptionArn"])


RESOURCE_TYPES["AWS::SNS::Subscription"] = ResourceType(
    property_names("Endpoint", "Protocol", "TopicArn"),
    _subscribe,
    lambda client, resource: client("sns").unsubscribe(SubscriptionArn=resource.physical),
)


def _create_rule(request: ResourceRequest) -> CreatedResource:
    events, properties = request.client("events"), request.properties
    settings = request.pick("Description", "ScheduleExpression")
    if "EventPattern" in properties:
        settings["EventPattern"] = orjson.dumps(properties["EventPattern"]).decode()
    created = events.put_rule(Name=request.name, State="ENABLED", **settings)["RuleArn"]
    if properties.get("Targets"):
        events.put_targets(Rule=request.name, Targets=[dict(t) for t in properties["Targets"]])
    return CreatedResource(request.name, {"Arn": created})


def _delete_rule(client: ClientFactory, resource: StackResource) -> None:
    events, ids = client("events"), [t["Id"] for t in resource.properties.get("Targets", ())]
    if ids:
        events.remove_targets(Rule=resource.physical, Ids=ids)
    events.delete_rule(Name=resource.physical)


RESOURCE_TYPES["AWS::Events::Rule"] = ResourceType(
    property_names("Description", "EventPattern", "ScheduleExpression", "Targets"),
    _create_rule,
    _delete_rule,
)


def _create_budget(request: ResourceRequest) -> CreatedResource:
    budget = dict(request.properties["Budget"])
    limit = {name: str(value) for name, value in budget["BudgetLimit"].items()}
    notifications = request.properties.get("NotificationsWithSubscribers", ())
    request.client("budgets").create_budget(
        AccountId=request.account,
        Budget={**budget, "BudgetLimit": limit},
        NotificationsWithSubscribers=[dict(one) for one in notifications],
    )
    return CreatedResource(budget["BudgetName"])


def _delete_budget(client: ClientFactory, resource: StackResource) -> None:
    account = client("sts").get_caller_identity()["Account"]
    client("budgets").delete_budget(AccountId=account, BudgetName=resource.physical)


RESOURCE_TYPES["AWS::Budgets::Budget"] = ResourceType(
    property_names("Budget", "NotificationsWithSubscribers"), _create_budget, _delete_budget
)


def _create_alarm(request: ResourceRequest) -> CreatedResource:
    properties = dict(request.properties)
    numbers = {name: int(properties[name]) for name in ("Period", "EvaluationPeriods")}
    threshold = {"Threshold": float(properties["Threshold"])}
    request.client("cloudwatch").put_metric_alarm(
        **{**properties, **numbers, **threshold, "AlarmName": request.name}
    )
    arn = f"arn:aws:cloudwatch:{request.region}:{request.account}:alarm:{request.name}"
    return CreatedResource(request.name, {"Arn": arn})


RESOURCE_TYPES["AWS::CloudWatch::Alarm"] = ResourceType(
    property_names(
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
    lambda client, resource: client("cloudwatch").delete_alarms(AlarmNames=[resource.physical]),
)


def _create_function(request: ResourceRequest) -> CreatedResource:
    name = str(request.properties.get("FunctionName", request.name))
    created = request.client("lambda").create_function(
        FunctionName=name,
        Code=_code(request.properties["Code"]),
        Tags=_function_tags(request.properties),
        **request.pick("Runtime"),
        **_configuration(request),
    )
    return CreatedResource(name, {"Arn": created["FunctionArn"]})


def _configuration(request: ResourceRequest) -> Arguments:
    """Return what both create_function and update_function_configuration take."""
    sizes = {
        name: int(request.properties[name])
        for name in ("MemorySize", "Timeout")
        if name in request.properties
    }
    names = ("Description", "Handler", "Role", "Environment", "LoggingConfig")
    return {**request.pick(*names), **sizes}


def _code(code: Properties) -> Arguments:
    """Return a function's code: where it is in S3, or the inline code as an archive."""
    if "ZipFile" in code:
        return {"ZipFile": _zip_code(code["ZipFile"])}
    return dict(code)


def _function_tags(properties: Properties) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags_of(properties)}


def _zip_code(code: str) -> bytes:
    """Return a zip archive of the template's inline code, as index.py."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", code)
    return packed.getvalue()


def _update_function(request: ResourceRequest, resource: StackResource) -> None:
    service, name = request.client("lambda"), {"FunctionName": resource.physical}
    service.update_function_code(**name, **_code(request.properties["Code"]))
    answer = service.update_function_configuration(**name, **_configuration(request))
    arn, old = answer["FunctionArn"], _function_tags(resource.properties)
    service.untag_resource(Resource=arn, TagKeys=list(old))
    service.tag_resource(Resource=arn, Tags=_function_tags(request.properties))


RESOURCE_TYPES["AWS::Lambda::Function"] = ResourceType(
    property_names(
        "Code",
        "Description",
        "Environment",
        "FunctionName",
        "Handler",
        "LoggingConfig",
        "MemorySize",
        "Role",
        "Runtime",
        "Tags",
        "Timeout",
    ),
    _create_function,
    lambda client, resource: client("lambda").delete_function(FunctionName=resource.physical),
    _update_function,
)


def _add_permission(request: ResourceRequest) -> CreatedResource:
    arguments = request.pick("Action", "FunctionName", "Principal", "SourceArn")
    identifier = uuid.uuid4().hex
    request.client("lambda").add_permission(StatementId=identifier, **arguments)
    return CreatedResource(identifier)


def _remove_permission(client: ClientFactory, resource: StackResource) -> None:
    name = resource.properties["FunctionName"]
    client("lambda").remove_permission(FunctionName=name, StatementId=resource.physical)


RESOURCE_TYPES["AWS::Lambda::Permission"] = ResourceType(
    property_names("Action", "FunctionName", "Principal", "SourceArn"),
    _add_permission,
    _remove_permission,
)
