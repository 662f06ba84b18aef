"""Decisions by IAM policies: effects, wildcards, variables, conditions, boundaries."""

from __future__ import annotations

import fnmatch
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft.endpoint.iam.policies import (
    AccessRequest,
    allows_assume_role,
    evaluate_policies,
    matches_wildcard,
)

READ = "s3:GetObject"
ARN = "arn:aws:s3:::bucket/team/x"


def allow(**more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": READ, "Resource": ARN, **more}


def deny(**more: Any) -> dict[str, Any]:
    return allow(Effect="Deny", **more)


@pytest.mark.parametrize(
    ("statements", "decision"),
    [
        ([], "implicitDeny"),
        ([allow()], "allowed"),
        ([allow(Action="S3:getobject")], "allowed"),
        ([allow(Action=["s3:Get*"])], "allowed"),
        ([allow(Action="s3:Put*")], "implicitDeny"),
        ([allow(Resource="arn:aws:s3:::bucket/team/*")], "allowed"),
        ([allow(Resource="arn:aws:s3:::BUCKET/team/*")], "implicitDeny"),
        ([allow(), deny()], "explicitDeny"),
        ([allow(Action=[], NotAction="s3:GetObject")], "implicitDeny"),
        ([{"Effect": "Allow", "NotAction": "s3:Put*", "Resource": "*"}], "allowed"),
        (
            [{"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::bucket/*"}, allow()],
            "allowed",
        ),
        ([allow(Resource="arn:aws:s3:::bucket/${aws:username}/x")], "allowed"),
        ([allow(Resource="arn:aws:s3:::bucket/${aws:nobody}/x")], "implicitDeny"),
        ([allow(Condition={"StringEquals": {"AWS:Username": ["x", "team"]}})], "allowed"),
        ([allow(Condition={"StringEquals": {"aws:missing": "x"}})], "implicitDeny"),
        ([allow(Condition={"StringEqualsIfExists": {"aws:missing": "x"}})], "allowed"),
        ([allow(Condition={"StringNotEquals": {"aws:missing": "x"}})], "allowed"),
        ([allow(Condition={"StringNotEquals": {"aws:username": ["x", "team"]}})], "implicitDeny"),
        ([allow(Condition={"StringLike": {"aws:username": "t?am"}})], "allowed"),
        ([allow(Condition={"Bool": {"aws:SecureTransport": True}})], "allowed"),
        ([allow(), deny(Condition={"Bool": {"aws:SecureTransport": "false"}})], "allowed"),
        ([allow(Condition={"Null": {"aws:missing": "true"}})], "allowed"),
        ([allow(Condition={"Null": {"aws:username": "true"}})], "implicitDeny"),
        ([allow(Condition={"NumericLessThan": {"s3:size": "10"}})], "allowed"),
        ([allow(Condition={"NumericGreaterThan": {"s3:size": "10"}})], "implicitDeny"),
        ([allow(Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}})], "allowed"),
        ([allow(Condition={"ForAllValues:StringEquals": {"aws:TagKeys": "a"}})], "implicitDeny"),
        ([allow(Condition={"ForAnyValue:StringEquals": {"aws:TagKeys": "a"}})], "allowed"),
        ([allow(Condition={"ForAnyValue:StringEquals": {"aws:missing": "a"}})], "implicitDeny"),
        ([allow(Condition={"ForAllValues:StringEquals": {"aws:missing": "a"}})], "allowed"),
        ([allow(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:bedrock:*:1:job/*"}})], "allowed"),
        (
            [allow(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:bedrock:*job/*"}})],
            "implicitDeny",
        ),
    ],
    ids=str,
)
def test_a_decision(statements: list[dict[str, Any]], decision: str) -> None:
    context = {
        "aws:username": "team",
        "aws:SecureTransport": "true",
        "s3:size": "5",
        "aws:TagKeys": ["a", "b"],
        "aws:SourceArn": "arn:aws:bedrock:us-east-1:1:job/x",
    }
    assert evaluate_policies(statements, AccessRequest(READ, ARN, context)) == decision


def test_a_boundary_only_takes_away() -> None:
    request = AccessRequest(READ, ARN, {})
    assert evaluate_policies([allow()], request, boundary=[allow(Action="s3:*")]) == "allowed"
    assert evaluate_policies([allow()], request, boundary=[]) == "implicitDeny"
    assert evaluate_policies([], request, boundary=[allow()]) == "implicitDeny"
    assert evaluate_policies([allow()], request, boundary=[allow(), deny()]) == "explicitDeny"


def test_a_condition_that_is_not_known_is_no_guess() -> None:
    odd = allow(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})
    with pytest.raises(ValueError, match="IpAddress"):
        evaluate_policies([odd], AccessRequest(READ, ARN, {"aws:SourceIp": "10.0.0.1"}))


def test_trust_requires_the_service_and_its_conditions() -> None:
    bedrock = {"Service": "bedrock.amazonaws.com"}
    guard = {"StringEquals": {"aws:SourceAccount": "1"}}
    statement = {"Effect": "Allow", "Principal": bedrock, "Action": "sts:AssumeRole"}
    policy = {"Statement": {**statement, "Condition": guard}}
    assert allows_assume_role(policy, "bedrock.amazonaws.com", {"aws:SourceAccount": "1"})
    assert not allows_assume_role(policy, "bedrock.amazonaws.com", {"aws:SourceAccount": "2"})
    assert not allows_assume_role(policy, "bedrock.amazonaws.com", {})
    assert not allows_assume_role(policy, "lambda.amazonaws.com", {"aws:SourceAccount": "1"})
    refusing = {"Statement": [policy["Statement"], {**statement, "Effect": "Deny"}]}
    assert not allows_assume_role(refusing, "bedrock.amazonaws.com", {"aws:SourceAccount": "1"})


LETTERS = st.text(string.ascii_lowercase + ":/.-", max_size=8)


@given(st.lists(st.one_of(LETTERS, st.sampled_from(["*", "?"])), max_size=5), LETTERS)
def test_patterns_mean_what_shell_patterns_do(parts: list[str], text: str) -> None:
    assert matches_wildcard("".join(parts), text) == fnmatch.fnmatchcase(text, "".join(parts))
