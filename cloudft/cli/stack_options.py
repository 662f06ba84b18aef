"""Arguments and options of the infra commands, and a stack's cost as text."""

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


def stack_cost_lines(costs: Sequence[ResourceCost]) -> list[str]:
    """What a stack costs, a line each, and the sum of what is known."""
    from cloudft.cli.number_format import format_usd
    from cloudft.infra.costs import sum_known_costs

    lines = []
    for cost in costs:
        source = f" ({cost.source}, {cost.date})" if cost.source else ""
        note = f"; {cost.note}" if cost.note else ""
        lines.append(f"  {cost.resource}: {format_usd(cost.per_month)}{source}{note}")
    unknown = sum(cost.per_month is None for cost in costs)
    more = f", and {unknown} resources by use at prices not known here" if unknown else ""
    return [f"costs a month, while it stands: {format_usd(sum_known_costs(costs))}{more}", *lines]
