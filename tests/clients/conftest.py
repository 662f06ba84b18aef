"""An endpoint with a tiny model for every client, what boto3 gets from it, and a `cloudft serve`.

The clients have an environment of their own; endpoint and server run by `CLOUDFT_PYTHON`, a Python
that has cloudft (`make test-clients` sets it).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # served_jobs.py
CLOUDFT_PYTHON = os.environ.get("CLOUDFT_PYTHON", str(TESTS.parent / ".venv" / "bin" / "python"))
REGION = "us-east-1"
NOVA = "us.amazon.nova-lite-v1:0"
CLAUDE = "us.anthropic.claude-3-haiku-20240307-v1:0"
ROLE = "arn:aws:iam::000000000000:role/any"
PROMPT = "Where is the parcel?"
MAX_TOKENS = 8
TOKEN = "token-of-the-tests"
ROOM = 800
"""Tokens for an answer of the random model that keeps a schema, with all white space of JSON."""
SETTINGS = ("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8")
BUILD_MODEL = "import sys, tiny, pathlib; tiny.build_model(pathlib.Path(sys.argv[1]))"
BUILD_TOOLS_MODEL = """import sys, chat_templates, tiny, pathlib
tiny.build_model(pathlib.Path(sys.argv[1]), chat_template=chat_templates.QWEN25, context=1536)"""

# Before the clients are imported: nothing of the caller's account, folders or settings is used.
for name in list(os.environ):
    if name.startswith(("AWS_", "AIRFLOW_", "ANTHROPIC_", "OPENAI_", "LITELLM_", "LANGSMITH_")):
        del os.environ[name]
_home = tempfile.TemporaryDirectory(prefix="clients-")
os.environ.update(
    HOME=_home.name,
    AIRFLOW_HOME=_home.name,
    AWS_ACCESS_KEY_ID="any",
    AWS_SECRET_ACCESS_KEY="any",
    AWS_DEFAULT_REGION=REGION,
    AWS_REGION=REGION,
    LITELLM_LOCAL_MODEL_COST_MAP="True",  # its list of prices is else loaded from GitHub
)


@dataclass(frozen=True)
class Expected:
    """What boto3's Converse answers to PROMPT: every client must get the same."""

    text: str
    input_tokens: int
    output_tokens: int


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model: random weights, so that an answer is a text that no one would make up."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    command = [CLOUDFT_PYTHON, "-c", BUILD_MODEL, folder]
    subprocess.run(command, cwd=TESTS, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def tools_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint whose stand-in has a chat template with tools. It answers until its limit."""
    folder = tmp_path_factory.mktemp("tools")
    command = [CLOUDFT_PYTHON, "-c", BUILD_TOOLS_MODEL, folder / "model"]
    subprocess.run(command, cwd=TESTS, check=True, capture_output=True)
    with running_endpoint(folder, folder / "model") as found:
        yield found


@contextlib.contextmanager
def running_endpoint(folder: Path, model_folder: Path, *more: str) -> Iterator[str]:
    """Run an endpoint; yield its address."""
    errors = folder / "errors"
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [CLOUDFT_PYTHON, "-m", "cloudft", "endpoint", "-q", "--until-pid", str(os.getpid())]
    own = {
        "CLOUDFT_HOME": str(folder / "home"),
        "CLOUDFT_MODEL_CACHE": str(folder / "models"),
        "CLOUDFT_ENDPOINT_TOKEN": TOKEN,
    }
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--stand-in", model_folder, *options, *more],
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        found = process.stdout.readline().strip()
        assert found, errors.read_text()
        yield found
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[str]:
    """Start the endpoint, and set its address for every client that reads AWS_ENDPOINT_URL."""
    with running_endpoint(tmp_path_factory.mktemp("endpoint"), model_folder) as found:
        os.environ["AWS_ENDPOINT_URL"] = found
        connection = {"region_name": REGION, "endpoint_url": found}
        os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(
            {"conn_type": "aws", "login": "any", "password": "any", "extra": connection}
        )
        yield found


@pytest.fixture
def break_streams(url: str) -> Any:
    """Return a function that makes the next stream of an operation end with an error."""

    def break_next(operation: str) -> None:
        faults = [{"operation": operation, "do": "break", "message": "It broke."}]
        request = urllib.request.Request(f"{url}/_cloudft/faults", json.dumps(faults).encode())
        request.add_header("Authorization", f"Bearer {TOKEN}")
        urllib.request.urlopen(request).close()

    return break_next


@pytest.fixture(scope="session")
def boto(url: str) -> Any:
    """Return a function that makes boto3's client of a service."""
    import boto3

    return boto3.client


@pytest.fixture(scope="session")
def expected(boto: Any) -> Expected:
    answer = boto("bedrock-runtime").converse(
        modelId=NOVA,
        messages=[{"role": "user", "content": [{"text": PROMPT}]}],
        inferenceConfig={"maxTokens": MAX_TOKENS},
    )
    text = answer["output"]["message"]["content"][0]["text"]
    assert text.strip()
    return Expected(text, answer["usage"]["inputTokens"], answer["usage"]["outputTokens"])


@dataclass(frozen=True)
class Served:
    """A `cloudft serve` of two jobs, a tool, and what OpenAI's client gets from the `router`."""

    url: str
    tool: dict[str, Any]
    answer: str
    tokens: int


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Train two tiny jobs, and serve them with their base."""
    import openai
    from served_jobs import CALLER, ROUTER, TOOL, question, running_server

    folder = tmp_path_factory.mktemp("served")
    train = [CLOUDFT_PYTHON, TESTS / "served_jobs.py", folder]
    subprocess.run(train, cwd=TESTS, check=True, capture_output=True)
    with running_server(folder / "home", CALLER, ROUTER, python=[CLOUDFT_PYTHON]) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
        answer = client.chat.completions.create(
            model=ROUTER, messages=[question("Oslo")], max_tokens=80
        )
        text = answer.choices[0].message.content
        assert text and answer.usage is not None
        yield Served(server.url, TOOL, text, answer.usage.completion_tokens)


def pytest_report_header() -> str:
    return f"clients: {sys.prefix}; cloudft: {CLOUDFT_PYTHON}"
