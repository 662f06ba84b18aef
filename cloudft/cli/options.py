"""Options and arguments that several commands share, and the console they print to."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from cloudft.aws.location_variables import AWS_LOCATION_VARIABLES, location_from_environ
from cloudft.cli.command import AwsOption, RenamedOption
from cloudft.cli.param_types import SECONDS, SEED
from cloudft.errors import CloudftError
from cloudft.storage.home import Home

AWS_KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Console:
    """Where a command prints: its result to stdout, everything else to stderr.

    `verbosity` is -1 with -q, 0 by default, 1 or more with -v.
    """

    output: str
    verbosity: int

    @property
    def is_json(self) -> bool:
        """Return whether stdout holds JSON alone (`--output json`)."""
        return self.output == "json"

    def note(self, text: str) -> None:
        """Print a line for people on stderr, unless -q."""
        if self.verbosity >= 0:
            click.echo(text, err=True)

    def debug(self, text: str) -> None:
        """Print a line on stderr with -v."""
        if self.verbosity > 0:
            click.echo(text, err=True)

    def print_result(self, value: object, text: str) -> None:
        """Print the command's result on stdout: `value` with --output json, else `text`."""
        if self.is_json:
            from cloudft.cli.output import json_text

            text = json_text(value)
        click.echo(text)


def console_options(function: Function) -> Function:
    """Add --output, -v and -q. The command gets them as `console`."""

    @functools.wraps(function)
    def with_console(*args: Any, output: str, verbose: int, quiet: bool, **kwargs: Any) -> Any:
        return function(*args, console=Console(output, -1 if quiet else verbose), **kwargs)

    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but the result."),
        click.option("-v", "--verbose", count=True, help="Print more details."),
        click.option(
            "-o",
            "--output",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="Format of the result on standard output.",
        ),
    ):
        option(with_console)
    return with_console  # type: ignore[return-value]


def aws_options(function: Function) -> Function:
    """Add --profile, --region and --endpoint-url to a command that calls AWS."""
    return _with_aws_options(function, hidden=False)


def hidden_aws_options(function: Function) -> Function:
    """Add them unshown to a command that calls AWS only to read `s3://` paths."""
    return _with_aws_options(function, hidden=True)


def _with_aws_options(function: Function, *, hidden: bool) -> Function:
    """Set AWS's variables for this process, and override the job file's values.

    A flag stands above the job file and the environment, so it goes into the command's `flags` too.
    """

    @functools.wraps(function)
    def with_location(
        *args: Any, profile: str | None, region: str | None, endpoint_url: str | None, **kwargs: Any
    ) -> Any:
        location = {"profile": profile, "region": region, "endpoint_url": endpoint_url}
        named = {name: value for name, value in location.items() if value is not None}
        os.environ.update({AWS_LOCATION_VARIABLES[name]: value for name, value in named.items()})
        if profile is not None:
            use_aws_profile(profile)
        if "flags" in kwargs:
            kwargs["flags"] |= {f"bedrock.{name}": value for name, value in named.items()}
        return function(*args, **kwargs)

    for name, metavar, text in (
        ("--endpoint-url", "URL", "Endpoint to call instead of AWS's own."),
        ("--region", "REGION", "AWS Region."),
        ("--profile", "NAME", "Profile of the AWS configuration."),
    ):
        option = click.option(name, cls=AwsOption, metavar=metavar, help=text, hidden=hidden)
        option(with_location)
    return with_location  # type: ignore[return-value]


def aws_location() -> dict[str, str | None]:
    """Return profile, region and endpoint URL from flags and environment, for `Backend.bind`.

    The flags have been written into the environment.
    """
    return location_from_environ()


def use_aws_profile(profile: str) -> None:
    """Make every AWS call of this process use `profile`, named by a flag or a job file."""
    os.environ[AWS_LOCATION_VARIABLES["profile"]] = profile
    # AWS_PROFILE alone is not enough: boto3 prefers keys in the environment.
    for name in AWS_KEY_VARIABLES:
        os.environ.pop(name, None)


def complete_backend(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Return the backend names that begin with `start`, for tab completion."""
    from cloudft.backends import TRAINING_BACKENDS

    return [name for name in TRAINING_BACKENDS if name.startswith(start)]


def complete_job(_ctx: click.Context, _param: click.Parameter, start: str) -> list[CompletionItem]:
    """Return the job ids that begin with `start`, for tab completion."""
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
    help="Where the job runs: local (this machine), bedrock or sagemaker.",
)
cloud_option = click.option(
    "--backend",
    "backend_name",
    metavar="NAME",
    shell_complete=complete_backend,
    help="Only the resources of this backend: bedrock or sagemaker.",
)
job_argument = click.argument("reference", metavar="JOB", shell_complete=complete_job)
job_file_argument = click.argument(
    "path", metavar="[JOB.yaml]", required=False, type=click.Path(path_type=Path)
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
wait_timeout_option = click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="With --wait: exit 124 after this time."
)


inference_profile_option = click.option(
    "--inference-profile",
    "inference_profile",
    metavar="PROFILE",
    help="Call the base model by this inference profile: an area (us, eu, global), an id or an"
    " ARN; in-region for its own id (bedrock jobs).",
)
force_new_option = click.option(
    "--force-new",
    "force_new",
    cls=RenamedOption,
    old_names=["--again"],
    is_flag=True,
    help="Start another job even if this one is running or Completed.",
)


def parse_settings(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Parse `--set KEY=VALUE` options into a mapping of dotted keys."""
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE, for example seed=3")
        settings[key.strip()] = text
    return settings


columns_option = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=YOURS",
    callback=parse_settings,
    help="Your names of columns: --column prompt=question --column completion=answer",
)


def spec_options(function: Function) -> Function:
    """Add --set, --name and --seed. The command gets them as `flags`, a mapping of dotted keys."""

    @functools.wraps(function)
    def with_flags(
        *args: Any, settings: dict[str, str], name: str | None, seed: int | None, **kwargs: Any
    ) -> Any:
        named = {"name": name, "seed": seed}
        flags = settings | {key: value for key, value in named.items() if value is not None}
        return function(*args, flags=flags, **kwargs)

    for option in (
        click.option("--seed", type=SEED, help="Override the job file's seed."),
        click.option("--name", help="Override the job file's name."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            callback=parse_settings,
            help="Override any value of the job file: --set hyperparameters.epochCount=1",
        ),
    ):
        option(with_flags)
    return with_flags  # type: ignore[return-value]
