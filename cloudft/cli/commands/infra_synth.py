"""infra synth, status and policy: what is written, what stands, what a job needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.options import (
    Console,
    aws_location,
    console_options,
    job_file_argument,
    parse_settings,
    spec_options,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.infra.costs import ResourceCost
    from cloudft.infra.status import Drift, StackReport

STACK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}|arn:[^\s]+")
"""CloudFormation's rule for `StackName`, or an ARN (API reference, CreateChangeSet)."""


def _check_stack_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if STACK_NAME.fullmatch(name) is None:
        raise click.BadParameter(
            f"{name[:140]!r} is no name of a stack: take letters, digits and '-', 128 at most,"
            " beginning with a letter"
        )
    return name


stack_argument = click.argument(
    "name", metavar="[NAME]", default="cloudft", callback=_check_stack_name
)
template_option = click.option(
    "--template", default="base", show_default=True, metavar="NAME", help="Which of cloudft's own."
)
param_option = click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_settings,
    help="A parameter of the template; `cloudft infra synth` shows them all.",
)


@click.command(
    "synth",
    epilog="\b\nExamples:\n  cloudft infra synth > base.yaml\n"
    "  cloudft infra synth --param WithVpc=yes --output json",
)
@template_option
@param_option
@click.option(
    "--compact",
    is_flag=True,
    help="As JSON where it is too long for a request as YAML.",
)
@console_options
def synth_command(template: str, params: dict[str, str], compact: bool, console: Console) -> int:
    """Print a template, or with --compact what `aws cloudformation deploy` takes of a long one.

    As JSON: the parameters with their rules, and what the stack would cost while it stands.
    """
    from cloudft.infra import change_sets
    from cloudft.infra import template as templates
    from cloudft.infra.status import template_costs

    text = templates.load_template_text(template)
    change_sets.check_parameters(template, text, params, None)
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


def stack_cost_lines(costs: Sequence[ResourceCost]) -> list[str]:
    """What a stack costs, a line each, and the sum of what is known."""
    from cloudft.cli.commands.deploy import format_usd
    from cloudft.infra.costs import sum_known_costs

    lines = []
    for cost in costs:
        source = f" ({cost.source}, {cost.date})" if cost.source else ""
        note = f"; {cost.note}" if cost.note else ""
        lines.append(f"  {cost.resource}: {format_usd(cost.per_month)}{source}{note}")
    unknown = sum(cost.per_month is None for cost in costs)
    more = f", and {unknown} resources by use at prices not known here" if unknown else ""
    return [f"costs a month, while it stands: {format_usd(sum_known_costs(costs))}{more}", *lines]


@click.command("status", epilog="\b\nExample:\n  cloudft infra status team --output json")
@stack_argument
@click.option("--drift/--no-drift", default=True, show_default=True, help="Look for drift.")
@console_options
def status_command(name: str, drift: bool, console: Console) -> int:
    """Show a stack: its state, its outputs, what has drifted from its template, what it costs."""
    from cloudft.aws.client import Aws, AwsLocation
    from cloudft.cli.output import print_unavailable
    from cloudft.infra.costs import sum_known_costs
    from cloudft.infra.status import get_stack_report
    from cloudft.types import Listing

    report = get_stack_report(Aws(AwsLocation(**aws_location())), name, drift=drift)
    stack = report.stack
    console.print_result(
        {
            "stack": stack,
            "drift": report.drift,
            "driftUnknown": report.drift_unknown,
            "costs": report.costs,
            "usdPerMonth": None if report.costs is None else sum_known_costs(report.costs),
            "unavailable": report.unavailable,
        },
        _status_text(report),
    )
    print_unavailable(report.unavailable)
    return Listing((), report.unavailable).exit_code


def _status_text(report: StackReport) -> str:
    from cloudft.cli.output import format_table

    stack = report.stack
    reason = f" ({stack.reason})" if stack.reason else ""
    lines = [f"{stack.name}: {stack.status}{reason}"]
    if stack.termination_protection:
        lines.append("protected against its end")
    if stack.outputs:
        lines += ["", format_table(("OUTPUT", "VALUE"), sorted(stack.outputs.items()))]
    costs = ["costs: unknown"] if report.costs is None else stack_cost_lines(report.costs)
    lines += ["", *_drift_lines(report.drift, report.drift_unknown), "", *costs]
    return "\n".join(lines)


def _drift_lines(drift: Sequence[Drift] | None, why: str | None) -> list[str]:
    if drift is None:
        return [f"drift: unknown ({why})"]
    if not drift:
        return ["drift: none"]
    return [
        f"drift: {one.resource} ({one.type}) is {one.status}: {', '.join(one.properties)}"
        for one in drift
    ]


@click.command(
    "policy",
    epilog="\b\nExamples:\n  cloudft infra policy > policy.json\n"
    "  cloudft infra policy jobs/router.yaml --set bedrock.stack=team",
)
@job_file_argument
@spec_options
@console_options
def policy_command(path: Path | None, flags: dict[str, str], console: Console) -> int:
    """Print the least IAM policy with which a job file can be checked, submitted and followed.

    It follows from the calls that a submit makes and their resources; nothing is staged or checked.
    Data and names that change with the job's content stand as patterns.
    """
    from cloudft.backends import make_backend
    from cloudft.backends.base import with_placeholder_data
    from cloudft.backends.bedrock import preflight
    from cloudft.backends.bedrock.caller_policy import caller_policy
    from cloudft.cli.commands.submit import load_job_file
    from cloudft.cli.output import json_text
    from cloudft.errors import CheckFailed

    job = load_job_file(path, flags)
    job = make_backend("bedrock", Home.from_environ()).for_job(job).with_stack_defaults(job)
    errors = [finding for finding in preflight.check_offline(job) if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, errors)
    document = caller_policy(with_placeholder_data(job))
    console.print_result(document, json_text(document))
    return 0
