"""models, doctor, completion: what there is on this machine."""

from __future__ import annotations

from typing import Any

import click

from cloudft.cli.options import Console, console_options
from cloudft.storage.home import Home


@click.command(
    "models",
    epilog="\b\nExamples:\n  cloudft models --local\n  cloudft models --live --region us-east-1",
)
@click.option("--local", is_flag=True, help="Only models that can be trained on this machine.")
@click.option("--live", is_flag=True, help="Ask the account, and tell where it says otherwise.")
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

    places = catalogue.find_weights(model) if model.open_weight else []
    weights = [{"place": w, "present": present, "detail": d} for w, present, d in places]
    here = next((d for _, present, d in places if present), None)
    origin = here or "; ".join(d for _, _, d in places) or model.bedrock_id
    return {
        "alias": model.alias,
        "title": model.title,
        "bedrockId": model.bedrock_id,
        "openWeight": model.open_weight,
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


@click.command("doctor", epilog="\b\nExample:\n  cloudft doctor --output json")
@console_options
def doctor_command(console: Console) -> int:
    """Say what is installed, which device there is, and what is missing, with its remedy.

    Exit code 1 when something is missing without which nothing can be trained here.
    """
    from cloudft.cli.output import findings_text, format_table
    from cloudft.doctor import run_doctor

    report = run_doctor(Home.from_environ())
    rows = [(name, value) for name, value in report.facts.items() if value is not None]
    text = format_table(("WHAT", "FOUND"), rows)
    if report.findings:
        text += "\n\n" + findings_text(report.findings)
    console.print_result(
        {"ok": report.ok, "facts": report.facts, "findings": report.findings}, text
    )
    return 0 if report.ok else 1


@click.command(
    "completion",
    epilog="\b\nExamples:\n  cloudft completion bash >> ~/.bashrc\n"
    "  cloudft completion fish > ~/.config/fish/completions/cloudft.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@console_options
def completion_command(shell: str, console: Console) -> int:
    """Print the tab completion script of a shell."""
    from click.shell_completion import get_completion_class

    from cloudft.cli.main import cloudft

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cloudft, {}, "cloudft", "_CLOUDFT_COMPLETE").source()
    console.print_result({"shell": shell, "script": script}, script)
    return 0
