"""Options and arguments that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from cloudft.cli.param_types import SEED
from cloudft.errors import CloudftError
from cloudft.storage.home import Home

AWS_LOCATION_VARIABLES = {
    "profile": "AWS_PROFILE",
    "region": "AWS_REGION",
    "endpoint_url": "AWS_ENDPOINT_URL",
}
AWS_KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Console:
    """How this call wants to be talked to. Results go to stdout, all else to stderr."""

    output: str
    verbosity: int

    @property
    def is_json(self) -> bool:
        """True when stdout is to hold JSON alone."""
        return self.output == "json"

    def note(self, text: str) -> None:
        """Say something to the person, unless -q."""
        if self.verbosity >= 0:
            click.echo(text, err=True)

    def debug(self, text: str) -> None:
        """Say something with -v."""
        if self.verbosity > 0:
            click.echo(text, err=True)

    def print_result(self, value: Any, text: str) -> None:
        """The command's result: `value` as JSON, or `text`."""
        if self.is_json:
            from cloudft.cli.output import json_text

            text = json_text(value)
        click.echo(text)


def console_options(function: Function) -> Function:
    """--output, -v and -q, which the command gets as `console`; and where AWS is.

    --profile, --region and --endpoint-url stand above the job file and the environment: the job
    file's values are replaced, and AWS's own variables set for this process.
    """

    @functools.wraps(function)
    def with_console(
        *args: Any,
        output: str,
        verbose: int,
        quiet: bool,
        profile: str | None,
        region: str | None,
        endpoint_url: str | None,
        **kwargs: Any,
    ) -> Any:
        place = {"profile": profile, "region": region, "endpoint_url": endpoint_url}
        given = {name: value for name, value in place.items() if value is not None}
        os.environ.update({AWS_LOCATION_VARIABLES[name]: value for name, value in given.items()})
        if profile is not None:
            use_aws_profile(profile)
        if "flags" in kwargs:
            kwargs["flags"] |= {f"bedrock.{name}": value for name, value in given.items()}
        return function(*args, console=Console(output, -1 if quiet else verbose), **kwargs)

    for option in (
        click.option("--endpoint-url", metavar="URL", help="Another endpoint than AWS's own."),
        click.option("--region", metavar="REGION", help="AWS Region."),
        click.option("--profile", metavar="NAME", help="Profile of the AWS configuration."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but the result."),
        click.option("-v", "--verbose", count=True, help="Say more."),
        click.option(
            "-o",
            "--output",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="Form of the result on standard output.",
        ),
    ):
        option(with_console)
    return with_console  # type: ignore[return-value]


def aws_location() -> dict[str, str | None]:
    """Where AWS is, by flags and environment: what a backend's `at` takes.

    The profile is left to AWS_PROFILE: handed over by name it would win over keys in the
    environment, for which AWS's own order, and so every other call, is the other way round.
    """
    found = {name: os.environ.get(variable) for name, variable in AWS_LOCATION_VARIABLES.items()}
    return found | {"profile": None}


def use_aws_profile(profile: str) -> None:
    """Have every call of this process made with a profile that was given by flag or job file.

    AWS_PROFILE alone would not do: keys in the environment win over it.
    """
    os.environ[AWS_LOCATION_VARIABLES["profile"]] = profile
    for name in AWS_KEY_VARIABLES:
        os.environ.pop(name, None)


def complete_backend(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Backend names that begin with `start`."""
    from cloudft.backends import TRAINING_BACKENDS

    return [name for name in TRAINING_BACKENDS if name.startswith(start)]


def complete_job(_ctx: click.Context, _param: click.Parameter, start: str) -> list[CompletionItem]:
    """Job ids that begin with `start`."""
    try:
        ids = sorted(
            entry.name for entry in Home.from_environ().jobs.iterdir() if entry.name[0] != "."
        )
    except (OSError, CloudftError):
        return []
    return [CompletionItem(name) for name in ids if name.startswith(start)]


backend_option = click.option(
    "--backend",
    "backend_name",
    default="local",
    show_default=True,
    metavar="NAME",
    shell_complete=complete_backend,
    help="What runs the job: local (this machine), bedrock or sagemaker.",
)
job_argument = click.argument("reference", metavar="JOB", shell_complete=complete_job)
job_file_argument = click.argument(
    "path", metavar="[JOB.yaml]", required=False, type=click.Path(path_type=Path)
)


def parse_settings(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """`--set KEY=VALUE` as a mapping of dotted keys."""
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE, like seed=3")
        settings[key.strip()] = text
    return settings


def spec_options(function: Function) -> Function:
    """--set, --name and --seed; the command gets them as `flags`."""

    @functools.wraps(function)
    def with_flags(
        *args: Any, settings: dict[str, str], name: str | None, seed: int | None, **kwargs: Any
    ) -> Any:
        given = {"name": name, "seed": seed}
        flags = settings | {key: value for key, value in given.items() if value is not None}
        return function(*args, flags=flags, **kwargs)

    for option in (
        click.option("--seed", type=SEED, help="The job file's seed."),
        click.option("--name", help="The job file's name."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            callback=parse_settings,
            help="Any value of the job file, dotted: --set hyperparameters.epochCount=1",
        ),
    ):
        option(with_flags)
    return with_flags  # type: ignore[return-value]
