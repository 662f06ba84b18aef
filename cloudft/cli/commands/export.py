"""export: write the tuned model as one folder of merged weights."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.errors import UsageError


@command("export", epilog="\b\nExample:\n  cloudft export - merged-model --dtype float16")
@job_argument
@click.argument("out", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Number format of the merged weights.",
)
@aws_options
@console_options
def export_command(reference: str, out: Path, dtype: str, console: Console) -> int:
    """Write the merged model into the new folder DIR, and verify that it equals the tuned model.

    The merged weights are loaded again and run on held-out records: their logits must equal the
    tuned model's within a tolerance, and the greedy answers must be the same. Otherwise the export
    fails and DIR is not written. transformers 4 and 5 read the same model from DIR. The weights of
    a job with sagemaker.serverless are downloaded as SageMaker merged them, whatever --dtype says.
    """
    from cloudft.backends.capabilities import SupportsExport
    from cloudft.backends.export_options import ExportOptions
    from cloudft.catalogue import owned_weights_route

    record, backend, _ = open_job(reference)
    if not isinstance(backend, SupportsExport):
        raise UsageError(
            f"a job on {record.backend} has no weights to export",
            fix=owned_weights_route(str(record.base_model)) or "name the job that was trained.",
        )
    console.note(f"merging {record.id} and comparing it with the tuned model ...")
    proof = backend.export(record.backend_job_id or record.id, out, ExportOptions(dtype=dtype))
    if "source" in proof:  # SageMaker has merged them
        text = f"{out}\n{proof['files']} files, {proof['bytes']} bytes, from {proof['source']}"
        console.print_result({"path": out, **proof}, text)
        return 0
    text = (
        f"{out}\nproof: largest logit difference {proof['maxLogitDifference']:.2g}"
        f" (allowed {proof['tolerance']:g}), equal greedy answers on"
        f" {proof['equalGreedyAnswers']} of {proof['records']} {proof['heldOut']} records"
    )
    differing = proof.get("differsInOlderReaders")
    if differing:
        console.note(
            f"warning: transformers before 5, and tools that read its names, would take"
            f" {', '.join(differing)} of this model otherwise: load it with transformers 5"
        )
    console.print_result({"path": out, **proof}, text)
    return 0
