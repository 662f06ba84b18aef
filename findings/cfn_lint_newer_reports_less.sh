#!/usr/bin/env bash
# A newer cfn-lint accepts eleven mistakes in a budget, a topic, a key and roles that an older one reported.
#
# Packages: cfn-lint 1.58.0 against 1.23.1 (February 2025); botocore 1.44.5's service models as the
# reference for the values.
# Guess: cfn-lint still reports what it reported last year; new versions only add rules and values.
# Behavior: cfn-lint's own limits (with tests: pull requests 590, 811 and 864, issues 3804 and 3944) were lost
# when it regenerated its schemas from the providers and from patches. The enumerations of
# AWS::Budgets::Budget and AWS::IAM::AccessKey are gone; so is the pattern of a topic's name; policy
# documents may have 131,072 characters (gone: the managed policy's 6,144 by 1.32.0, the trust policy's by 1.48.0), a
# role any number of managed policies (by 1.54.0). The rules (E3030, E3031, E3032, E3033) are still listed and still
# run: they have nothing to compare with.
# Why it matters: a pipeline stays green after the linter's update and proves less; the error then appears at
# deployment, as a rollback of the stack.
# Way out: keep a template with known mistakes and require that the linter reports them; compare the values with
# botocore's models.
# Seen:
#   mistake                                     1.23.1      1.58.0   botocore 1.44.5 allows
#   budget type MONEY                            E3030           -   COST, RI_COVERAGE, RI_UTILIZATION, ...
#   time unit WEEKLY                             E3030           -   ANNUALLY, CUSTOM, DAILY, MONTHLY, QUARTERLY
#   notification type LATE                       E3030           -   ACTUAL, FORECASTED
#   notification comparison ABOVE                E3030           -   EQUAL_TO, GREATER_THAN, LESS_THAN
#   notification threshold RATIO                 E3030           -   ABSOLUTE_VALUE, PERCENTAGE
#   subscription SLACK                           E3030           -   EMAIL, SNS
#   access key On                                E3030           -   Active, Expired, Inactive
#   topic name with a space                      E3031           -
#   managed policy of 6,200 characters           E3033           -
#   trust policy of 4,200 characters             E3033           -
#   21 managed policies on a role                E3032           -
#   reported, of 11: 11 by 1.23.1, 0 by 1.58.0; of three templates without a mistake: 0 and 0
# (The last four: SNS's API reference, CreateTopic, and IAM's user guide, "IAM and AWS STS quotas", highest quotas.)
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.23.1 1.58.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip --disable-pip-version-check install --quiet cfn-lint==$version botocore==1.44.5
done
cat > "$folder/lint.py" <<'PYTHON'
"""Write the ids of the errors that cfn-lint has for each template."""

import copy
import json
import pathlib
import sys

import botocore.session
from cfnlint.api import lint
from cfnlint.config import ManualArgs

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "bedrock.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
NOTIFICATION = {
    "ComparisonOperator": "GREATER_THAN",
    "NotificationType": "ACTUAL",
    "Threshold": 80,
    "ThresholdType": "PERCENTAGE",
}


def budget(notification=None, subscription="EMAIL", **more):
    subscriber = {"SubscriptionType": subscription, "Address": "someone@example.com"}
    limit = {"BudgetLimit": {"Amount": 10, "Unit": "USD"}}
    notified = [{"Notification": {**NOTIFICATION, **(notification or {})}, "Subscribers": [subscriber]}]
    properties = {"Budget": {"BudgetType": "COST", "TimeUnit": "MONTHLY", **limit, **more}}
    return {"Type": "AWS::Budgets::Budget", "Properties": {**properties, "NotificationsWithSubscribers": notified}}


def policy(size):
    arns = []
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": arns}],
    }
    while not arns or len(json.dumps(document, separators=(",", ":"))) < size:
        arns.append(f"arn:aws:s3:::bucket-{len(arns):04}/*")
    return {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document}}


def trust(size):
    document, accounts = copy.deepcopy(TRUST), []
    document["Statement"][0]["Condition"] = {"StringEquals": {"aws:SourceAccount": accounts}}
    while len(json.dumps(document, separators=(",", ":"))) < size:
        accounts.append(f"{len(accounts) + 1:012}")
    return document


def role(document=TRUST, managed=1):
    arns = [f"arn:aws:iam::123456789012:policy/policy{n}" for n in range(managed)]
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": document, "ManagedPolicyArns": arns},
    }


def enum(service, operation, *path):
    """Return the values that botocore's model allows for a member of an operation's input."""
    session = botocore.session.get_session()
    shape = session.get_service_model(service).operation_model(operation).input_shape
    for name in path:
        shape = shape.members[name] if shape.type_name == "structure" else shape.member.members[name]
    return sorted(shape.enum)


CREATE = ("budgets", "CreateBudget")
NOTIFIED = (*CREATE, "NotificationsWithSubscribers", "Notification")
RIGHT = [budget(), role(), policy(6000)]
WRONG = {
    "budget type MONEY": (budget(BudgetType="MONEY"), (*CREATE, "Budget", "BudgetType")),
    "time unit WEEKLY": (budget(TimeUnit="WEEKLY"), (*CREATE, "Budget", "TimeUnit")),
    "notification type LATE": (budget({"NotificationType": "LATE"}), (*NOTIFIED, "NotificationType")),
    "notification comparison ABOVE": (budget({"ComparisonOperator": "ABOVE"}), (*NOTIFIED, "ComparisonOperator")),
    "notification threshold RATIO": (budget({"ThresholdType": "RATIO"}), (*NOTIFIED, "ThresholdType")),
    "subscription SLACK": (
        budget(subscription="SLACK"),
        (*CREATE, "NotificationsWithSubscribers", "Subscribers", "SubscriptionType"),
    ),
    "access key On": (
        {"Type": "AWS::IAM::AccessKey", "Properties": {"UserName": "someone", "Status": "On"}},
        ("iam", "UpdateAccessKey", "Status"),
    ),
    "topic name with a space": ({"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "my topic"}}, None),
    "managed policy of 6,200 characters": (policy(6200), None),
    "trust policy of 4,200 characters": (role(trust(4200)), None),
    "21 managed policies on a role": (role(managed=21), None),
}


def errors(resource):
    template = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"One": resource}}
    matches = lint(json.dumps(template), config=ManualArgs(regions=["us-east-1"]))
    return sorted({match.rule.id for match in matches if match.rule.id.startswith("E")})


found = {name: errors(resource) for name, (resource, _) in WRONG.items()}
allowed = {name: enum(*path) if path else [] for name, (_, path) in WRONG.items()}
for name, values in allowed.items():
    assert name.split()[-1] not in values
right = sum(map(bool, map(errors, RIGHT)))
pathlib.Path(sys.argv[1]).write_text(json.dumps({"found": found, "allowed": allowed, "right": right}))
PYTHON
cd "$folder"
for version in 1.23.1 1.58.0; do $version/bin/python -W ignore lint.py $version.json; done
python3 - <<'PYTHON'
import json
import pathlib
import sys

old, new = (json.loads(pathlib.Path(f"{version}.json").read_text()) for version in ("1.23.1", "1.58.0"))
print(f"{'mistake':38}{'1.23.1':>12}{'1.58.0':>12}   botocore 1.44.5 allows")
for name, errors in old["found"].items():
    values = new["allowed"][name]
    more = ", ..." if len(values) > 5 else ""
    cells = (",".join(found) or "-" for found in (errors, new["found"][name]))
    print(f"{name:38}" + "".join(f"{cell:>12}" for cell in cells) + "   " + ", ".join(values[:5]) + more)
counts = [sum(map(bool, version["found"].values())) for version in (old, new)]
right = [version["right"] for version in (old, new)]
print(f"reported, of {len(old['found'])}: {counts[0]} by 1.23.1, {counts[1]} by 1.58.0;", end=" ")
print(f"of three templates without a mistake: {right[0]} and {right[1]}")
same = counts == [len(old["found"]), 0] and right == [0, 0]
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
