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
    help="Format of the merged weights.",
)
@aws_options
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
            f"the backend {record.backend} hands out no weights", fix="take the trained job."
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
