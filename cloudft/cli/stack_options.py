"""Define the arguments and options of the infra commands, and format a stack's cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloudft.cli.options import parse_settings

if TYPE_CHECKING:
    from cloudft.infra.costs import ResourceCost

Function = TypeVar("Function", bound=Callable[..., Any])
STACK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}|arn:[^\s]+")
"""CloudFormation's rule for `StackName`, or an ARN (API reference, CreateChangeSet)."""


def _check_stack_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if STACK_NAME.fullmatch(name) is None:
        raise click.BadParameter(
            f"{name[:140]!r} is not a stack name: use up to 128 letters, digits and '-',"
            " beginning with a letter"
        )
    return name


stack_argument = click.argument(
    "name", metavar="[NAME]", default="cloudft", callback=_check_stack_name
)
template_option = click.option(
    "--template",
    metavar="NAME",
    help="Name of one of cloudft's templates: base (the default), jobs or grader.",
)
param_option = click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_settings,
    help="Set a parameter of the template; `cloudft infra synth` shows them all.",
)


GRADER_PLATFORMS = ("bedrock", "sagemaker-nova", "sagemaker-open-weight")


def grader_options(function: Function) -> Function:
    """Add --grader and --grader-for."""
    for option in (
        click.option(
            "--grader-for",
            type=click.Choice(GRADER_PLATFORMS),
            default="bedrock",
            show_default=True,
            help="With --grader: whose jobs invoke it. SageMaker's event and reply have other"
            " shapes, to which an adapter in the package translates.",
        ),
        click.option(
            "--grader",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="JOB.yaml",
            help="Pack the grader of this job file as a Lambda function (template grader).",
        ),
    ):
        function = option(function)
    return function


def chosen_template(template: str | None, grader: Path | None) -> str:
    """Return the template to use: the grader's with --grader. Raise click.UsageError for both."""
    if grader is None:
        return template or "base"
    if template not in (None, "grader"):
        raise click.UsageError("--grader has a template of its own: leave out --template")
    return "grader"


def stack_cost_lines(costs: Sequence[ResourceCost]) -> list[str]:
    """Return the monthly cost of a stack: a line with the known sum, then a line a resource."""
    from cloudft.cli.number_format import format_usd
    from cloudft.infra.costs import sum_known_costs

    lines = []
    for cost in costs:
        source = f" ({cost.source}, {cost.date})" if cost.source else ""
        note = f"; {cost.note}" if cost.note else ""
        lines.append(f"  {cost.resource}: {format_usd(cost.per_month)}{source}{note}")
    unknown = sum(cost.per_month is None for cost in costs)
    more = f", plus {unknown} resources that are billed by use" if unknown else ""
    total = format_usd(sum_known_costs(costs))
    return [f"cost per month while the stack exists: {total}{more}", *lines]
