"""People label and review in a real browser: by keyboard, two at once, with texts of all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from label_projects import LABELS, event, make_project, suggest, tickets
from model_results import make_model_result
from sample_pages import ARABIC, MARKUP
from workbench_server import (
    SIZES,
    RunningWorkbench,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

from cloudft.evaluate.human_review.review import Review
from cloudft.labeling.project import LabelProject, open_project

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LONG = "x<b>y</b> and " * 7200
TEXTS = (f"{MARKUP} please", f"{ARABIC} please", LONG, "plain text")
LOOKS = [(size, dark) for size in sorted(SIZES) for dark in (False, True)]
READY = "#labels kbd:not(:empty)"
MEASURE_KEY = """(key) => {
  const before = document.querySelector("#turns").textContent;
  const start = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const changed = document.querySelector("#turns").textContent !== before;
  return { changed, took: performance.now() - start };
}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with projects of each kind, and a review."""
    home = tmp_path_factory.mktemp("home")
    project = make_project(home, tickets(60, ""), overlap_share=0.4, random_share=0.1)
    keys = project.records.keys
    project.save_suggestions([suggest(project, key, 0.2, 0.5, 0.3, base="billing") for key in keys])
    hostile = [{"prompt": text, "completion": f"A {text}"} for text in TEXTS]
    make_project(home, hostile, "hostile", kind="check", overlap_share=1.0)
    make_project(home, hostile, "hostile-labels", labels=(*TEXTS[:2], "short"), overlap_share=1.0)
    make_project(home, tickets(8), "many", labels=tuple(f"team {n}" for n in range(60)))
    for name in ("first", "second"):
        review = Review(
            home / "reviews",
            make_model_result("base", "a ", 6, f"{MARKUP} {{}} {name}"),
            make_model_result("tuned", "b ", 6, f"{MARKUP} {{}} {name}"),
        )
        review.save()
    return home


@pytest.fixture(scope="module")
def workbench(home: Path) -> Iterator[RunningWorkbench]:
    with running_workbench(home) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def project_of(home: Path, name: str) -> LabelProject:
    return open_project(home / "labels", name)


def saved(page: Page) -> None:
    """Wait until every key is saved."""
    page.wait_for_selector("#state:text-is('saved')")


def text_of(page: Page) -> str:
    return page.locator("#turns .user .text").inner_text()


def test_two_people_label_at_once_by_keyboard(
    workbench: RunningWorkbench, browser: Browser, home: Path
) -> None:
    with open_page(browser) as ada, open_page(browser) as bob:
        for page, name in ((ada, "ada"), (bob, "bob")):
            page.goto(f"{workbench.url}label/tickets")
            page.fill("form[action$='/work'] input[name=person]", name)
            page.press("form[action$='/work'] input[name=person]", "Enter")
            page.wait_for_selector(READY)
        for key in "1231":
            ada.keyboard.press(key)
            bob.keyboard.press("2")
        assert ada.locator("#why").inner_text()
        while "random" in ada.locator("#why").inner_text():
            ada.keyboard.press("3")
        accepted = text_of(ada)
        ada.keyboard.press("Enter")
        bob.keyboard.press("x")
        skipped = text_of(bob)
        bob.keyboard.press("s")
        assert text_of(bob) != skipped
        bob.keyboard.press("u")
        assert text_of(bob) == skipped
        saved(ada), saved(bob)
        measured = ada.evaluate(MEASURE_KEY, "1")
        assert measured["changed"] and measured["took"] < 100
        saved(ada)
        ada.reload()
        ada.wait_for_selector(READY)
        shown = text_of(ada)
        ada.keyboard.press("u")  # of a page that has no history
        ada.wait_for_selector("#state:text-is('saved')")
        assert text_of(ada) != shown
        ada.goto(f"{workbench.url}label/tickets")
        assert "bob" in ada.inner_text("main")
    project = project_of(home, "tickets")
    people = {name: labels.decided for name, labels in project.people().items()}
    assert [one.label for one in people["ada"].values()][:4] == [LABELS[n] for n in (0, 1, 2, 0)]
    by_text = {project.records.get(key).text: one for key, one in people["ada"].items()}
    assert by_text[accepted].label == by_text[accepted].suggestion == "delivery"
    assert not by_text[accepted].is_blind and by_text[accepted].confidence == 0.5
    assert [one.action for one in people["bob"].values()].count("reject") == 1
    assert skipped not in {project.records.get(key).text for key in people["bob"]}
    assert all(0 < one.seconds < 60 for labels in people.values() for one in labels.values())
    from cloudft.labeling.order import is_shared

    both = set(people["ada"]) & set(people["bob"])
    assert all(is_shared(project.settings, key) for key in both)


def test_many_labels_are_searched(
    workbench: RunningWorkbench, browser: Browser, home: Path
) -> None:
    with open_page(browser) as page:
        page.goto(f"{workbench.url}label/many/work?person=ada")
        page.wait_for_selector(READY)
        assert page.locator("#search-row").is_visible()
        page.keyboard.press("/")
        page.keyboard.type("team 57")
        assert page.locator("#labels button:visible").count() == 1
        page.keyboard.press("Enter")
        saved(page)
        page.keyboard.press("?")
        assert page.locator("#keys").is_visible()
        page.keyboard.press("1")  # labels nothing while the keys are shown
        page.keyboard.press("Escape")
        page.keyboard.press("a")
        saved(page)
    decided = project_of(home, "many").labels_of("ada").decided
    assert [one.label for one in decided.values()] == ["team 57", "team 9"]


@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_every_page_is_readable_with_any_text(
    workbench: RunningWorkbench, browser: Browser, home: Path, size: str, dark: bool
) -> None:
    split = project_of(home, "hostile-labels")
    for person, label in (("eve", TEXTS[0]), ("mallory", TEXTS[1])):
        split.save_event(person, event(split.records.keys[0], label))
    person = f"{size}-{dark}"
    with open_page(browser, size=size, dark=dark) as page:
        for path in ("label", "label/tickets", "label/hostile-labels", "review"):
            page.goto(workbench.url + path)
            assert serious_violations(page) == [] and not is_wider_than_window(page), path
        for name in ("hostile", "hostile-labels"):
            page.goto(f"{workbench.url}label/{name}/work?person={person}")
            for number in range(len(TEXTS)):
                page.wait_for_selector("#record:not([hidden])")
                more = page.locator("#turns button.more")
                if more.count():
                    assert "100,8" in more.inner_text()
                    more.click()
                assert page.locator("#turns .text").text_content() in TEXTS
                assert page.locator("#turns b").count() == 0
                assert not is_wider_than_window(page)
                assert number or serious_violations(page) == []
                page.keyboard.press("Enter" if name == "hostile" else "3")
            page.wait_for_selector("#end:not([hidden])")
            saved(page)
        page.goto(f"{workbench.url}review")
        page.locator("table a").first.click()
        page.fill("input[name=reviewer]", person)
        page.press("input[name=reviewer]", "Enter")
        page.wait_for_selector("#left-text")
        assert MARKUP in (page.locator("#prompt").text_content() or "")
        assert serious_violations(page) == [] and not is_wider_than_window(page)
    labels = project_of(home, "hostile").labels_of(person).decided
    assert {one.label for one in labels.values()} == {f"A {text}" for text in TEXTS}


def test_an_answer_is_edited(browser: Browser, tmp_path: Path) -> None:
    make_project(tmp_path, [{"prompt": "q", "completion": "wrong"}], "edit", kind="check")
    with running_workbench(tmp_path) as workbench, open_page(browser) as page:
        page.goto(f"{workbench.url}label/edit/work?person=ada")
        page.wait_for_selector("#record:not([hidden])")
        page.keyboard.press("e")
        page.keyboard.press("Control+a")
        page.keyboard.type("right? yes, s x u 1")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#end:not([hidden])")
        saved(page)
        page.goto(f"{workbench.url}label/edit")
        out = tmp_path / "out.jsonl"
        page.fill("input[name=out]", str(out))
        page.click("form[action$='/export'] button")
        assert "1 records" in page.inner_text("[role=status]")
    assert '"right? yes, s x u 1"' in out.read_text()


def test_a_record_is_labeled_without_a_script(browser: Browser, tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(3, ""))
    with running_workbench(tmp_path) as workbench:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{workbench.url}label/tickets/work?person=ada")
        page.click("#labels button >> nth=1")
        page.click("#skip")
        page.click("#undo")
        page.click("#reject")
        context.close()
    decided = project.labels_of("ada").decided
    assert sorted(one.action for one in decided.values()) == ["label", "reject"]
    assert [one.label for one in decided.values() if one.label] == [LABELS[1]]


def test_a_killed_workbench_loses_no_saved_label(browser: Browser, tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(20, ""))
    context = browser.new_context()
    page = context.new_page()
    with running_workbench(tmp_path) as workbench:
        page.goto(f"{workbench.url}label/tickets/work?person=ada")
        page.wait_for_selector(READY)
        labeled = set()
        for _ in range(5):
            labeled.add(text_of(page))
            page.keyboard.press("1")
            page.wait_for_timeout(30)
        saved(page)
        workbench.process.kill()
        workbench.process.wait()
        page.keyboard.press("2")
        page.wait_for_selector("#error:not([hidden])")
        assert "1 not saved yet" in page.inner_text("#error")
        assert page.inner_text("#state") == "not saved"
    assert len(project.labels_of("ada").decided) == 5
    with running_workbench(tmp_path) as workbench:
        again = context.new_page()
        again.goto(f"{workbench.url}label/tickets/work?person=ada")
        again.wait_for_selector(READY)
        assert len(labeled) == 5 and text_of(again) not in labeled
        assert "5 labeled, 15 left" in again.inner_text("#count")
        again.keyboard.press("1")
        saved(again)
    context.close()
    assert len(project.labels_of("ada").decided) == 6


def test_two_reviewers_judge_at_once_and_see_no_winner(
    workbench: RunningWorkbench, browser: Browser, home: Path
) -> None:
    with open_page(browser) as ada, open_page(browser) as bob:
        for page, name in ((ada, "ada"), (bob, "bob")):
            page.goto(f"{workbench.url}review")
            page.locator("table a").last.click()
            review_id = page.url.rpartition("/")[2]
            page.fill("input[name=reviewer]", name)
            page.press("input[name=reviewer]", "Enter")
            page.wait_for_selector("#left-text")
            assert "tuned" not in page.content() and "base" not in page.inner_text("main")
        for number in range(6):
            for page in (ada, bob):
                tuned_is_left = page.inner_text("#left-text").startswith("b")
                page.keyboard.press("ArrowLeft" if tuned_is_left else "ArrowRight")
                count = f"{number + 1} of 6"
                page.wait_for_selector(f"#count:text-is('{count}')")
        bob.click("#again")
        bob.wait_for_selector("#left-text:visible")
        bob.keyboard.press("n")
        bob.keyboard.type("not b, but a tie")
        bob.keyboard.press("Escape")
        bob.keyboard.press("t")
        bob.wait_for_selector("#end:not([hidden])")
        ada.goto(f"{workbench.url}review/{review_id}")
        assert "wins" not in ada.inner_text("main").replace("Show who wins", "")
        ada.click("text=Show who wins")
        assert "tuned wins 100 % of 6 decided" in ada.inner_text("main")
        assert serious_violations(ada) == []
    judgments = Review.load(home / "reviews" / review_id).load_judgments()
    assert {name: len(by_record) for name, by_record in judgments.items() if name in ("ada", "bob")}
    assert [one.note for one in judgments["bob"].values() if one.note] == ["not b, but a tie"]
