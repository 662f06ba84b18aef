"""Define the arguments and options of the infra commands, and format a stack's cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cloudft.cli.options import parse_settings

if TYPE_CHECKING:
    from cloudft.infra.costs import ResourceCost


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
    default="base",
    show_default=True,
    metavar="NAME",
    help="Name of one of cloudft's templates: base or jobs.",
)
param_option = click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_settings,
    help="Set a parameter of the template; `cloudft infra synth` shows them all.",
)


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
