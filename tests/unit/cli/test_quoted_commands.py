"""Every command quoted in a message exists, with these options, and is complete."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from cli_commands import GROUPS, HELP_OPTIONS, find_command, make_context

import cloudft
from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws, AwsLocation

SOURCES = sorted(Path(cloudft.__file__).parent.rglob("*.py"))
QUOTED = re.compile(r"`((?:cloudft|aws) [a-z][^`]*)`")
CLI_ONLY_COMMANDS = {"aws configure", "aws configure --profile X", "aws sso loginX"}
"""Commands that the AWS CLI has beside the services; `sso login` came with its second version."""


def string_literals(tree: ast.Module) -> Iterator[str]:
    """Yield the string literals of a module but its docstrings; an interpolated value is `X`."""
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.Expr))
    inside |= {id(node.value) for node in statements}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def remedy_expressions(tree: ast.Module) -> ast.Module:
    """Return the expressions assigned to `fix`: the remedies of errors and findings."""
    kept: list[ast.stmt] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "fix":
            kept.append(ast.Return(node.value))
        elif isinstance(node, ast.Assign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == "fix" for t in targets):
                kept.append(ast.Return(node.value))
    return ast.Module(kept, [])


def cloudft_commands_in_remedies() -> list[str]:
    """Return the cloudft commands that remedies contain."""
    literals = (
        t
        for path in SOURCES
        for t in string_literals(remedy_expressions(ast.parse(path.read_text())))
    )
    return sorted(
        {m for text in literals for m in QUOTED.findall(text) if m.startswith("cloudft ")}
    )


@pytest.mark.parametrize("text", cloudft_commands_in_remedies())
def test_a_remedy_names_the_job_or_the_stack_of_its_command(text: str) -> None:
    """Without the name it is refused, or acts on the stack with the default name."""
    words = shlex.split(text)[1:]
    depth = 2 if words[0] in GROUPS else 1
    arguments = words[depth:]
    if "--help" not in arguments:
        with make_context(tuple(words[:depth]), arguments):
            assert words[:2] not in (["infra", "deploy"], ["infra", "destroy"]) or arguments, text


def quoted_commands() -> list[str]:
    """Return every command in backticks in some string literal."""
    literals = (text for path in SOURCES for text in string_literals(ast.parse(path.read_text())))
    return sorted({match for text in literals for match in QUOTED.findall(text)})


MODULES_WITH_AWS_COMMANDS = {
    *("aws/aws_cli.py", "backends/aws_base/account_checks.py"),
    "backends/bedrock/account_checks.py",
    *("backends/bedrock/invocation_logs.py", "backends/bedrock/service_quotas.py"),
    "backends/sagemaker/serverless/preflight.py",
    "backends/bedrock/removal_conflicts.py",
    *("infra/change_sets.py", "infra/ownership.py", "infra/leftovers.py"),
}
"""The modules that make commands of the AWS CLI. tests/e2e/test_remedies.py runs what they make."""


def test_every_module_that_makes_a_command_is_known_to_the_test_that_runs_it() -> None:
    root = Path(cloudft.__file__).parent
    found = {p for p in SOURCES if "aws.aws_cli import aws_cli_command" in p.read_text()}
    found.add(root / "aws" / "aws_cli.py")
    assert {path.relative_to(root).as_posix() for path in found} == MODULES_WITH_AWS_COMMANDS


def options(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("-")]


@pytest.mark.parametrize("text", [t for t in quoted_commands() if t.startswith("cloudft ")])
def test_a_command_of_ours_exists_with_its_options(text: str) -> None:
    words = shlex.split(text)[1:]
    depth = 2 if words[0] in GROUPS else 1
    found = find_command(tuple(words[:depth]))
    if "--help" in words:
        return
    # A command may be named without its job: one that is found alone needs none.
    named = click.Context(found, info_name=" ".join(words[:depth]), help_option_names=HELP_OPTIONS)
    found.make_parser(named).parse_args(list(words[depth:]))


@pytest.mark.parametrize("text", [t for t in quoted_commands() if t.startswith("aws ")])
def test_a_command_of_the_aws_cli_exists_and_lacks_nothing(driver: Any, text: str) -> None:
    if text in CLI_ONLY_COMMANDS:
        return
    check_aws_command(driver, shlex.split(text))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the AWS CLI. Its import changes AWS_DATA_PATH for the process, undone here."""
    monkeypatch.setenv("AWS_DATA_PATH", "")
    import awscli
    from awscli.clidriver import create_clidriver

    monkeypatch.setenv("AWS_DATA_PATH", str(Path(awscli.__file__).parent / "data"))
    return create_clidriver()


def check_aws_command(driver: Any, words: list[str]) -> None:
    """Raise AssertionError for a command that the AWS CLI does not know, or that is incomplete."""
    services = driver.create_help_command().command_table
    assert words[1] in services, words
    operations = services[words[1]].create_help_command().command_table
    assert words[2] in operations, words
    known = operations[words[2]].arg_table
    arguments = {word.lstrip("-") for word in options(words)}
    general = {"region", "profile", "endpoint-url", "output", "query"}
    assert arguments - general <= known.keys(), words
    needed = {name for name, one in known.items() if one.required and not one.positional_arg}
    assert needed <= arguments, f"{' '.join(words)} lacks {needed - arguments}"


def test_a_command_names_region_profile_and_endpoint_where_they_are_not_the_clis_own(
    driver: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")  # which the first AWS CLI does not read
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    made = aws_cli_command(Aws(AwsLocation()), "s3", "mb", "s3://my bucket")
    assert made == "aws s3 mb 's3://my bucket' --region eu-west-1"
    there = AwsLocation(region="us-west-2", profile="team a", endpoint_url="http://127.0.0.1:1")
    words = shlex.split(aws_cli_command(Aws(there), "kms", "enable-key", "--key-id", "k"))
    assert words[-6:] == [
        *("--region", "us-west-2", "--profile", "team a"),
        *("--endpoint-url", "http://127.0.0.1:1"),
    ]
    check_aws_command(driver, words)
    with pytest.raises(AssertionError, match="lacks"):
        check_aws_command(driver, ["aws", "ec2", "create-vpc-endpoint"])
