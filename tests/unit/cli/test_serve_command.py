"""The command line of `serve`: its options, and the line about vLLM."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_commands import make_context
from click.testing import CliRunner

from cloudft.cli.commands.serve import _example, _key_header
from cloudft.cli.main import cloudft
from local_backend.export.runtimes import RUNTIMES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "serve-locally.md"


def vllm_lines() -> list[list[str]]:
    """Return the words of the two commands that the help names for more load."""
    page = CliRunner().invoke(cloudft, ["serve", "--help"], prog_name="cloudft").output
    tail = page.partition("vLLM serves the export:\n")[2]
    return [shlex.split(line) for line in tail.splitlines()[:2]]


def test_the_help_exports_for_vllm_and_serves_that_folder_by_the_job_s_name() -> None:
    export, serve = vllm_lines()
    assert export[:2] == ["cloudft", "export"] and export[-2:] == ["--for", "vllm"]
    with make_context(("export",), export[2:]):
        pass
    job, folder = export[2:4]
    command = RUNTIMES["vllm"].commands["merged"].replace("DIR", folder)
    command = command.replace("{dtype}", "float32")  # an export's, if nothing else is said
    assert shlex.join(serve) == f"{command} --served-model-name {job}"
    for line in (export, serve):
        assert f"$ {shlex.join(line)}\n" in PAGE.read_text()


def test_vllm_has_that_option_where_it_is_installed() -> None:
    vllm = shutil.which("vllm")
    if vllm is None:
        pytest.skip("vllm is not installed")
    _, serve = vllm_lines()
    option = next(word for word in serve if word.startswith("--served"))
    done = subprocess.run(
        [vllm, "serve", f"--help={option.removeprefix('--')}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert re.search(rf"^\s*{option}\b", done.stdout, re.MULTILINE), done.stderr[-500:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "there is no key"),
        (["--host", "not a host"], "there is no key"),
        (["--api-key-file", "none"], "can't be read"),
        ([], "there is no job"),
        (["--max-batch", "0"], "Invalid value for '--max-batch'"),
        (["--dtype", "int8"], "Invalid value for '--dtype'"),
    ],
    ids=str,
)
def test_what_can_not_be_served_is_refused_before_anything_is_loaded(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llguidance")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cloudft, ["serve", "no-such-job", *options])
    shown = done.output if done.exception is None else f"{done.output}{done.exception}"
    assert message in shown and done.exit_code != 0


def test_the_request_to_copy_sends_the_key_and_does_not_show_it() -> None:
    assert _key_header(None, None) == ""
    assert _key_header("s3cret", None) == ' -H "Authorization: Bearer $CLOUDFT_SERVE_API_KEY"'
    header = _key_header("s3cret", Path("my keys.txt"))
    assert header == """ -H "Authorization: Bearer $(cat 'my keys.txt')\""""
    shown = _example("http://127.0.0.1:1", ["router", "base"], header)
    _, command = shown.split("\n", 1)
    words = shlex.split(command)
    assert json.loads(words[-1])["model"] == "router" and words[0] == "curl"
