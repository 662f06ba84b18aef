"""The account page in a real browser: a look is explicit, and a removal is confirmed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import compared_jobs
import pytest
import yaml
from endpoint import Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli
from workbench_server import (
    SIZES,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

from cloudft.storage.home import Home
from cloudft.storage.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NO_CREDENTIALS = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere"} | {
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"
}
LISTING = "ListCustomModelDeployments"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


@pytest.fixture
def orphan(cli: Cli, aws: Endpoint, tmp_path: Path) -> str:
    """The id of a job that was deleted here: its model and data are in the account still."""
    aws.fault()
    # A job of the same text as an earlier test's would be found in the account, without its model.
    name = f"forgotten-{secrets.token_hex(3)}"
    path = write_job_file(
        tmp_path / "job", Path("nova-micro"), name=name, bedrock=aws.bedrock_section
    )
    spec = yaml.safe_load(path.read_text()) | {"hyperparameters": {"epochCount": 1}}
    path.write_text(yaml.safe_dump(spec))
    done = cli("submit", "--backend", "bedrock", path, "--wait", "-o", "json")
    assert done.returncode == 0, done.stderr
    job: str = json.loads(done.stdout)["id"]
    assert cli("delete", job, "--yes").returncode == 0
    return job


def make_tokens(home: Path, *names: str) -> list[Path]:
    folders = [home / "tokens" / name for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text("{}")
        (folder / "tokens.bin").write_bytes(b"0" * 2_000_000)
    return folders


def assert_readable(page: Page) -> None:
    """Assert that a page fits both sizes, and that axe finds nothing serious on it."""
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        assert not is_wider_than_window(page)
        assert serious_violations(page) == []


def test_unused_resources_are_shown_confirmed_and_removed(
    browser: Browser, aws: Endpoint, orphan: str, home: Path
) -> None:
    looks = len(aws.calls(LISTING))
    with running_workbench(home) as workbench, open_page(browser) as page:
        page.goto(f"{workbench.url}account")
        assert page.get_by_role("heading", name="Jobs and budgets").is_visible()
        assert len(aws.calls(LISTING)) == looks, "nothing is read before a person looks"
        page.click("text=Look at the account")
        page.wait_for_selector("#cloud table")
        assert len(aws.calls(LISTING)) > looks
        cloud = page.inner_text("#cloud")
        assert orphan in cloud and "custom-model" in cloud and "Could not look" not in cloud
        assert "1.95 USD" in cloud and "Looked at" in cloud
        assert not page.inner_text(".stats > div:has-text('Resources') dd").startswith("at least")
        assert_readable(page)
        page.click("text=Show and remove them")
        assert "can't be restored" in page.inner_text(".headline")
        assert orphan in page.inner_text("table")
        assert_readable(page)
        bedrock = aws.client("bedrock")
        assert bedrock.list_custom_models(nameContains=orphan)["modelSummaries"]
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.click("button.danger")
        assert page.url.endswith("/account/remove"), "a question that is denied removes nothing"
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("button.danger")
        page.wait_for_url("**/account?removal=*")
        assert f"custom-model {orphan}" in page.inner_text("[role=status].notice")
        assert bedrock.list_custom_models(nameContains=orphan)["modelSummaries"] == []
        page.goto(f"{workbench.url}account?look=1")
        assert "Nothing to remove" in page.inner_text("#cloud"), "also without a script"


def test_what_could_not_be_read_is_said_and_bounds_the_sum(
    browser: Browser, aws: Endpoint, orphan: str, home: Path
) -> None:
    aws.fault({"operation": "ListProvisionedModelThroughputs", "do": "deny", "times": 100})
    with running_workbench(home) as workbench, open_page(browser, dark=True) as page:
        page.goto(f"{workbench.url}account")
        page.click("text=Look at the account")
        page.wait_for_selector("#cloud table")
        cloud = page.inner_text("#cloud")
        assert "Could not look" in cloud and "provisioned throughputs" in cloud
        assert page.inner_text(".stats > div:has-text('Resources') dd").startswith("at least")
        assert orphan in cloud
        assert_readable(page)
    aws.fault()


def test_without_credentials_the_page_says_so_and_shows_what_is_here(
    browser: Browser, home: Path
) -> None:
    compared_jobs.make_job(
        home, "over-bbbbbbbb", spec={"budget_usd": 2}, estimate={"usd": {"training": 3.2}}
    )
    compared_jobs.make_job(home, "old-cccccccc", base_model="titan-text-lite")
    with running_workbench(home, environ=NO_CREDENTIALS) as workbench, open_page(browser) as page:
        page.goto(f"{workbench.url}account")
        row = page.inner_text("tr:has-text('over-bbbbbbbb')")
        assert "3.20 USD" in row and "2.00 USD" in row and "160 %" in row
        assert "end of life" in page.inner_text("tr:has-text('2025-08-15')")
        page.click("text=Look at the account")
        page.wait_for_selector("#cloud .notice")
        cloud = page.inner_text("#cloud")
        assert "Could not look" in cloud and "aws configure" in cloud and "is not known" in cloud
        assert "No resources" not in cloud and "0.00 USD" not in cloud
        assert_readable(page)


def test_unused_tokens_are_removed_after_a_confirmation_but_not_what_is_in_use_by_then(
    browser: Browser, home: Path
) -> None:
    unused, needed = make_tokens(home, "f00dfeed" * 4, "deadbeef" * 4)
    record = compared_jobs.make_job(home, "resumable-aaaaaaaa")
    with running_workbench(home, environ=NO_CREDENTIALS) as workbench, open_page(browser) as page:
        page.goto(f"{workbench.url}account")
        page.click("text=Show and remove them")
        shown = page.inner_text("main")
        assert unused.name in shown and needed.name in shown and "3.8 MiB" in shown
        assert_readable(page)
        (record.folder / "artifacts" / "training_artifacts").rename(record.folder / "no-artifacts")
        (record.folder / "tokens.json").write_text(json.dumps({"train": needed.name}))
        page.click("button.danger")
        page.wait_for_url("**/account?removal=*")
        outcome = page.inner_text("[role=status].notice")
        assert f"tokens {unused.name}" in outcome and f"confirmed: {needed.name}" in outcome
    assert needed.exists() and not unused.exists()
    assert Store(Home(home).jobs).job_ids() == [record.id]
