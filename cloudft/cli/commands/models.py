"""models: list the base models."""

from __future__ import annotations

from typing import Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_options, console_options


@command(
    "models",
    epilog="\b\nExamples:\n  cloudft models --local\n  cloudft models --live --region us-east-1",
)
@click.option("--local", is_flag=True, help="Only models that can be trained on this machine.")
@click.option("--live", is_flag=True, help="Ask the account, and tell where it says otherwise.")
@aws_options
@console_options
def models_command(local: bool, live: bool, console: Console) -> int:
    """List the base models and where they come from.

    Open-weight models are trained here; a Bedrock model is trained here by a stand-in
    (local.model).
    """
    from cloudft import catalogue
    from cloudft.cli.output import format_table

    if live:
        return _compare_with_account(console)
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


def _compare_with_account(console: Console) -> int:
    """The catalogue beside the account's own list."""
    from cloudft.account import catalogue_drift
    from cloudft.cli.options import aws_location
    from cloudft.cli.output import format_table

    lines = catalogue_drift.compare_catalogue(aws_location())
    rows = [(line.model, line.catalogue, line.account, line.word) for line in lines]
    console.print_result(lines, format_table(("MODEL", "CATALOGUE", "ACCOUNT", ""), rows))
    return 0


def _model_json(model: Any) -> dict[str, Any]:
    from cloudft import catalogue

    places = catalogue.find_weights(model) if model.is_open_weight else []
    weights = [{"place": w, "present": present, "detail": d} for w, present, d in places]
    here = next((d for _, present, d in places if present), None)
    origin = here or "; ".join(d for _, _, d in places) or model.bedrock_id
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
