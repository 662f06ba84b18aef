"""Invoke a job's grader once on AWS, and compare its rewards with those of its file here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from cloudft.aws.client import Aws
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import MakeFinding
from cloudft.backends.bedrock.grader_checks import ARN_FIELD, GRADER_FIELD
from cloudft.backends.capabilities import SupportsGrading
from cloudft.errors import CloudRefused, CloudUnreachable, TrainerError
from cloudft.grading import GraderConfig, GraderFailed, GradingSample, GradingSession
from cloudft.spec.grader_file import read_grader
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

TOLERANCE = 1e-6
"""Difference of two rewards that are the same: another processor may round otherwise."""
TIMED_OUT = "Task timed out"
"""Begins Lambda's message about a call that was too slow."""


def invoke_grader(
    job: LoadedJob,
    aws: Aws,
    samples: Sequence[GradingSample],
    here: SupportsGrading,
    finding: MakeFinding,
) -> Iterator[Finding]:
    """Yield what is wrong with the function's reply to one event.

    `here` runs the grader's file on this machine: the rewards must be the same. A message quotes
    neither a sample nor what the function says about one.
    """
    section = job.spec.reinforcement
    if section is None or section.lambda_arn is None:
        return
    event = [
        {"id": one.id, "messages": list(one.messages), "metadata": dict(one.metadata)}
        for one in samples
    ]
    failure = f"the grader {section.lambda_arn} can't be invoked"
    try:
        # Once: a grader may cost, since it may ask a judge.
        answer = aws.call_without_retry(
            failure,
            "lambda",
            "invoke",
            FunctionName=section.lambda_arn,
            Payload=json.dumps(event).encode(),
        )
        reply = json.loads(answer["Payload"].read() or b"null")
    except (CloudRefused, CloudUnreachable) as error:
        yield account_checks.unchecked_finding("the grader's reply", ARN_FIELD, error, finding)
        return
    if answer.get("FunctionError"):
        yield _function_error(reply, finding)
        return
    try:
        rewards = here.read_rewards(reply, [one.id for one in samples])
    except TrainerError as error:
        message = f"the function's reply can't be used: {error.message}"
        yield finding("GraderReply", ARN_FIELD, message, error.fix or "correct the grader.")
        return
    grader = read_grader(job)
    if grader is not None:
        config = GraderConfig(grader.path, section.timeout_seconds, section.memory_mb)
        with here.open_grader(config) as local:
            yield from _compare_rewards(rewards, local, samples, finding)


def _function_error(reply: Any, finding: MakeFinding) -> Finding:
    """Return the finding for a call that raised, timed out or ended its process."""
    known = reply if isinstance(reply, dict) else {}
    text = str(known.get("errorMessage", ""))
    if TIMED_OUT in text:
        what, fix = text[text.index(TIMED_OUT) :], "make it faster, or raise its time limit:"
        fix += " reinforcement.timeout_seconds, then deploy the grader again."
    else:
        what = f"it ended with {known.get('errorType', 'an error')}"
        fix = "`cloudft grader test` runs the file here; its log on AWS has the rest."
    return finding("GraderFailed", ARN_FIELD, f"the function graded nothing: {what}", fix)


def _compare_rewards(
    rewards: Sequence[float],
    local: GradingSession,
    samples: Sequence[GradingSample],
    finding: MakeFinding,
) -> Iterator[Finding]:
    try:
        own = [grade.reward for grade in local.grade(samples).grades]
    except GraderFailed as error:
        yield from error.findings
        return
    for sample, there, here in zip(samples, rewards, own, strict=True):
        if abs(there - here) > TOLERANCE * max(1.0, abs(here)):
            message = f"the function gives {sample.id} the reward {there:g}, the file here {here:g}"
            fix = "deploy this file; a grader must give the same reward each time."
            yield finding("GraderDiffers", GRADER_FIELD, message, fix)
            return
