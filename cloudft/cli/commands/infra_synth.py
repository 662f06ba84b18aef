"""infra synth: print a CloudFormation template."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options
from cloudft.cli.stack_options import param_option, stack_cost_lines, template_option


@command(
    "synth",
    epilog="\b\nExamples:\n  cloudft infra synth > base.yaml\n"
    "  cloudft infra synth --param WithVpc=yes --output json",
)
@template_option
@param_option
@click.option("--compact", is_flag=True, help="As JSON where it is too long for a request as YAML.")
@console_options
def synth_command(template: str, params: dict[str, str], compact: bool, console: Console) -> int:
    """Print a CloudFormation template.

    --compact prints the form that `aws cloudformation deploy` accepts of a long one. --output json
    adds the parameters with their rules, and the monthly cost of the stack.
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
