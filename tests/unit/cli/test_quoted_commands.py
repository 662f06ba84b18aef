"""Every command in what cloudft says: it exists, with these options, and is whole."""

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
OF_ITS_OWN = {"aws configure", "aws configure --profile X", "aws sso loginX"}
"""Commands that the AWS CLI has beside the services; `sso login` came with its second version."""


def texts(tree: ast.Module) -> Iterator[str]:
    """The texts of a module but its docstrings; a value that is put in is `X`."""
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


def remedies(tree: ast.Module) -> ast.Module:
    """What is said under the name `fix`: the remedies of errors and findings."""
    kept: list[ast.stmt] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "fix":
            kept.append(ast.Return(node.value))
        elif isinstance(node, ast.Assign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == "fix" for t in targets):
                kept.append(ast.Return(node.value))
    return ast.Module(kept, [])


def ours_in_remedies() -> list[str]:
    """The commands of ours that a remedy tells to run."""
    said = (t for path in SOURCES for t in texts(remedies(ast.parse(path.read_text()))))
    return sorted({m for text in said for m in QUOTED.findall(text) if m.startswith("cloudft ")})


@pytest.mark.parametrize("text", ours_in_remedies())
def test_a_remedy_names_the_job_or_the_stack_of_its_command(text: str) -> None:
    """Pasted without, it is refused, or acts on the stack that has the default name."""
    words = shlex.split(text)[1:]
    depth = 2 if words[0] in GROUPS else 1
    given = words[depth:]
    if "--help" not in given:
        with make_context(tuple(words[:depth]), given):
            assert words[:2] not in (["infra", "deploy"], ["infra", "destroy"]) or given, text


def quoted() -> list[str]:
    """Each command that stands in backticks in some text."""
    said = (text for path in SOURCES for text in texts(ast.parse(path.read_text())))
    return sorted({match for text in said for match in QUOTED.findall(text)})


WITH_COMMANDS = {
    *("aws/aws_cli.py", "backends/aws_base/account_checks.py"),
    "backends/bedrock/account_checks.py",
    "backends/bedrock/removal_conflicts.py",
    *("infra/change_sets.py", "infra/ownership.py", "infra/leftovers.py"),
}
"""The modules that make commands of the AWS CLI. tests/e2e/test_remedies.py runs what they make."""


def test_every_module_that_makes_a_command_is_known_to_the_test_that_runs_it() -> None:
    root = Path(cloudft.__file__).parent
    found = {p for p in SOURCES if "aws.aws_cli import aws_cli_command" in p.read_text()}
    found.add(root / "aws" / "aws_cli.py")
    assert {path.relative_to(root).as_posix() for path in found} == WITH_COMMANDS


def options(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("-")]


@pytest.mark.parametrize("text", [t for t in quoted() if t.startswith("cloudft ")])
def test_a_command_of_ours_exists_with_its_options(text: str) -> None:
    words = shlex.split(text)[1:]
    depth = 2 if words[0] in GROUPS else 1
    found = find_command(tuple(words[:depth]))
    if "--help" in words:
        return
    # A command may be named without its job: one that is found alone needs none.
    named = click.Context(found, info_name=" ".join(words[:depth]), help_option_names=HELP_OPTIONS)
    found.make_parser(named).parse_args(list(words[depth:]))


@pytest.mark.parametrize("text", [t for t in quoted() if t.startswith("aws ")])
def test_a_command_of_the_aws_cli_exists_and_lacks_nothing(driver: Any, text: str) -> None:
    if text in OF_ITS_OWN:
        return
    whole(driver, shlex.split(text))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The AWS CLI. Its import changes AWS_DATA_PATH for the whole process: here that is undone."""
    monkeypatch.setenv("AWS_DATA_PATH", "")
    import awscli
    from awscli.clidriver import create_clidriver

    monkeypatch.setenv("AWS_DATA_PATH", str(Path(awscli.__file__).parent / "data"))
    return create_clidriver()


def whole(driver: Any, words: list[str]) -> None:
    """Raise AssertionError for a command that the AWS CLI does not know, or lacks a part of."""
    services = driver.create_help_command().command_table
    assert words[1] in services, words
    operations = services[words[1]].create_help_command().command_table
    assert words[2] in operations, words
    known = operations[words[2]].arg_table
    given = {word.lstrip("-") for word in options(words)}
    general = {"region", "profile", "endpoint-url", "output", "query"}
    assert given - general <= known.keys(), words
    needed = {name for name, one in known.items() if one.required and not one.positional_arg}
    assert needed <= given, f"{' '.join(words)} lacks {needed - given}"


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
    whole(driver, words)
    with pytest.raises(AssertionError, match="lacks"):
        whole(driver, ["aws", "ec2", "create-vpc-endpoint"])
