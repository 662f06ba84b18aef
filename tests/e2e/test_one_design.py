"""Report, comparison, review, endpoint and workbench in one browser: they share one design."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import sample_pages
from endpoint import TOKEN, running_endpoint
from model_results import make_model_result
from workbench_server import (
    SIZES,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

from cloudft.evaluate.human_review.review import Review, Reviewer
from cloudft.evaluate.human_review.review_server import ReviewServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

LOOK = """() => {
  const body = getComputedStyle(document.body);
  const heading = getComputedStyle(document.querySelector("h1"));
  const root = getComputedStyle(document.documentElement);
  const names = ["--ink", "--soft", "--page", "--line", "--tint", "--mark", "--good", "--round"];
  return { font: body.fontFamily, ink: body.color, page: body.backgroundColor,
    heading: heading.color, headingFont: heading.fontFamily, numbers: body.fontVariantNumeric,
    variables: names.map((name) => root.getPropertyValue(name).trim()) };
}"""
"""What pages that share a design have in common, as the browser computes it."""
REFRESH = '<meta http-equiv="refresh" content="3">'
RTL = f"{sample_pages.ARABIC} {sample_pages.MARKUP}"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of a page of each kind."""
    folder = tmp_path_factory.mktemp("design")
    found = {}
    for name, content in sample_pages.render_pages(folder, records=12).items():
        (folder / f"{name}.html").write_text(content)
        found[name] = (folder / f"{name}.html").as_uri()
    results = [make_model_result(name, f"{name} {RTL} ", 4, RTL) for name in ("first", "second")]
    (folder / "review").mkdir()
    review = Review(folder / "review", *results)
    review.save()
    with (
        ReviewServer(Reviewer(review, "ada")) as server,
        running_endpoint("--clock", "fast") as endpoint,
        running_workbench(folder / "home") as workbench,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _start_job(endpoint)
        yield found | {
            "review": server.url,
            "endpoint": f"{endpoint.url}/?token={TOKEN}",
            "workbench": f"{workbench.url}account",
        }
        server.shutdown()


def _start_job(endpoint: Any) -> None:
    """Create a job on the endpoint, so that its page has rows."""
    body = b"".join(b'{"prompt": "Where is it?", "completion": "Here."}\n' for _ in range(20))
    endpoint.client("s3").put_object(Bucket="training-bucket", Key="t.jsonl", Body=body)
    endpoint.client("bedrock").create_model_customization_job(
        jobName="a-job-with-a-name-that-is-rather-long-for-a-phone",
        customModelName="tuned",
        roleArn=endpoint.bedrock_section["role_arn"],
        baseModelIdentifier="amazon.titan-text-express-v1:0:8k",
        trainingDataConfig={"s3Uri": "s3://training-bucket/t.jsonl"},
        outputDataConfig={"s3Uri": "s3://training-bucket/out"},
    )


def _without_refresh(route: Route) -> None:
    """Send a page that stays: axe takes longer than a status page does."""
    response = route.fetch()
    route.fulfill(response=response, body=response.text().replace(REFRESH, ""))


def _open(page: Page, address: str) -> None:
    page.route("**/*token=*", _without_refresh)
    page.goto(address)
    page.locator("h1").wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_pages_look_alike_fit_and_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, addresses: dict[str, str], dark: bool
) -> None:
    looks: dict[str, Any] = {}
    faults: list[str] = []
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        for name, address in addresses.items():
            looks[name], found = _examine(browser, address, dark=dark)
            faults += [f"{name}: {fault}" for fault in found]
    assert faults == []
    first = looks["report"]
    assert "system-ui" in first["font"] and first["numbers"] == "tabular-nums"
    assert first["page"] == ("rgb(14, 17, 22)" if dark else "rgb(255, 255, 255)")
    assert all(first["variables"])
    assert {name: look for name, look in looks.items() if look != first} == {}


def _examine(browser: Browser, address: str, *, dark: bool) -> tuple[Any, list[str]]:
    """Return how a page looks, and what is wrong with it at either size."""
    faults = []
    with open_page(browser, dark=dark) as page:
        _open(page, address)
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            if is_wider_than_window(page):
                faults.append(f"{size}: it is scrolled sideways")
        # In light, contrast is a matter of few colors, which a unit test computes.
        if dark or "token=" in address:
            faults += serious_violations(page)
        return page.evaluate(LOOK), faults
