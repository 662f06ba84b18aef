"""models: list the base models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_options, console_options
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.catalogue.model import Model


@command(
    "models",
    epilog="\b\nExamples:\n  cloudft models --local\n  cloudft models --live --region us-east-1\n"
    "  cloudft models --live --all-regions --output json",
)
@click.option("--local", is_flag=True, help="List only models that can be trained on this machine.")
@click.option(
    "--live", is_flag=True, help="Compare the catalogue with the models of the AWS account."
)
@click.option(
    "--all-regions",
    is_flag=True,
    help="With --live, compare every Region in which the catalogue has a model.",
)
@aws_options
@console_options
def models_command(local: bool, live: bool, all_regions: bool, console: Console) -> int:
    """List the base models and where their weights are.

    Open-weight models are trained on this machine. For a Bedrock model, a local job trains the
    open-weight model that the job file names (local.model).

    --live compares life cycle, types, ids, serving, inference profiles and prices, and the
    customization types of the installed botocore. If some can't be read, a warning names them and
    the exit code is 4 (refused) or 5 (unreachable).
    """
    from cloudft import catalogue
    from cloudft.cli.output import format_table

    if all_regions and not live:
        raise UsageError("--all-regions needs --live", fix="add --live, or remove --all-regions.")
    if live:
        return _compare_with_account(all_regions, console)
    known = sorted(catalogue.load_models(), key=lambda model: not model.is_open_weight)
    values = [_model_json(model) for model in known if model.is_open_weight or not local]
    rows = [
        (
            value["alias"],
            "here" if value["openWeight"] else "Bedrock",
            ", ".join(value["customizationTypes"]),
            value["lifecycle"],
            value["origin"],
        )
        for value in values
    ]
    console.print_result(values, format_table(("MODEL", "RUNS", "TYPES", "STATE", "FROM"), rows))
    return 0


def _compare_with_account(all_regions: bool, console: Console) -> int:
    """Print where the catalogue and the account differ."""
    from cloudft.account import catalogue_drift
    from cloudft.cli.options import aws_location
    from cloudft.cli.output import format_table, print_unavailable

    listing = catalogue_drift.compare_catalogue(aws_location(), all_regions=all_regions)
    header = ["MODEL", "CATALOGUE", "ACCOUNT", ""]
    rows = [[line.model, line.catalogue, line.account, line.word] for line in listing.items]
    if all_regions:
        header.insert(1, "REGION")
        for line, row in zip(listing.items, rows, strict=True):
            row.insert(1, line.region)
    drifts = [
        f"{line.model}{f' in {line.region}' if line.region else ''}: {'; '.join(line.differences)}"
        for line in listing.items
        if line.word == "drift"
    ]
    text = "\n".join([format_table(header, rows), *drifts])
    console.print_result(list(listing.items), text)
    print_unavailable(listing.unavailable)
    return listing.exit_code


def _model_json(model: Model) -> dict[str, Any]:
    from cloudft import catalogue

    locations = catalogue.find_weights(model) if model.is_open_weight else []
    weights = [{"place": w, "present": present, "detail": d} for w, present, d in locations]
    here = next((d for _, present, d in locations if present), None)
    origin = here or "; ".join(d for _, _, d in locations) or model.bedrock_id
    return {
        "alias": model.alias,
        "title": model.title,
        "bedrockId": model.bedrock_id,
        "openWeight": model.is_open_weight,
        "customizationTypes": list(model.customization_types),
        "lifecycle": model.lifecycle.state
        + (f" {model.lifecycle.date}" if model.lifecycle.date else ""),
        "hyperParameters": {
            name: {"min": p.min, "max": p.max, "default": p.default, "source": str(p.source)}
            for name, p in model.hyperparameters.items()
        },
        "weights": weights,
        "origin": origin,
    }
