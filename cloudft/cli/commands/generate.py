"""generate: send prompts to the tuned model and its base."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.decoding_options import decoding_options
from cloudft.cli.jobs import open_job, use_inference_profile
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    inference_profile_option,
    job_argument,
)
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.inference import Answer, GenerationConfig, Prompt
    from cloudft.jobs.prompts import GenerationPrompt


@command(
    "generate",
    epilog='\b\nExamples:\n  cloudft generate - --base --prompt "My parcel never came."\n'
    "  cloudft generate ticket-router --file held-out.jsonl --output json\n"
    "  echo 'My parcel never came.' | cloudft generate - --prompt -",
)
@job_argument
@click.option("--prompt", help="The prompt; - reads it from standard input.")
@click.option("--system", help="System message for --prompt.")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Send every record of a file (any format of data.train), and show its own answers too.",
)
@click.option("--base", is_flag=True, help="Send the prompts to the base model too.")
@decoding_options(256)
@inference_profile_option
@aws_options
@console_options
def generate_command(
    reference: str,
    prompt: str | None,
    system: str | None,
    file: Path | None,
    base: bool,
    decoding: GenerationConfig,
    inference_profile: str | None,
    console: Console,
) -> int:
    """Send prompts to the tuned model, and with --base to its base model.

    The prompt is rendered with the chat template that the model was trained with.
    """
    from cloudft.backends.capabilities import SupportsGenerate
    from cloudft.jobs.prompts import build_prompts

    record, backend, _ = open_job(reference)
    if not isinstance(backend, SupportsGenerate):
        raise UsageError(
            f"a job on {record.backend} can't generate text", fix="name the job that was trained."
        )
    use_inference_profile(backend, inference_profile, console)
    if prompt == "-":
        prompt = sys.stdin.read().rstrip("\n")
    questions = build_prompts(record.customization_type, prompt=prompt, system=system, file=file)
    variants = ["tuned", "base"] if base else ["tuned"]
    prompts: list[Prompt] = [question.prompt for question in questions]
    console.note(f"{record.id}: answering {len(prompts)} prompt(s) ...")
    answers = _collect_answers(
        backend.generate(record.backend_job_id or record.id, prompts, variants, decoding),
        len(prompts) * len(variants),
        console,
    )
    by_prompt = [{name: answers[i, name] for name in variants} for i in range(len(prompts))]
    pairs = list(zip(questions, by_prompt, strict=True))
    values = [_answer_json(index, *pair) for index, pair in enumerate(pairs)]
    texts = [_answer_text(*pair, is_only=len(pairs) == 1) for pair in pairs]
    console.print_result(values, "\n\n".join(texts))
    return 0


def _collect_answers(
    answers: Iterable[Answer], total: int, console: Console
) -> dict[tuple[int, str], Answer]:
    """Return all answers by prompt index and variant, with a progress bar on a terminal."""
    from rich.console import Console as RichConsole
    from rich.progress import track

    shown = track(
        answers,
        total=total,
        description="answers",
        console=RichConsole(stderr=True),
        disable=total < 8 or console.verbosity < 0 or not RichConsole(stderr=True).is_terminal,
        transient=True,
    )
    return {(answer.index, answer.variant): answer for answer in shown}


def _answer_json(
    index: int, question: GenerationPrompt, answers: Mapping[str, Answer]
) -> dict[str, object]:
    from cloudft.types import to_json

    value = {"index": index, "prompt": question.shown, "reference": question.reference}
    return value | {name: to_json(answer) for name, answer in answers.items()}


def _answer_text(
    question: GenerationPrompt, answers: Mapping[str, Answer], *, is_only: bool
) -> str:
    """Return the answers to one prompt; the tuned model's text alone if that is all there is."""
    if is_only and list(answers) == ["tuned"]:
        return answers["tuned"].text
    lines = [] if is_only else [f"prompt:     {question.shown}"]
    if question.reference is not None:
        lines.append(f"reference:  {question.reference}")
    for name, answer in answers.items():
        if answer.reasoning:
            lines.append(f"{name} thinks: {answer.reasoning}")
        lines.append(f"{name + ':':<12}{answer.text}")
    return "\n".join(lines)
