"""The command line itself: help by section, AWS options where AWS is called, renamed flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cli_commands import COMMAND_PATHS, GROUPS, find_command
from click.testing import CliRunner

from cloudft.cli.command import AwsOption, RenamedOption
from cloudft.cli.main import SECTIONS, cloudft
from cloudft.errors import UsageError

LOCAL = {"init", "schema", "completion", "endpoint", "label", "serve"}
"""Commands that never call AWS, besides those that only read data."""
READERS = {"data", "grader"}
"""Groups of commands that call AWS only to read `s3://` paths."""
RENAMED = {"--force-new": "--again", "--via-state-machine": "--via-stack"}


def help_page(*words: str) -> str:
    """Return the help page of a command."""
    done = CliRunner().invoke(cloudft, [*words, "--help"], prog_name="cloudft")
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands_are_in_sections_that_begin_with_the_start() -> None:
    page = help_page()
    places = [page.index(f"\n{title}:\n") for title in SECTIONS]
    assert places == sorted(places) and next(iter(SECTIONS)) == "Start"
    assert page.index("init") < page.index("submit") < page.index("deploy")


@pytest.mark.parametrize("words", COMMAND_PATHS, ids=" ".join)
def test_every_option_has_a_help_text(words: tuple[str, ...]) -> None:
    options = [p for p in find_command(words).params if isinstance(p, click.Option)]
    assert [p.name for p in options if not p.hidden and not p.help] == []


@pytest.mark.parametrize("words", COMMAND_PATHS, ids=" ".join)
def test_the_options_of_aws_are_shown_where_aws_is_called(words: tuple[str, ...]) -> None:
    page = help_page(*words)
    is_local = words[0] in LOCAL | READERS or words == ("infra", "synth")
    assert ("AWS options:" in page) != is_local
    assert ("--profile" in page) != is_local
    options = [p for p in find_command(words).params if isinstance(p, AwsOption)]
    assert len(options) == (0 if is_local and words[0] not in READERS else 3)


def renamed_options() -> Iterator[tuple[tuple[str, ...], RenamedOption]]:
    """Yield every option that has an earlier spelling, with its command."""
    for words in COMMAND_PATHS:
        for param in find_command(words).params:
            if isinstance(param, RenamedOption):
                yield words, param


@pytest.mark.parametrize(("words", "option"), list(renamed_options()), ids=str)
def test_an_old_spelling_is_taken_and_not_shown(
    words: tuple[str, ...], option: RenamedOption
) -> None:
    [name], [old] = option.opts, option.old_names
    assert RENAMED[name] == old
    page = help_page(*words)
    assert name in page and old not in page
    command = find_command(words)
    parser = command.make_parser(click.Context(command))
    for spelling in (name, old):
        values, _, _ = parser.parse_args(["JOB", spelling])
        assert values[option.name or ""] is True


def test_submit_takes_then_import_for_import() -> None:
    for words in (["--import"], ["--then", "import"]):
        done = CliRunner().invoke(cloudft, ["submit", *words])
        assert "--import needs --wait" in done.output
    assert "--then" not in help_page("submit")


WORDS = re.compile(
    r"\b(twins?|stranger|anew|mended|stands|told|asked|whoever|its end|made elsewhere)\b"
)


@pytest.mark.parametrize("words", [(), *[(g,) for g in GROUPS], *COMMAND_PATHS], ids=" ".join)
def test_help_uses_no_word_of_our_own(words: tuple[str, ...]) -> None:
    assert WORDS.findall(help_page(*words)) == []


def test_a_new_folder_is_needed_for_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudft.cli.commands.download import _new_folder
    from cloudft.errors import UsageError

    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir(), empty.mkdir()
    (full / "kept").touch()
    with pytest.raises(UsageError, match="not an empty folder"), _new_folder(full):
        pass
    with _new_folder(empty) as copy:
        copy.mkdir()
        (copy / "model").touch()
    assert [path.name for path in empty.iterdir()] == ["model"]
    with pytest.raises(KeyboardInterrupt), _new_folder(tmp_path / "new" / "one") as copy:
        copy.mkdir()
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == [], "nothing half written is left"


@pytest.mark.parametrize(
    "option", [["--requests", "5"], ["--input-tokens", "5"], ["--months", "1"], ["--plot", "a.png"]]
)
def test_an_option_of_the_comparison_is_refused_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 8)
    (tmp_path / "cloudft.yaml").write_text(
        "name: own\nbase_model: nova-lite\ndata: {train: train.jsonl}\n"
    )
    with pytest.raises(UsageError, match=f"{option[0]} needs --compare") as caught:
        cloudft.main(["estimate", *option], standalone_mode=False)
    assert caught.value.exit_code == 2 and caught.value.fix == "add --compare."
