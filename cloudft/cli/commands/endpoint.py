"""endpoint: serve a local Bedrock endpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli import startup
from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options
from cloudft.cli.param_types import PID, PORT, SECONDS
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.endpoint.server import EndpointOptions


def _parse_job_fields(values: tuple[str, ...]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise click.UsageError(f"--set {value}: write KEY=VALUE")
    return dict(value.split("=", 1) for value in values)


def read_local_models(path: Path | None) -> dict[str, str]:
    """Return Bedrock model alias -> open model to use instead. Raise UsageError."""
    if path is None:
        return {}
    import yaml

    from cloudft import catalogue

    try:
        local_models: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {error}", fix="write a YAML file.") from error
    fix = "write lines such as `amazon.nova-lite-v1:0: smollm2-135m`, the id in quotes."
    if not isinstance(local_models, dict) or not all(
        isinstance(v, str) for v in local_models.values()
    ):
        raise UsageError(f"{path} is not a map of Bedrock model ids to open models", fix=fix)
    folder, models = path.absolute().parent, {}
    for name, stand_in in local_models.items():
        closed = catalogue.find_model(str(name))
        open_model = catalogue.find_model(stand_in, base_dir=folder)
        if not open_model.is_open_weight:
            raise UsageError(f"{path}: {stand_in} has no open weights", fix="see `models --local`.")
        local = folder / stand_in
        models[closed.alias] = str(local) if local.is_dir() else stand_in
    return models


def read_graders(values: tuple[str, ...]) -> dict[str, Path]:
    """Return ARN of a function -> its file. Raise UsageError for what is no grader."""
    from cloudft.endpoint.grader_functions import FUNCTION_ARN

    graders: dict[str, Path] = {}
    for value in values:
        arn, _, file = value.partition("=")
        if FUNCTION_ARN.fullmatch(arn) is None or not file:
            fix = "write --grader arn:aws:lambda:REGION:ACCOUNT:function:NAME=FILE."
            raise UsageError(f"--grader {value[:200]}: not ARN=FILE", fix=fix)
        path = Path(file).absolute()
        if not path.is_file():
            fix = "name a file with lambda_handler(event, context)."
            raise UsageError(f"--grader {arn}: there is no file {path}", fix=fix)
        graders[arn] = path
    return graders


def _check_url(_context: click.Context, _option: click.Parameter, url: str | None) -> str | None:
    from cloudft.aws.client import is_endpoint_url

    if url is not None and not is_endpoint_url(url):
        raise click.BadParameter(f"{url[:200]!r} is not a URL, for example http://127.0.0.1:8333")
    return url


@command(
    "endpoint",
    epilog="\b\nExamples:\n  cloudft endpoint --port 5000\n"
    "  cloudft endpoint --state .bedrock --models models.yaml\n"
    "  AWS_ENDPOINT_URL=http://127.0.0.1:5000 aws bedrock list-model-customization-jobs",
)
@click.option("--port", type=PORT, default=0, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any but loopback is reachable by others.",
)
@click.option(
    "--region",
    envvar="AWS_REGION",
    default="us-east-1",
    show_default=True,
    help="AWS Region of the endpoint.",
)
@click.option(
    "--also-region",
    "other_regions",
    multiple=True,
    metavar="REGION",
    help="One more Region of Bedrock, to copy models to; can be repeated.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the state in this folder; without it, all is lost when the process ends.",
)
@click.option(
    "--models",
    "models_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="MAP.yaml",
    help="YAML map: Bedrock model id to the open model that runs in its place.",
)
@click.option(
    "--stand-in",
    default="smollm2-135m",
    show_default=True,
    help="Open model that runs in place of every model not in --models.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a job file field of every trained job.",
)
@click.option(
    "--grader",
    "graders",
    multiple=True,
    metavar="ARN=FILE",
    help="Grade reinforcement jobs of this Lambda function by the handler in this file; can be"
    " repeated. Functions that are created on the endpoint need it not.",
)
@click.option(
    "--clock",
    type=click.Choice(["real", "fast"]),
    default="real",
    show_default=True,
    help="fast: jobs end at once without training, for tests of the code around them.",
)
@click.option("--seconds", type=SECONDS, default=0.0, help="Duration of a job with --clock fast.")
@click.option(
    "--warm-up/--no-warm-up",
    default=True,
    show_default=True,
    help="Load the stand-in at the start, so that the first answer is quick; never with the fast"
    " clock.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 10_000),
    default=2,
    show_default=True,
    help="Quota of concurrent jobs.",
)
@click.option("--as-on-aws", is_flag=True, help="Offer only the models that AWS still offers.")
@click.option(
    "--authorization",
    is_flag=True,
    help="Enforce the IAM policies of the jobs' roles.",
)
@click.option(
    "--s3",
    metavar="URL",
    callback=_check_url,
    help="URL of the S3 service that jobs use; default: the endpoint's own.",
)
@click.option(
    "--credentials",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Accept only requests signed with a key of this file (format of ~/.aws/credentials).",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Accept requests with this Host header too (of a container or a proxy).",
)
@click.option(
    "--training-env",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="VENV",
    help="Virtual environment of SageMaker containers; default: this environment.",
)
@click.option("--operations", is_flag=True, help="Print the supported API operations, and exit.")
@click.option("--until-pid", type=PID, metavar="PID", help="Exit when that process has ended.")
@console_options
def endpoint_command(
    port: int,
    host: str,
    region: str,
    other_regions: tuple[str, ...],
    state: Path | None,
    models_file: Path | None,
    stand_in: str,
    settings: tuple[str, ...],
    graders: tuple[str, ...],
    clock: str,
    seconds: float,
    warm_up: bool,
    jobs: int,
    as_on_aws: bool,
    authorization: bool,
    s3: str | None,
    credentials: Path | None,
    names: tuple[str, ...],
    training_env: Path | None,
    operations: bool,
    until_pid: int | None,
    console: Console,
) -> int:
    """Serve a local Bedrock endpoint that really trains, for any AWS SDK; Ctrl-C ends it.

    It implements bedrock, bedrock-runtime, SageMaker training jobs and CloudFormation (for
    cloudft's templates); s3, iam, kms, sts and others are moto's. The account is 000000000000, and
    any credentials are accepted. The first line printed is its URL. The page of jobs and the routes
    under /_cloudft/ need the token printed with it, or the one in CLOUDFT_ENDPOINT_TOKEN.
    """
    from cloudft.endpoint.server import EndpointOptions, new_token, require_extra

    require_extra()
    if operations:
        return _print_operations(console)
    options = EndpointOptions(
        port=port,
        host=host,
        region=region,
        other_regions=tuple(dict.fromkeys(other_regions)),
        state=state.absolute() if state else None,
        stand_in=stand_in,
        stand_ins=read_local_models(models_file),
        settings=_parse_job_fields(settings),
        graders=read_graders(graders),
        fast=clock == "fast",
        seconds=seconds,
        warm_up=warm_up,
        max_concurrent_jobs=jobs,
        as_on_aws=as_on_aws,
        authorization=authorization,
        s3=s3,
        secret_keys=_read_secret_keys(credentials),
        until_pid=until_pid,
        allowed_hosts=names,
        token=os.environ.get("CLOUDFT_ENDPOINT_TOKEN") or new_token(),
        training_env=training_env.absolute() if training_env else None,
    )
    return _run_server(options, console)


def _read_secret_keys(credentials: Path | None) -> dict[str, str] | None:
    from cloudft.endpoint.protocols.sigv4 import read_credentials

    return dict(read_credentials(credentials)) if credentials else None


def _print_operations(console: Console) -> int:
    from cloudft.endpoint import supported_operations as offered

    console.print_result(list(offered.list_operations()), offered.render_markdown_table())
    return 0


def _run_server(options: EndpointOptions, console: Console) -> int:
    """Serve until the process ends. Print the URL first."""
    startup.restore_garbage_collection()
    from cloudft.endpoint.server import LOOPBACK_HOSTS, serve

    if options.host not in LOOPBACK_HOSTS and options.secret_keys is None:
        who = f"anyone who can reach {options.host} can use this endpoint"
        console.note(f"{who}; --credentials restricts it")

    def ready(url: str) -> None:
        page = f"{url}/?token={options.token}"
        console.print_result({"url": url, "token": options.token, "page": page}, url)
        console.note(f"export AWS_ENDPOINT_URL={url}; jobs are shown at {page}")

    def warn(text: str) -> None:
        click.echo(f"warning: {text}", err=True)

    serve(options, ready, warn, console.note)
    return 0
