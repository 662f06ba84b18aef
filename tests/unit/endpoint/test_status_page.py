"""The status page: escaped, styled under its own Content-Security-Policy, curves where known."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from pathlib import Path

import pytest

from cloudft.endpoint import status_page
from cloudft.endpoint.call_log import CallLog
from cloudft.endpoint.protocols.messages import OperationCall
from cloudft.endpoint.state import Job, State


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    losses = {"job-1": [2.0, 1.0, 0.5], "job-2": [2.0]}
    monkeypatch.setattr(status_page, "_read_losses", lambda folder: losses[folder.name])
    state, call_log = State("us-east-1"), CallLog()
    for name, local in (("a<b>&'\"", "job-1"), ("one-point", "job-2"), ("not-trained", None)):
        job = Job(f"arn:{name}", {"jobName": name}, "arn:x/nova", local=local)
        state.jobs[job.arn] = job
    state.jobs["arn:one-point"].failure = "<i>why</i>"
    call_log.record(OperationCall("bedrock", "ListCustomModels", {}))
    return status_page.render_page(state, tmp_path, call_log).decode()


def test_texts_of_users_are_escaped(page: str) -> None:
    assert "a&lt;b&gt;&amp;&#39;&#34;" in page and "&lt;i&gt;why&lt;/i&gt;" in page
    assert "a<b>" not in page and "<i>" not in page


def test_the_policy_allows_the_style_that_the_page_has(page: str) -> None:
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = hashlib.sha256(style[1].encode()).digest()
    assert status_page.style_hash() == f"sha256-{b64encode(digest).decode()}"
    assert "<script" not in page and "style=" not in page


def test_a_curve_needs_two_points_and_other_tables_say_none(page: str) -> None:
    assert page.count("<polyline") == 1 and page.count("none yet") == 2
    assert 'points="0.0,2.0 75.0,19.0 150.0,27.5"' in page and "loss from 2.00 to 0.50" in page
    assert page.count('<p class="soft">none</p>') == 2 and "ListCustomModels" in page
