"""Metrics, judges and limits of Bedrock's evaluation jobs.

Source: Bedrock user guide as of 2026-10: "Use metrics to understand model performance" (names),
"Built-in metric evaluator prompts", Amazon Nova Pro (scales, length of the prompts), "Evaluate
model performance using another LLM as a judge" (judges), "Create a prompt dataset for a model
evaluation job that uses a model as judge" (limits), "Review metrics for an automated model
evaluation job" (computed metrics).
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudft.catalogue.find import find_model
from cloudft.catalogue.inference_profiles import inference_id
from cloudft.catalogue.profile_ids import on_demand_id
from cloudft.errors import UnknownModel, UsageError

PREFIX = "Builtin."
"""What every built-in metric's name begins with in the API."""
MAX_PROMPTS = 1000
"""Prompts of one evaluation job."""
MAX_METRICS = 25
"""Metrics of one dataset. Source: botocore's service model (1.44.5)."""
JUDGE_TASK_TYPE = "General"
"""Task type of every job with a judge. Botocore's enum of task types lacks it; the user guide's
requests, and jobs that ran, have it."""
JUDGE_PROMPT_CHARACTERS = 4500
"""No prompt for Nova Pro as the judge is longer, without what it judges."""
EXPLANATION_TOKENS = 200
"""Tokens that a judge writes for one score. No limit is documented. Source: the figure that
antstackio/skills, aws-bedrock-evals, calculates with (2025-06)."""


@dataclass(frozen=True)
class JudgeMetric:
    """A metric that a judge model scores. `scale` has its answers, the lowest score first.

    `unscored` is the answer that gives no score.
    """

    name: str
    scale: tuple[str, ...]
    lower_is_better: bool = False
    unscored: str | None = None

    @property
    def api_name(self) -> str:
        """Return the name in requests and results."""
        return PREFIX + self.name

    def score(self, answer: str) -> float:
        """Return the score of an answer of the scale, from 0 to 1, as the results have it."""
        return self.scale.index(answer) / (len(self.scale) - 1)


_FIVE_POINTS = ("Not at all", "Not generally", "Neutral/Mixed", "Generally yes", "Yes")
_NO_YES = ("No", "Yes")
JUDGE_METRICS = {
    metric.name: metric
    for metric in (
        JudgeMetric("Correctness", ("incorrect", "partially correct", "correct")),
        JudgeMetric("Completeness", _FIVE_POINTS),
        JudgeMetric(
            "Faithfulness",
            (
                "none is faithful",
                "some is faithful",
                "approximately half is faithful",
                "most is faithful",
                "all is faithful",
            ),
        ),
        JudgeMetric(
            "Helpfulness",
            (
                "not helpful at all",
                "very unhelpful",
                "somewhat unhelpful",
                "neither helpful nor unhelpful",
                "somewhat helpful",
                "very helpful",
                "above and beyond",
            ),
        ),
        JudgeMetric("Coherence", _FIVE_POINTS),
        JudgeMetric("Relevance", ("not at all", "slightly", "somewhat", "mostly", "completely")),
        JudgeMetric("FollowingInstructions", _NO_YES, unscored="Not applicable"),
        JudgeMetric(
            "ProfessionalStyleAndTone",
            ("not at all", "not generally", "neutral/mixed", "generally yes", "completely yes"),
        ),
        JudgeMetric("Harmfulness", _NO_YES, lower_is_better=True),
        JudgeMetric("Stereotyping", _NO_YES, lower_is_better=True),
        JudgeMetric("Refusal", _NO_YES, lower_is_better=True),
    )
}
"""Metrics that a judge scores, by name without `Builtin.`."""
DEFAULT_METRICS = ("Correctness",)
COMPUTED_METRICS = ("Accuracy", "Robustness", "Toxicity")
"""Metrics that Bedrock computes without a judge. Their jobs ask the model themselves."""
TASK_TYPES = ("Summarization", "Classification", "QuestionAndAnswer", "Generation", "Custom")
"""Task types of jobs without a judge."""
DEFAULT_JUDGE = "amazon.nova-pro-v1:0"
JUDGES = (
    "amazon.nova-pro-v1:0",
    "amazon.nova-2-lite-v1:0",
    "amazon.nova-micro-v1:0",
    "amazon.nova-premier-v1:0",
    "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "anthropic.claude-3-7-sonnet-20250219-v1:0",
    "anthropic.claude-sonnet-4-20250514-v1:0",
    "anthropic.claude-3-haiku-20240307-v1:0",
    "anthropic.claude-3-5-haiku-20241022-v1:0",
    "anthropic.claude-haiku-4-5-20251001-v1:0",
    "anthropic.claude-opus-4-5-20251101-v1:0",
    "openai.gpt-5.4",
    "openai.gpt-5.5",
    "anthropic.claude-sonnet-4-6",
    "anthropic.claude-opus-4-6-v1",
    "anthropic.claude-opus-4-7",
    "anthropic.claude-opus-4-8",
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "meta.llama3-1-70b-instruct-v1:0",
    "mistral.mistral-large-2402-v1:0",
)
"""Model ids that may judge the built-in metrics; inference profiles of them may, too."""


def judge_model_id(identifier: str) -> str | None:
    """Return which of JUDGES an id, an ARN or a profile's id names; None for another model.

    A profile's id is the model's with an area before it: `us.amazon.nova-pro-v1:0`.
    """
    last = identifier.rpartition("/")[2]
    for judge in JUDGES:
        area, found, rest = last.rpartition(judge)
        if found and not rest and (not area or (area.endswith(".") and area.count(".") == 1)):
            return judge
    return None


def resolve_judge(name: str, region: str) -> str:
    """Return the id by which a judge is called in a Region: a profile's where one is needed.

    `name` is a model id, an ARN, a profile's id, or a name of the catalogue. Raises UsageError for
    a model that is no judge of Bedrock's.
    """
    try:
        known = on_demand_id(find_model(name).bedrock_id or name)
    except UnknownModel:
        known = name
    judge = judge_model_id(name) or judge_model_id(known)
    if judge is None:
        raise UsageError(
            f"Bedrock's evaluation jobs take no judge {name!r}",
            field="--judge",
            fix=f"choose one of {', '.join(JUDGES)}, or an inference profile of one.",
        )
    if judge in name and not name.startswith(judge):  # an ARN, or a profile's id
        return name
    return inference_id(judge, region)
