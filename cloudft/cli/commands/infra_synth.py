"""infra synth: print a CloudFormation template."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options
from cloudft.cli.stack_options import (
    chosen_template,
    grader_options,
    param_option,
    stack_cost_lines,
    template_option,
)


@command(
    "synth",
    epilog="\b\nExamples:\n  cloudft infra synth > base.yaml\n"
    "  cloudft infra synth --param WithVpc=yes --output json\n"
    "  cloudft infra synth --grader jobs/tickets.yaml --zip grader.zip",
)
@template_option
@param_option
@grader_options
@click.option(
    "--zip",
    "package",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --grader: write the package that `infra deploy` uploads.",
)
@click.option("--compact", is_flag=True, help="As JSON where it is too long for a request as YAML.")
@console_options
def synth_command(
    template: str | None,
    params: dict[str, str],
    grader: Path | None,
    grader_for: str,
    package: Path | None,
    compact: bool,
    console: Console,
) -> int:
    """Print a CloudFormation template.

    --compact prints the form that `aws cloudformation deploy` accepts of a long one. --output json
    adds the parameters with their rules, and the monthly cost of the stack. With --grader they have
    the values that follow from the job file and its grader.
    """
    from cloudft.infra import change_sets
    from cloudft.infra import template as templates
    from cloudft.infra.status import template_costs

    chosen = chosen_template(template, grader)
    text = templates.load_template_text(chosen)
    params = {**_grader_parameters(grader, grader_for, package, console), **params}
    # The base stack's outputs are the rest: only `infra deploy` reads them.
    change_sets.check_parameters(chosen, text, params, None, require_all=grader is None)
    parsed = templates.parse_template(text)
    known = templates.parse_parameters(parsed).values()
    costs = template_costs(parsed, params)
    for line in stack_cost_lines(costs):
        console.debug(line)
    console.print_result(
        {
            "template": templates.format_request_body(text) if compact else text,
            "parameters": [
                {"name": p.name, "value": params.get(p.name, p.default), "rules": p.declaration}
                for p in known
            ],
            "costs": costs,
        },
        (templates.format_request_body(text) if compact else text).rstrip("\n"),
    )
    return 0


def _grader_parameters(
    grader: Path | None, grader_for: str, package: Path | None, console: Console
) -> dict[str, str]:
    """Return the parameters that follow from a job file's grader; write its package to a file."""
    from cloudft.backends.aws_base.grader_package import pack_job_grader
    from cloudft.cli.job_file import load_job_file
    from cloudft.infra import grader_stack
    from cloudft.storage.atomic_files import atomic_write

    if grader is None:
        if package is not None:
            raise click.UsageError("--zip needs --grader")
        return {}
    job = load_job_file(grader, {})
    packed = pack_job_grader(job, grader_for)
    if package is not None:
        atomic_write(package, packed.content)
        console.note(f"{package}: {len(packed.content)} bytes, CodeSha256 {packed.code_sha256}")
    return grader_stack.job_parameters(job, packed, grader_for)
