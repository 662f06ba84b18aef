"""Have answers judged by a service's evaluation jobs, and add the judgments to an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from cloudft import catalogue
from cloudft.backends.base import Backend
from cloudft.backends.capabilities import SupportsEvaluationJobs
from cloudft.backends.evaluation_jobs import (
    AnsweredRecord,
    EvaluationPlan,
    JudgedAnswers,
    JudgeSettings,
)
from cloudft.catalogue import cost
from cloudft.catalogue import evaluation_metrics as facts
from cloudft.catalogue.prices import PairName
from cloudft.data.token_estimate import estimate_tokens
from cloudft.errors import OverBudget, UnknownModel, UsageError
from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, VARIANTS
from cloudft.evaluate.metrics.metric_labels import metric_label
from cloudft.evaluate.metrics.significance import compare_paired, describe_difference
from cloudft.evaluate.results import (
    EvaluatedRecord,
    Evaluation,
    EvaluationWarning,
    JudgmentSummary,
    ScoredAnswer,
    SuiteResult,
    make_delta,
)
from cloudft.inference import message_text
from cloudft.storage.store import JobRecord

SUITE_PREFIX = "bedrock-judge:"
"""What the names of judged metrics begin with, among an evaluation's suites."""
WITH_REFERENCE = ("Correctness", "Completeness")
"""Metrics whose judge also reads the reference."""
MEDIA_KINDS = ("image", "video", "document", "audio")
SHOWN_LINES = 3


def parse_metrics(text: str | None) -> tuple[str, ...]:
    """Return the metrics that `--metrics` names, or the default. Raises UsageError."""
    if text is None:
        return facts.DEFAULT_METRICS
    names = {name.casefold(): name for name in facts.JUDGE_METRICS}
    chosen = []
    for part in text.split(","):
        name = names.get(part.strip().casefold().removeprefix(facts.PREFIX.casefold()))
        if name is None:
            raise UsageError(
                f"unknown metric {part.strip()!r}",
                field="--metrics",
                fix=f"choose from {', '.join(facts.JUDGE_METRICS)}{_computed_note(part)}.",
            )
        chosen.append(name)
    return tuple(dict.fromkeys(chosen))


def _computed_note(part: str) -> str:
    if part.strip().removeprefix(facts.PREFIX).capitalize() not in facts.COMPUTED_METRICS:
        return ""
    return (
        "; Accuracy, Robustness and Toxicity are of jobs that invoke the model themselves, which"
        " take no model that is deployed on demand"
    )


def answers_to_judge(
    held_out: HeldOutData, evaluation: Evaluation
) -> dict[str, list[AnsweredRecord]]:
    """Return the records with the answers of both models: those that the evaluation scored.

    Raises UsageError, as `expected_answers` does.
    """
    pairs = list(zip(expected_answers(held_out)[BASE], evaluation["records"], strict=True))
    return {
        variant: [
            replace(record, response=str(scored[variant].get("text") or ""))
            for record, scored in pairs
        ]
        for variant in VARIANTS
    }


def expected_answers(held_out: HeldOutData) -> dict[str, list[AnsweredRecord]]:
    """Return the records with their references as the answers, to estimate a price.

    Raises UsageError for records that a judge can't read, and for too many of them.
    """
    if len(held_out.examples) > facts.MAX_PROMPTS:
        raise UsageError(
            f"an evaluation job takes {facts.MAX_PROMPTS} records, and there are"
            f" {len(held_out.examples)}",
            fix=f"use a part of them: --limit {facts.MAX_PROMPTS}",
        )
    records = [
        AnsweredRecord(prompt_text(one), one.reference, one.reference) for one in held_out.examples
    ]
    return dict.fromkeys(VARIANTS, records)


def prompt_text(example: EvalExample) -> str:
    """Return a prompt as one text: its only message, or all turns with their roles.

    Raises UsageError for raw text, and for a picture, a video or a document.
    """
    messages = example.prompt.messages
    if example.prompt.text is not None:
        raise UsageError(
            "a judge reads answers, and this job's model continues raw text",
            fix="omit --bedrock-job.",
        )
    for message in messages:
        blocks = [] if isinstance(message["content"], str) else message["content"]
        if any(kind in block for block in blocks for kind in MEDIA_KINDS):
            raise UsageError(
                "the record has a picture, a video or a document, and a judge reads text alone",
                file=example.file,
                line=example.line,
                fix="evaluate records without them: --data FILE",
            )
    if len(messages) == 1:
        return message_text(messages[0])
    return "\n\n".join(f"{m['role'].capitalize()}: {message_text(m)}" for m in messages)


@dataclass(frozen=True)
class JudgingCost:
    """About what the judge of some evaluation jobs costs. `usd` is None where no price is known."""

    judgments: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    source: str


def estimate_judging(
    plan: EvaluationPlan, answers: Mapping[str, Sequence[AnsweredRecord]]
) -> JudgingCost:
    """Return tokens and price of the judge for the jobs that do not exist, at its price on demand.

    Bedrock names no price of evaluation jobs themselves.
    """
    settings = plan.settings
    records = [record for job in plan.new_jobs for record in answers[job.variant]]
    size = sum(
        facts.JUDGE_PROMPT_CHARACTERS
        + len(record.prompt)
        + len(record.response)
        + (len(record.reference) if metric in WITH_REFERENCE else 0)
        for record in records
        for metric in settings.metrics
    )
    count = len(records) * len(settings.metrics)
    tokens = estimate_tokens(size), count * facts.EXPLANATION_TOKENS
    try:
        model = catalogue.find_model(str(facts.judge_model_id(settings.judge)))
        prices = model.prices_in(plan.region)
    except UnknownModel:
        prices = None
    # A global profile is cheaper than the model in its Region.
    is_global = settings.judge.rpartition("/")[2].startswith("global.")
    name: PairName = "global_per_1k_tokens" if is_global else "base_per_1k_tokens"
    pair = prices.pair(name) if prices else None
    if prices is None or pair is None:
        return JudgingCost(count, *tokens, None, cost.NO_PRICE_KNOWN)
    usd = (tokens[0] * pair[0] + tokens[1] * pair[1]) / 1000
    return JudgingCost(count, *tokens, usd, str(prices.source_of(name)))


def check_judging_budget(price: JudgingCost, limit: float | None) -> None:
    """Raise OverBudget where the judge costs more than `limit`, or nobody knows what."""
    if limit is None or not price.judgments:
        return
    if price.usd is None:
        raise OverBudget(
            f"{cost.NO_PRICE_KNOWN} for this judge, so the limit of {cost.format_usd(limit)} can't"
            " be held",
            field="--max-cost",
            fix="choose a judge of known price, or omit --max-cost and set no budget_usd.",
        )
    if price.usd > limit:
        about, at_most = cost.format_distinct_usd(price.usd, limit)
        raise OverBudget(
            f"the judge costs about {about}, above the limit of {at_most}",
            field="--max-cost",
            fix="judge fewer records (--limit) or metrics (--metrics), or raise --max-cost.",
        )


def require_evaluation_jobs(record: JobRecord, backend: Backend) -> SupportsEvaluationJobs:
    """Return the backend as one with evaluation jobs. Raises UsageError for another one."""
    if not isinstance(backend, SupportsEvaluationJobs):
        raise UsageError(
            f"jobs on {record.backend} have no evaluation jobs",
            fix="omit --bedrock-job, or evaluate a job on bedrock.",
        )
    return backend


def with_judgments(
    evaluation: Evaluation, plan: EvaluationPlan, judged: Sequence[JudgedAnswers]
) -> Evaluation:
    """Return the evaluation with the judgments: of each record, and compared as its suites."""
    by_variant: dict[str, JudgedAnswers] = {answers.variant: answers for answers in judged}
    records = [
        _with_record_judgments(record, by_variant, index)
        for index, record in enumerate(evaluation["records"])
    ]
    settings = plan.settings
    names = {f"{SUITE_PREFIX}{metric}" for metric in settings.metrics}
    suites = [s for s in evaluation.get("suites", []) if s["suite"] not in names]
    for metric in settings.metrics:
        base, tuned = (_scores(by_variant[variant], metric) for variant in VARIANTS)
        suites.append(compare_judgments(metric, f"by {settings.judge}", base, tuned))
    warnings = [*evaluation["warnings"], *_find_unscored(records, settings)]
    return {
        **evaluation,
        "records": records,
        "suites": suites,
        "warnings": warnings,
        "evaluationJobs": {answers.variant: answers.job_arn for answers in judged},
    }


def _with_record_judgments(
    record: EvaluatedRecord, judged: Mapping[str, JudgedAnswers], index: int
) -> EvaluatedRecord:
    changed: dict[str, ScoredAnswer] = {}
    for variant in VARIANTS:
        judgments: dict[str, JudgmentSummary] = {
            metric: {"score": one.score, "explanation": one.explanation}
            for metric, one in judged[variant].records[index].items()
        }
        changed[variant] = {**record[variant], "judged": judgments}
    return cast(EvaluatedRecord, {**record, **changed})


def _scores(judged: JudgedAnswers, metric: str) -> list[float | None]:
    found = [judgments.get(metric) for judgments in judged.records]
    return [None if one is None else one.score for one in found]


def compare_judgments(
    metric: str,
    figure: str,
    base: Sequence[float | None],
    tuned: Sequence[float | None],
    name: str = "The tuned model",
) -> SuiteResult:
    """Return a metric for both models, compared over the records that have both scores.

    `figure` says by which judge, `name` names the second model in the sentence.
    """
    pairs = [(a, b) for a, b in zip(base, tuned, strict=True) if a is not None and b is not None]
    lower = facts.JUDGE_METRICS[metric].lower_is_better
    result: SuiteResult = {
        "suite": f"{SUITE_PREFIX}{metric}",
        "figure": figure,
        "n": len(pairs),
        "base": None,
        "tuned": None,
        "higherIsBetter": not lower,
        "delta": make_delta(None, None),
        "unscored": {BASE: base.count(None), TUNED: tuned.count(None)},
    }
    if not pairs:
        sentence = "Not tested: the judge scored no record for both models."
        return {**result, "verdict": "not tested", "sentence": sentence}
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    means = sum(first) / len(pairs), sum(second) / len(pairs)
    difference = compare_paired(first, second, lower_is_better=lower)
    verdict, sentence = describe_difference(
        difference,
        metric_label(metric),
        *means,
        lower_is_better=lower,
        interval=difference.interval,
    )
    return {
        **result,
        "base": means[0],
        "tuned": means[1],
        "delta": make_delta(means[1] - means[0], difference.interval),
        "pValue": difference.p_value,
        "verdict": verdict,
        "sentence": sentence.replace("The tuned model", name),
    }


def judges_of(evaluation: Evaluation) -> dict[str, str]:
    """Return by whom each judged metric was scored, `by MODEL`, of an evaluation's records."""
    return {
        suite["suite"].removeprefix(SUITE_PREFIX): suite["figure"]
        for suite in evaluation.get("suites", [])
        if suite["suite"].startswith(SUITE_PREFIX) and not suite.get("evaluatedAt")
    }


def judged_scores(answers: Sequence[ScoredAnswer], metric: str) -> list[float | None]:
    """Return a judge's scores of answers; None for one without."""
    found = [answer.get("judged", {}).get(metric) for answer in answers]
    return [None if one is None else one["score"] for one in found]


def _find_unscored(
    records: Sequence[EvaluatedRecord], settings: JudgeSettings
) -> Iterator[EvaluationWarning]:
    """Yield which answers have no score by a metric, and the lines of the first ones."""
    for metric in settings.metrics:
        for variant in VARIANTS:
            missing = [record for record in records if _is_unscored(record[variant], metric)]
            if not missing:
                continue
            counts = Counter(metric in record[variant].get("judged", {}) for record in missing)
            reasons = [
                f"{count} {reason}"
                for scored, reason in ((True, "not applicable"), (False, "without a result"))
                if (count := counts[scored])
            ]
            lines = ", ".join(f"{r['file']}:{r['line']}" for r in missing[:SHOWN_LINES])
            more = ", ..." if len(missing) > SHOWN_LINES else ""
            yield {
                "code": "NotJudged",
                "message": f"{len(missing)} answers of the {variant} model have no score for"
                f" {metric} ({', '.join(reasons)}): {lines}{more}; the comparison leaves these"
                " records out",
            }


def _is_unscored(answer: ScoredAnswer, metric: str) -> bool:
    judgment = answer.get("judged", {}).get(metric)
    return judgment is None or judgment["score"] is None
