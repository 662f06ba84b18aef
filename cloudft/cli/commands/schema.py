"""schema: print the JSON Schema of the job file."""

from __future__ import annotations

from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options


@command("schema", epilog="\b\nExample:\n  cloudft schema > cloudft.schema.json")
@console_options
def schema_command(console: Console) -> int:
    """Print the JSON Schema of the job file, for completion and checks in editors."""
    from cloudft.cli.output import json_text
    from cloudft.spec.resolve import build_job_schema

    schema = build_job_schema()
    console.print_result(schema, json_text(schema))
    return 0
