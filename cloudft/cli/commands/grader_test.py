"""grader test: run a grader on answers, and say whether reinforcement can work with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.job_file import load_job_file
from cloudft.cli.options import (
    Console,
    console_options,
    hidden_aws_options,
    job_file_argument,
    spec_options,
)
from cloudft.cli.param_types import RECORDS, TOKENS, FiniteRange
from cloudft.errors import CheckFailed
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.evaluate.rewards.run import SampledAnswers
    from cloudft.spec.load import LoadedJob

MAX_TOKENS_HERE = 256
"""Tokens of a sampled answer by default; a job's inferenceMaxTokens may be many times that."""


@command(
    "test",
    epilog="\b\nExamples:\n  cloudft grader test\n"
    "  cloudft grader test job.yaml --prompts 16 --samples 4 --plot rewards.png\n"
    "  cloudft grader test --answers answers.jsonl --output json",
)
@job_file_argument
@click.option(
    "--answers",
    "answers_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Grade these answers: records of prompts with `answers` (a list) or `answer`.",
)
@click.option(
    "--prompts",
    "prompt_count",
    type=RECORDS,
    default=8,
    show_default=True,
    help="Prompts of the training data that the base model answers.",
)
@click.option(
    "--samples",
    type=click.IntRange(2, 64),
    default=8,
    show_default=True,
    help="Answers to each of them.",
)
@click.option(
    "--max-new-tokens",
    type=TOKENS,
    help="Maximum tokens of an answer; by default the job's inferenceMaxTokens, 256 at most.",
)
@click.option(
    "--temperature",
    type=FiniteRange(0, 2, min_open=True),
    default=1.0,
    show_default=True,
    help="Temperature of the answers.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the rewards by prompt and by length (.png, .svg).",
)
@spec_options
@hidden_aws_options
@console_options
def test_command(
    path: Path | None,
    answers_file: Path | None,
    prompt_count: int,
    samples: int,
    max_new_tokens: int | None,
    temperature: float,
    plot: Path | None,
    flags: dict[str, str],
    console: Console,
) -> int:
    """Grade the base model's answers, and say whether reinforcement can work.

    A model answers some prompts of the training data several times: the base model, or local.model
    in its place. What reinforcement learns from are the differences of rewards between the answers
    to one prompt. Exit code 3: the grader fails, or nothing can be learned from its rewards.
    """
    from cloudft.backends import DEFAULT_BACKEND, make_backend
    from cloudft.cli.grader_text import report_json, report_text
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import task_progress
    from cloudft.evaluate.rewards.figures import HOPELESS
    from cloudft.evaluate.rewards.run import grade_answers, grader_config
    from cloudft.grading import GraderFailed
    from cloudft.spec.grader_file import check_grader

    job = load_job_file(path, flags)
    home = Home.from_environ()
    config = grader_config(job)
    print_findings((*job.findings, *check_grader(job)))
    backend = make_backend(DEFAULT_BACKEND, home).for_job(job)
    length = max_new_tokens or _default_length(job)
    with task_progress(console) as progress:
        try:
            # Before the model is loaded, which takes longer.
            backend.open_grader(config).close()  # type: ignore[attr-defined]
            total = None
            if answers_file is not None:
                answers = _given_answers(answers_file)
            else:
                options = (prompt_count, samples, length, temperature)
                answers, total = _sample(job, backend, options, progress, console)
            report = grade_answers(answers, backend, config, progress)
        except GraderFailed as error:
            _show_output(error, console)
            raise
    run = _describe_run(job, report, total, home)
    if plot is not None:
        from cloudft.cli.rewards_plot import draw_rewards

        draw_rewards(report, plot)
        console.note(f"wrote {plot}")
    value = report_json(job, report, run)
    console.print_result(value, report_text(value))
    return CheckFailed.exit_code if report.verdict in HOPELESS else 0


def _default_length(job: LoadedJob) -> int:
    section = job.spec.reinforcement
    named = None if section is None else section.hyperparameters.get("inferenceMaxTokens")
    return min(int(named), MAX_TOKENS_HERE) if isinstance(named, int | float) else MAX_TOKENS_HERE


def _given_answers(file: Path) -> SampledAnswers:
    from cloudft.evaluate.rewards.given_answers import read_given_answers
    from cloudft.evaluate.rewards.run import AnswerText, SampledAnswers

    groups = read_given_answers(file)
    return SampledAnswers(
        tuple((prompt, tuple(AnswerText(text) for text in texts)) for prompt, texts in groups)
    )


def _sample(
    job: LoadedJob,
    backend: Backend,
    options: tuple[int, int, int, float],
    progress: Any,
    console: Console,
) -> tuple[SampledAnswers, int]:
    """Return sampled answers and the number of prompts of the data.

    `options` are prompts, samples, tokens and temperature.
    """
    from cloudft.evaluate.rewards.prompts import read_prompts
    from cloudft.evaluate.rewards.run import sample_answers
    from cloudft.inference import GenerationConfig

    prompt_count, samples, length, temperature = options
    prompts, total = read_prompts(job, prompt_count)
    console.note(
        f"sampling {samples} answers to each of {len(prompts)} prompts, {length} tokens at most ..."
    )
    config = GenerationConfig(length, temperature, 1.0, job.spec.seed)
    return sample_answers(job, backend, prompts, samples, config, progress), total


def _show_output(error: Any, console: Console) -> None:
    """Show the person at the terminal what the error's message leaves out of logs."""
    if error.detail and error.detail not in error.message:
        console.note(f"the exception: {error.detail}")
    printed = error.output.strip().splitlines()[-10:]
    if printed:
        console.note("the grader printed:")
        for line in printed:
            console.note(f"  {line}")


def _describe_run(job: LoadedJob, report: Any, total: int | None, home: Home) -> dict[str, Any]:
    """Return what a whole run has: answers, seconds of the grader and of sampling here, prices."""
    from cloudft.evaluate.rewards.run_size import RunSize, hourly_prices

    size = RunSize.of_job(job, total)
    answers = size.answers
    sampled, count = report.answers.seconds, report.figures.answers
    return {
        "epochs": size.epochs,
        "prompts": size.prompts,
        "samplesPerPrompt": size.samples,
        "answers": answers,
        "graderSeconds": None if answers is None else answers * report.seconds_per_answer,
        "samplingSecondsHere": (
            None if answers is None or sampled is None else answers * sampled / count
        ),
        "prices": hourly_prices(job, home),
        "maxHours": job.spec.reinforcement.max_hours if job.spec.reinforcement else None,
    }
