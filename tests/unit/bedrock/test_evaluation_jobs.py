"""Evaluation jobs: requests, results in the forms that were seen, permissions, judges, price."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloudft.aws.permissions import ArnContext
from cloudft.aws.request_validation import validate_request
from cloudft.backends.bedrock import evaluation_jobs, evaluation_permissions
from cloudft.backends.bedrock.evaluation_jobs import EvaluationLocation
from cloudft.backends.evaluation_jobs import (
    AnsweredRecord,
    EvaluationPlan,
    JudgedAnswers,
    JudgeSettings,
    Judgment,
    PlannedEvaluationJob,
)
from cloudft.catalogue import evaluation_metrics as facts
from cloudft.errors import OverBudget, UsageError
from cloudft.evaluate import judged
from cloudft.evaluate.results import Evaluation

ROLE = "arn:aws:iam::123456789012:role/bedrock"
LOCATION = EvaluationLocation("bucket", "team/jobs/one/evaluations/", "123456789012", ROLE, "one")
JUDGE = "amazon.nova-pro-v1:0"
RECORDS = [AnsweredRecord("Where?", "Oslo", text) for text in ("Oslo", "Rome", "Oslo")]
ALL_METRICS = tuple(facts.JUDGE_METRICS)


class FakeAws:
    """AWS that has the evaluation jobs of `names`, by status."""

    region = "us-east-1"

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.names = names or {}

    def paginate(self, what: str, service: str, operation: str, key: str, **named: Any) -> Any:
        for name, status in self.names.items():
            if named["nameContains"] in name:
                yield {"jobName": name, "jobArn": f"arn:{name}", "status": status}


def plan_of(aws: FakeAws, metrics: tuple[str, ...] = ALL_METRICS, judge: str = JUDGE) -> Any:
    answers = {"base": RECORDS, "tuned": RECORDS[:1]}
    settings = JudgeSettings(metrics, judge)
    return evaluation_jobs.plan_evaluation(cast(Any, aws), LOCATION, answers, settings)


def test_a_request_is_valid_by_the_service_model_and_the_same_for_the_same_answers() -> None:
    plan = plan_of(FakeAws())
    assert plan == plan_of(FakeAws()) and len(plan.new_jobs) == 2
    for job in plan.jobs:
        assert validate_request("bedrock", "CreateEvaluationJob", job.parameters) == []
        [source] = job.parameters["inferenceConfig"]["models"]
        name = source["precomputedInferenceSource"]["inferenceSourceIdentifier"]
        for line in map(json.loads, job.dataset.splitlines()):
            assert line["modelResponses"][0]["modelIdentifier"] == name == job.variant
    names = {job.parameters["jobName"] for job in plan.jobs}
    others = (plan_of(FakeAws(), ("Relevance",)), plan_of(FakeAws(), judge="nova-micro"))
    for other in others:
        assert not names & {job.parameters["jobName"] for job in other.jobs}


def test_a_job_that_failed_makes_the_next_attempt_another_name() -> None:
    first = [str(job.parameters["jobName"]) for job in plan_of(FakeAws()).jobs]
    assert all(name.endswith("-0") for name in first)
    failed = plan_of(FakeAws({first[0]: "Failed", first[1]: "Completed"}))
    base, tuned = failed.jobs
    assert base.existing is None and base.parameters["jobName"] == first[0][:-1] + "1"
    assert tuned.existing == f"arn:{first[1]}" and failed.new_jobs == (base,)
    prefix = {f"{first[0][:-1]}x": "InProgress"}  # no attempt's name
    assert plan_of(FakeAws(prefix)).jobs[0].existing is None


@pytest.mark.parametrize(
    ("name", "region", "called"),
    [
        (JUDGE, "us-east-1", JUDGE),
        ("nova-pro", "us-east-1", JUDGE),
        ("us.amazon.nova-pro-v1:0", "us-east-1", "us.amazon.nova-pro-v1:0"),
        ("nova-2-lite", "us-east-1", "us.amazon.nova-2-lite-v1:0"),
        ("openai.gpt-5.5", "us-east-1", "openai.gpt-5.5"),
        (
            f"arn:aws:bedrock:us-east-1::foundation-model/{JUDGE}",
            "us-east-1",
            f"arn:aws:bedrock:us-east-1::foundation-model/{JUDGE}",
        ),
    ],
)
def test_a_judge_is_called_by_its_id_or_by_the_profile_that_its_region_needs(
    name: str, region: str, called: str
) -> None:
    assert facts.resolve_judge(name, region) == called


@pytest.mark.parametrize(
    "name", ["nova-lite", "amazon.nova-lite-v1:0", "x.amazon.nova-pro-v1:0x", "eu.us." + JUDGE]
)
def test_a_model_that_is_no_judge_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(UsageError, match="no judge") as refused:
        facts.resolve_judge(name, "us-east-1")
    assert JUDGE in str(refused.value.fix)


def result_line(response: str, *, result: Any, nested: bool = False) -> bytes:
    """Return a line of results; with `nested` the answer is within the record, as in some jobs."""
    given = [{"response": response, "modelIdentifier": "tuned"}]
    scores = [
        {
            "metricName": "Builtin.Correctness",
            "result": result,
            "evaluatorDetails": [{"modelIdentifier": JUDGE, "explanation": f"It says {response}."}],
        }
    ]
    record: dict[str, Any] = {"prompt": "Where?", "referenceResponse": "Oslo"}
    line: dict[str, Any] = {"automatedEvaluationResult": {"scores": scores}, "inputRecord": record}
    (record if nested else line)["modelResponses"] = given
    return json.dumps(line).encode()


def test_results_are_matched_by_content_in_any_order_and_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        result_line("Rome", result=0.0, nested=True),
        b"{damaged",
        result_line("Oslo", result=1.0),
        result_line("Oslo", result=float("nan")),
        result_line("Bergen", result=1.0),
    ]
    parsed = []
    for line in lines:
        try:
            parsed.append(evaluation_jobs._parse_result(line, "s3://bucket/x_output.jsonl"))
        except Exception as error:
            assert type(error).__name__ == "BadDocument"
    monkeypatch.setattr(evaluation_jobs, "_iter_results", lambda *_: iter(parsed))
    dataset = evaluation_jobs.encode_dataset("tuned", RECORDS)
    planned = PlannedEvaluationJob("tuned", "s3://bucket/x.jsonl", dataset, {})
    job: Any = {"jobName": "j", "jobArn": "a/b", "outputDataConfig": {"s3Uri": "s3://bucket/o/"}}
    found = evaluation_jobs._read_results(cast(Any, None), LOCATION, job, planned)
    assert [one["Correctness"].score for one in found] == [1.0, 0.0, None]
    assert found[1]["Correctness"].explanation == "It says Rome."


def test_role_and_caller_need_the_judge_and_the_jobs() -> None:
    arns = ArnContext("aws", "us-east-1", "123456789012")
    [judge] = evaluation_permissions.judge_arns(JUDGE, arns)
    assert judge == f"arn:aws:bedrock:us-east-1::foundation-model/{JUDGE}"
    profile, everywhere = evaluation_permissions.judge_arns(f"us.{JUDGE}", arns)
    assert profile == f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{JUDGE}"
    assert everywhere == f"arn:aws:bedrock:*::foundation-model/{JUDGE}"
    of_role = list(evaluation_permissions.role_permissions(LOCATION, arns, [judge]))
    assert of_role[0].action == "bedrock:InvokeModel" and of_role[0].resource == judge
    puts = [one.resource for one in of_role if one.action == "s3:PutObject"]
    assert puts == ["arn:aws:s3:::bucket/team/jobs/one/evaluations/*"]
    of_caller = list(evaluation_permissions.caller_permissions(LOCATION, arns, [judge]))
    created = [p.resource for p in of_caller if p.action == "bedrock:CreateEvaluationJob"]
    assert created == ["arn:aws:bedrock:us-east-1:123456789012:evaluation-job/*", judge]


def evaluation() -> Evaluation:
    answer = {"text": "Oslo", "score": 1.0}
    records = [
        {"key": str(n), "file": "test.jsonl", "line": n, "prompt": "Where?", "reference": "Oslo"}
        | {"base": answer, "tuned": answer}
        for n in range(1, 5)
    ]
    more: dict[str, Any] = {"records": records, "warnings": [], "suites": [], "task": "text"}
    return cast(Evaluation, more)


def judged_answers(variant: str, scores: list[float | None]) -> JudgedAnswers:
    records = [{"Refusal": Judgment(score, "because")} for score in scores]
    records[-1] = {}
    return JudgedAnswers(variant, f"arn:{variant}", records)


def test_only_records_with_both_scores_are_compared_and_the_others_are_named() -> None:
    plan = EvaluationPlan(JudgeSettings(("Refusal",), JUDGE), "us-east-1", ())
    answers = [
        judged_answers("base", [1.0, 1.0, None, 0.0]),
        judged_answers("tuned", [0.0, 0.0, 0.0, 0.0]),
    ]
    found = judged.with_judgments(evaluation(), plan, answers)
    [suite] = found["suites"]
    assert (suite["n"], suite["base"], suite["tuned"]) == (2, 1.0, 0.0)
    assert suite["higherIsBetter"] is False and suite["unscored"] == {"base": 2, "tuned": 1}
    assert "2 records fixed" in suite["sentence"]
    base, tuned = found["warnings"]
    assert "2 answers of the base model" in base["message"]
    assert "1 not applicable, 1 without a result" in base["message"]
    assert "test.jsonl:3, test.jsonl:4" in base["message"]
    assert "1 without a result" in tuned["message"]
    assert found["records"][0]["base"]["judged"]["Refusal"]["explanation"] == "because"
    again = judged.with_judgments(found, plan, answers)
    assert len(again["suites"]) == 1
    nothing = [judged_answers(name, [None] * 4) for name in ("base", "tuned")]
    [suite] = judged.with_judgments(evaluation(), plan, nothing)["suites"]
    assert suite["verdict"] == "not tested" and suite["base"] is None


def test_the_judge_costs_its_tokens_for_new_jobs_alone() -> None:
    plan = plan_of(FakeAws(), ("Correctness", "Helpfulness"))
    answers = {"base": RECORDS, "tuned": RECORDS[:1]}
    price = judged.estimate_judging(plan, answers)
    assert price.judgments == 8 and price.output_tokens == 8 * facts.EXPLANATION_TOKENS
    # Nova Pro in us-east-1: 0.0008 and 0.0032 USD for 1,000 tokens of input and output.
    expected = (price.input_tokens * 0.0008 + price.output_tokens * 0.0032) / 1000
    assert price.usd == pytest.approx(expected)
    names = {str(job.parameters["jobName"]): "Completed" for job in plan.jobs}
    known = plan_of(FakeAws(names), ("Correctness", "Helpfulness"))
    assert judged.estimate_judging(known, answers).judgments == 0
    unknown = judged.estimate_judging(plan_of(FakeAws(), judge="openai.gpt-5.5"), answers)
    assert unknown.usd is None
    judged.check_judging_budget(price, None)
    judged.check_judging_budget(price, 1.0)
    with pytest.raises(OverBudget, match="above the limit"):
        judged.check_judging_budget(price, 1e-6)
    with pytest.raises(OverBudget, match="no price is known"):
        judged.check_judging_budget(unknown, 1.0)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ("Correctness",)),
        ("builtin.correctness", ("Correctness",)),
        ("Builtin.Correctness, helpfulness", ("Correctness", "Helpfulness")),
        ("Refusal,Refusal", ("Refusal",)),
        ("Toxicity", None),
    ],
)
def test_metrics_are_named_with_or_without_their_prefix(
    text: str | None, names: tuple[str, ...] | None
) -> None:
    if names is None:
        with pytest.raises(UsageError, match="unknown metric"):
            judged.parse_metrics(text)
    else:
        assert judged.parse_metrics(text) == names


def example_of(*messages: dict[str, Any]) -> Any:
    prompt = SimpleNamespace(messages=messages, text=None)
    return SimpleNamespace(prompt=prompt, file="test.jsonl", line=3, reference="x")


def test_a_conversation_is_one_text_and_a_picture_is_refused_with_its_line() -> None:
    alone = {"role": "user", "content": "Where?"}
    assert judged.prompt_text(example_of(alone)) == "Where?"
    turns = ({"role": "system", "content": "Be brief."}, alone)
    assert judged.prompt_text(example_of(*turns)) == "System: Be brief.\n\nUser: Where?"
    picture = {"role": "user", "content": [{"image": {"format": "png"}}, {"text": "What?"}]}
    with pytest.raises(UsageError, match="picture") as refused:
        judged.prompt_text(example_of(picture))
    assert refused.value.line == 3
    many = SimpleNamespace(examples=[example_of(alone)] * (facts.MAX_PROMPTS + 1))
    with pytest.raises(UsageError, match="1000 records"):
        judged.expected_answers(cast(Any, many))
