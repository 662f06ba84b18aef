"""export: write the tuned model as a folder that a runtime reads."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cloudft.backends.export_options import (
    DTYPES,
    FORMATS,
    MLX_QUANTIZATIONS,
    QUANTIZATIONS,
    RUNTIME_FORMATS,
)
from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.cli.param_types import TOKENS
from cloudft.cli.runtime_check import (
    is_export,
    require_verifiable,
    runtime_check_options,
    verify_in_runtime,
)
from cloudft.errors import UsageError


@command("export", epilog="\b\nExample:\n  cloudft export - tuned-model --for vllm --dtype float16")
@job_argument
@click.argument("out", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--for",
    "runtime",
    type=click.Choice([*RUNTIME_FORMATS]),
    help="What will run the model. It implies the format.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="What is written: whole weights, an adapter alone, a GGUF file, mlx-lm's folder.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    help="Number format of the weights; float32 if not given, float16 beside q4 and q8.",
)
@click.option(
    "--quantize",
    "quantization",
    type=click.Choice([*QUANTIZATIONS, *MLX_QUANTIZATIONS]),
    help="How a GGUF file holds the weights, f16 if not given; q4 or q8 for mlx.",
)
@click.option(
    "--context", type=TOKENS, help="Tokens of prompt and answer at most, as the folder says it."
)
@click.option(
    "--base",
    metavar="HUB_ID|FOLDER",
    help="Of an adapter: its base model, as it is named where it will run.",
)
@runtime_check_options
@aws_options
@console_options
def export_command(
    reference: str,
    out: Path,
    verify: bool,
    runtime_python: Path | None,
    console: Console,
    **given: Any,
) -> int:
    """Write the tuned model into the new folder DIR, and verify that it is the tuned model.

    What was written is loaded again and run on held-out records: the logits must equal the tuned
    model's within a tolerance, and the greedy answers must be the same. Otherwise the export fails
    and DIR is not written. With --for, what that runtime is known to drop or to read otherwise is
    refused. transformers 4 and 5 read the same model from a merged DIR. The weights of a job with
    sagemaker.serverless are downloaded as SageMaker merged them, whatever --dtype says.

    With --verify, the runtime itself answers held-out records. Prompts and end tokens must be the
    tuned model's, and, unless the weights are quantized, the answers and log-probabilities. The
    share of equal answers, the score and the perplexity are shown with 95 % intervals.
    """
    from cloudft.backends.capabilities import SupportsExport
    from cloudft.backends.export_options import choose_export
    from cloudft.catalogue import owned_weights_route
    from cloudft.evaluate.runtime_proof import describe_proof

    if runtime_python is not None and not verify:
        raise UsageError("--runtime-python is for --verify", fix="add --verify.")
    options = choose_export(**given)
    record, backend, _ = open_job(reference)
    if not isinstance(backend, SupportsExport):
        raise UsageError(
            f"a job on {record.backend} has no weights to export",
            fix=owned_weights_route(str(record.base_model)) or "name the job that was trained.",
        )
    if verify and is_export(out):
        console.note(f"{out} is an export already: it is verified as it is ...")
        checked = verify_in_runtime(record, backend, out, given["runtime"], runtime_python, console)
        console.print_result({"path": out, **checked}, describe_proof(checked))
        return 0
    if os.path.lexists(out):  # before the models are loaded
        verifies = " `--verify` checks the export that it is." if is_export(out) else ""
        raise UsageError(
            f"{out} exists already", fix=f"name a folder that does not exist.{verifies}"
        )
    is_adapter = options.format == "adapter"
    if verify:
        require_verifiable(record, backend)
    doing = f"copying the adapter of {record.id}" if is_adapter else f"merging {record.id}"
    console.note(f"{doing} and comparing it with the tuned model ...")
    proof = backend.export(record.backend_job_id or record.id, out, options)
    for text in warnings(proof):
        console.note(f"warning: {text}")
    text = describe_export(out, proof)
    if verify:
        console.note(f"{out} is written; answering held-out records in the runtime ...")
        checked = verify_in_runtime(record, backend, out, options.runtime, runtime_python, console)
        proof = {**proof, "runtimes": {checked["runtime"]: checked}}
        text += "\n" + describe_proof(checked)
    console.print_result({"path": out, **proof}, text)
    return 0


def warnings(proof: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a user of the exported folder should know."""
    yield from proof.get("notes", ())
    differing = proof.get("differsInOlderReaders")
    if differing:
        yield (
            f"transformers before 5, and tools that read its names, would take"
            f" {', '.join(differing)} of this model otherwise: load it with transformers 5"
        )


def describe_export(out: Path, proof: Mapping[str, Any]) -> str:
    """Return where the model is, how it was proven, and the command that runs it."""
    if "source" in proof:  # SageMaker has merged them
        return f"{out}\n{proof['files']} files, {proof['bytes']} bytes, from {proof['source']}"
    lines = [
        str(out),
        f"proof: largest logit difference {proof['maxLogitDifference']:.2g}"
        f" (allowed {proof['tolerance']:g}), equal greedy answers on"
        f" {proof['equalGreedyAnswers']} of {proof['records']} {proof['heldOut']} records",
    ]
    if proof.get("quantization") not in (None, "f32"):
        lines.append(
            f"the weights are written as {proof['quantization']} after that proof:"
            " --verify measures what it changes"
        )
    if proof.get("run"):
        lines.append(f"run it: {proof['run'].replace('DIR', shlex.quote(str(out)))}")
    return "\n".join(lines)
