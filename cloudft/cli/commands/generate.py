"""generate and export: what to do with a tuned model on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, console_options, job_argument
from cloudft.cli.param_types import SEED, TOKENS, FiniteRange
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.inference import Answer, Prompt
    from cloudft.jobs.prompts import GenerationPrompt


@click.command(
    "generate",
    epilog='\b\nExamples:\n  cloudft generate - --base --prompt "My parcel never came."\n'
    "  cloudft generate ticket-router --file held-out.jsonl --output json\n"
    "  echo 'My parcel never came.' | cloudft generate - --prompt -",
)
@job_argument
@click.option("--prompt", help="What to ask; - reads it from standard input.")
@click.option("--system", help="The system message that goes with --prompt.")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Ask every record of a file (any shape that data.train takes); its answers stand beside.",
)
@click.option("--base", is_flag=True, help="Ask the base model too, side by side.")
@click.option("--max-new-tokens", type=TOKENS, default=256, show_default=True)
@click.option(
    "--temperature",
    type=FiniteRange(0, 2),
    default=0.0,
    show_default=True,
    help="0 takes the likeliest token each time.",
)
@click.option("--top-p", type=FiniteRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--seed", type=SEED, default=7, show_default=True, help="For a temperature above 0.")
@console_options
def generate_command(
    reference: str,
    prompt: str | None,
    system: str | None,
    file: Path | None,
    base: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    console: Console,
) -> int:
    """Ask the tuned model, and the base beside it.

    The prompt is put into the very template that the model was trained with.
    """
    from cloudft.backends.capabilities import SupportsGenerate
    from cloudft.inference import GenerationConfig
    from cloudft.jobs.prompts import build_prompts

    record, backend, _ = open_job(reference)
    if not isinstance(backend, SupportsGenerate):
        raise UsageError(f"a job on {record.backend} can't be asked", fix="take the trained job.")
    if prompt == "-":
        prompt = sys.stdin.read().rstrip("\n")
    questions = build_prompts(record.customization_type, prompt=prompt, system=system, file=file)
    variants = ["tuned", "base"] if base else ["tuned"]
    decoding = GenerationConfig(max_new_tokens, temperature, top_p, seed)
    prompts: list[Prompt] = [question.prompt for question in questions]
    console.note(f"asking {record.id}: {len(prompts)} prompt(s) ...")
    answers = _collect_answers(
        backend.generate(record.backend_job_id or record.id, prompts, variants, decoding),
        len(prompts) * len(variants),
        console,
    )
    values = [_answer_json(i, question, variants, answers) for i, question in enumerate(questions)]
    console.print_result(
        values, "\n\n".join(_answer_text(value, len(values) > 1) for value in values)
    )
    return 0


def _collect_answers(answers: Any, total: int, console: Console) -> dict[tuple[int, str], Answer]:
    """All answers by prompt and variant, with a counter on a terminal."""
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
    index: int,
    question: GenerationPrompt,
    variants: list[str],
    answers: dict[tuple[int, str], Answer],
) -> dict[str, Any]:
    from cloudft.types import to_json

    value = {"index": index, "prompt": question.shown, "reference": question.reference}
    return value | {name: to_json(answers[index, name]) for name in variants}


def _answer_text(value: dict[str, Any], several: bool) -> str:
    names = [name for name in ("tuned", "base") if name in value]
    if names == ["tuned"] and not several:
        text: str = value["tuned"]["text"]
        return text
    lines = [f"prompt:     {value['prompt']}"] if several else []
    if value["reference"] is not None:
        lines.append(f"reference:  {value['reference']}")
    return "\n".join([*lines, *(f"{name + ':':<12}{value[name]['text']}" for name in names)])


@click.command(
    "export",
    epilog="\b\nExample:\n  cloudft export - merged-model --dtype float16",
)
@job_argument
@click.argument("out", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Format of the merged weights.",
)
@console_options
def export_command(reference: str, out: Path, dtype: str, console: Console) -> int:
    """Write one merged model into the new folder DIR, and prove that it is the tuned one.

    The merged weights are read back and asked held-out records: their logits must be the tuned
    model's within a tolerance and the greedy answers equal, or the export fails and leaves nothing.
    """
    from cloudft.backends.capabilities import SupportsExport

    record, backend, _ = open_job(reference)
    if not isinstance(backend, SupportsExport):
        raise UsageError(
            f"the backend {record.backend} hands out no weights",
            fix="take the trained job.",
        )
    console.note(f"merging {record.id} and comparing it with the tuned model ...")
    proof = backend.export(record.backend_job_id or record.id, out, dtype)
    text = (
        f"{out}\nproof: largest logit difference {proof['maxLogitDifference']:.2g}"
        f" (allowed {proof['tolerance']:g}), equal greedy answers on"
        f" {proof['equalGreedyAnswers']} of {proof['records']} {proof['heldOut']} records"
    )
    console.print_result({"path": out, **proof}, text)
    return 0
