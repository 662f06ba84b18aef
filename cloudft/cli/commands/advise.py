"""advise: measure whether to prompt, retrieve, fine-tune, or collect more data first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import (
    Console,
    aws_options,
    backend_option,
    console_options,
    inference_profile_option,
    job_file_argument,
    spec_options,
)
from cloudft.cli.param_types import RECORDS, USD
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.evaluate.advise.run import AdviceReport


@command(
    "advise",
    epilog="\b\nExamples:\n  cloudft advise\n"
    "  cloudft advise --set evaluate.documents=handbook/ --limit 60\n"
    "  cloudft advise --backend bedrock --input-price 0.035 --output json",
)
@job_file_argument
@spec_options
@backend_option
@click.option(
    "--limit",
    type=RECORDS,
    default=100,
    show_default=True,
    help="Number of held-out records to answer.",
)
@click.option(
    "--grader",
    "grader_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File with lambda_handler(event, context): is reinforcement by it worth trying?",
)
@click.option(
    "--input-price",
    type=USD,
    help="USD per million input tokens: prints after how many requests tuning pays off.",
)
@inference_profile_option
@aws_options
@console_options
def advise_command(
    path: Path | None,
    flags: dict[str, str],
    backend_name: str,
    limit: int,
    grader_file: Path | None,
    input_price: float | None,
    inference_profile: str | None,
    console: Console,
) -> int:
    """Measure whether fine-tuning is worth it, before paying for it.

    The base model is prompted plainly, with retrieved examples, and (evaluate.documents) with
    retrieved passages; the job is trained on this machine; all answer the same held-out records.
    --grader also grades the base model's own answers, sampled several times each.
    With --backend bedrock the prompts go to the model on Bedrock, which bills the answers.
    """
    from cloudft.backends import DEFAULT_BACKEND, make_backend
    from cloudft.backends.capabilities import warm_start
    from cloudft.cli.job_file import load_job_file
    from cloudft.cli.jobs import follow_job, use_inference_profile
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import run_observer, task_progress
    from cloudft.evaluate.advise.run import AdviceOptions, run_advice
    from cloudft.grading import GraderConfig
    from cloudft.jobs import prepare

    home = Home.from_environ()
    job = load_job_file(path, flags)
    local_backend = make_backend(DEFAULT_BACKEND, home).for_job(job)
    base_backend = local_backend
    if backend_name != DEFAULT_BACKEND:
        base_backend = make_backend(backend_name, home).for_job(job)
    use_inference_profile(base_backend, inference_profile, console)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warm_start(local_backend, job))
        with run_observer(console) as observer:
            staged, warnings = prepare.prepare(job, local_backend, home, observer)
        print_findings(warnings)
        counted = stack.enter_context(task_progress(console))
        study = run_advice(
            staged,
            base_backend,
            local_backend,
            home,
            options=AdviceOptions(limit, GraderConfig(grader_file) if grader_file else None),
            progress=counted,
            wait=lambda started: follow_job(started, local_backend, None, console),
        )
    value = advice_json(study, input_price)
    console.print_result(value, "\n".join(advice_lines(value)))
    return 0


def advice_json(study: AdviceReport, input_price: float | None) -> dict[str, Any]:
    """Return the report as JSON, with the break-even points computed from what was measured."""
    from cloudft.evaluate.advise.recommendation import break_even_requests

    value: dict[str, Any] = {
        "advice": study.recommendation.advice,
        "reasons": list(study.recommendation.reasons),
        "task": study.task,
        "n": study.n,
        "job": study.trained.id if study.trained else None,
        "methods": {
            name: {
                "score": m.score,
                "promptTokens": m.prompt_tokens,
                "answerTokens": m.answer_tokens,
                "secondsPerRequest": m.seconds,
            }
            for name, m in study.methods.items()
        },
        "facts": vars(study.facts) if study.facts else None,
        "training": {"seconds": study.training_seconds, "usd": study.training_usd},
        "corpus": study.corpus,
        "rewards": vars(study.rewards.figures) if study.rewards else None,
        "breakEven": None,
    }
    # Of a model that should not be trained, what it would save means nothing.
    if study.methods and study.recommendation.advice == "fine-tune":
        tuned = study.methods["fine-tuned"]
        others = [m for name, m in study.methods.items() if name != "fine-tuned"]
        best = max(others, key=lambda m: m.score)
        saved = best.prompt_tokens - tuned.prompt_tokens
        requests = None
        if input_price is not None and study.training_usd is not None:
            price = input_price / 1e6
            requests = break_even_requests(
                study.training_usd, best.prompt_tokens * price, tuned.prompt_tokens * price
            )
        seconds = None
        if study.training_seconds and best.seconds and tuned.seconds:
            seconds = break_even_requests(study.training_seconds, best.seconds, tuned.seconds)
        value["breakEven"] = {
            "against": best.name,
            "promptTokensSaved": saved,
            "requestsByPrice": requests,
            "requestsByTime": seconds,
        }
    return value


def advice_lines(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the advice, the table of the measured methods, and the reasons."""
    from cloudft.cli.output import format_table

    yield f"advice: {value['advice']}"
    yield ""
    if value["methods"]:
        columns = ("METHOD", "SCORE", "PROMPT TOKENS", "ANSWER TOKENS", "SECONDS PER REQUEST")
        yield format_table(columns, _rows(value["methods"]))
        yield ""
    for reason in value["reasons"][len(value["methods"]) :]:
        yield f"- {reason}"
    even = value["breakEven"]
    if even:
        yield f"- {_break_even(even)}"


def _rows(methods: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for name, m in methods.items():
        seconds = m["secondsPerRequest"]
        yield (
            name,
            f"{m['score']:.3f}",
            f"{m['promptTokens']:.0f}",
            f"{m['answerTokens']:.1f}",
            f"{seconds:.2f}" if seconds is not None else "cached",
        )


def _break_even(even: Mapping[str, Any]) -> str:
    saved = even["promptTokensSaved"]
    if saved <= 0:
        return f"tuning saves no tokens: a tuned model reads as many as {even['against']}"
    text = (
        f"against {even['against']} a tuned model saves about {saved:.0f} prompt tokens per request"
    )
    if even["requestsByPrice"] is not None:
        text += f"; training pays off after {even['requestsByPrice']:,.0f} requests by price"
    if even["requestsByTime"] is not None:
        text += f"; after {even['requestsByTime']:,.0f} requests by time on this machine"
    if even["requestsByPrice"] is None:
        text += " (--input-price shows when that pays off)"
    return text
