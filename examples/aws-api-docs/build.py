"""Build domain text from the documentation strings in the PyPI package `botocore`.

Contract: writes `train.jsonl` and `validation.jsonl` ({"text"}, a paragraph to a page each). A
page describes one operation or one structure of an API, and each of these is on one side alone;
a paragraph that nearly repeats an earlier one is dropped everywhere. Running the script twice
gives the same bytes.

Source: `botocore/data/SERVICE/VERSION/service-2.json.gz` (Apache-2.0, Amazon.com), HTML removed.

    pip install botocore==1.44.5
    python examples/aws-api-docs/build.py
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from typing import Any

import botocore.session

PACKAGE, VERSION = "botocore", "1.44.5"
SEED = 7
SERVICES = (
    "bedrock",
    "bedrock-runtime",
    "bedrock-agent",
    "bedrock-agent-runtime",
    "bedrock-agentcore-control",
)
TRAIN_CHARACTERS, VALIDATION_CHARACTERS = 280_000, 37_500  # about 60,000 and 8,000 tokens
MAX_PAGE, MIN_PAGE, MIN_PARAGRAPH = 1_800, 250, 30  # characters
SAME = 0.6  # share of the shorter paragraph's word triples that the other one also has

BLOCK_TAGS = {
    *("p", "li", "ul", "ol", "note", "important", "caution", "dl", "dt", "dd", "pre", "br"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "tr", "td", "th", "div", "fullname"),
}
POINTER = re.compile(
    r"\b(for (more )?(information|details|examples?|troubleshooting|guidance|a list)|to learn more"
    r"|learn more|for example code|for an example|see the|see also)\b.*",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
LABEL = re.compile(r"^- [\w -]{1,40}$")
SCRAP = re.compile(
    r"^(- )?\S+( \S+)? (request|response)( body| object)?$|used in the following|\S@\S+\.\w"
)


class TextOf(HTMLParser):
    """Collects the paragraphs of an HTML fragment; a list's entries begin with a dash."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self.mark = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a new paragraph at a block tag."""
        if tag in BLOCK_TAGS:
            self.mark = "- " if tag == "li" else self.mark if not self._open() else ""
            self._begin()

    def handle_endtag(self, tag: str) -> None:
        """End the paragraph at a block tag."""
        if tag in BLOCK_TAGS:
            self._begin()

    def handle_data(self, data: str) -> None:
        """Add text to the paragraph."""
        if not self.paragraphs:
            self._begin()
        if data.strip() and not self._open():
            self.paragraphs[-1], self.mark = self.mark, ""
        self.paragraphs[-1] += data

    def _begin(self) -> None:
        if not self.paragraphs or self._open():
            self.paragraphs.append("")

    def _open(self) -> bool:
        return bool(self.paragraphs and self.paragraphs[-1].strip())


@dataclass(frozen=True)
class Page:
    """The text about one operation or structure: a title and its paragraphs."""

    title: str
    paragraphs: tuple[str, ...]

    def records(self) -> Iterator[dict[str, str]]:
        """Yield the page in parts of `MAX_PAGE` characters at most, each with the title."""
        part: list[str] = []
        for paragraph in self.paragraphs:
            if part and len("\n\n".join([*part, paragraph])) > MAX_PAGE:
                yield self._record(part)
                part = []
            part.append(paragraph)
        if part:
            yield self._record(part)

    def _record(self, part: list[str]) -> dict[str, str]:
        return {"text": "\n\n".join([self.title, *part])}

    def size(self) -> int:
        """Return the page's length in characters."""
        return sum(len(r["text"]) for r in self.records())


def paragraphs_of(html: str) -> list[str]:
    """Return the plain paragraphs of a documentation string, without pointers elsewhere."""
    parser = TextOf()
    parser.feed(html)
    parser.close()
    plain = (" ".join(p.split()) for p in parser.paragraphs)
    texts = with_labels([p for p in map(without_pointers, plain) if p.strip("- ")])
    kept = [p for p in texts if not SCRAP.search(p)]
    return [p for p, after in zip(kept, [*kept, ""][1:], strict=True) if not is_stump(p, after)]


def with_labels(paragraphs: list[str]) -> list[str]:
    """Return the paragraphs, a list entry that is a mere label joined to the text after it."""
    joined: list[str] = []
    for paragraph in paragraphs:
        label = joined[-1] if joined else ""
        if LABEL.match(label) and not paragraph.startswith("- "):
            joined[-1] = f"{label}: {paragraph}"
        else:
            joined.append(paragraph)
    return joined


def is_stump(paragraph: str, after: str) -> bool:
    """Return whether the paragraph announces a list that is not there."""
    return paragraph.endswith(":") and not after.startswith("- ")


def without_pointers(paragraph: str) -> str:
    """Return the paragraph without the sentences that only point to another page."""
    sentences = SENTENCE_END.split(paragraph)
    text = " ".join(s for s in sentences if not POINTER.search(s))
    return re.sub(r"\s+([.,;:])", r"\1", text).strip()


def load_service(service: str) -> dict[str, Any]:
    """Return the service's API description; refuse another version than the pinned one."""
    found = metadata.version(PACKAGE)
    if found != VERSION:
        raise SystemExit(f"{PACKAGE} {found} is installed, this data comes from {VERSION}")
    loader = botocore.session.get_session().get_component("data_loader")
    return loader.load_service_model(service, "service-2")


def members_of(shape: dict[str, Any]) -> Iterator[str]:
    """Yield "name (required): text" and further paragraphs for a structure's members."""
    for name, member in shape.get("members", {}).items():
        found = paragraphs_of(member.get("documentation", ""))
        if found:
            required = " (required)" if name in shape.get("required", ()) else ""
            yield f"{name}{required}: {found[0]}"
            yield from found[1:]


def pages_of(service: str) -> Iterator[Page]:
    """Yield one page for each operation (with its request and response) and each structure."""
    model = load_service(service)
    shapes, used = model["shapes"], set()
    name = model["metadata"].get("serviceId", service)
    for operation, about in sorted(model["operations"].items()):
        parts = paragraphs_of(about.get("documentation", ""))
        for side in ("input", "output"):
            if side in about:
                used.add(about[side]["shape"])
                parts += members_of(shapes[about[side]["shape"]])
        yield Page(f"{name} API: {operation}", tuple(parts))
    for shape, about in sorted(shapes.items()):
        if shape not in used and about["type"] == "structure" and not about.get("exception"):
            parts = [*paragraphs_of(about.get("documentation", "")), *members_of(about)]
            yield Page(f"{name} type: {shape}", tuple(parts))


def triples(paragraph: str) -> frozenset[tuple[str, ...]]:
    """Return the paragraph's word triples, without the member's name before the colon."""
    text = re.sub(r"^\w+( \(required\))?: ", "", paragraph)
    words = re.findall(r"[a-z0-9]+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


class Seen:
    """The paragraphs so far, to find near repetitions."""

    def __init__(self) -> None:
        self.marks: list[frozenset[tuple[str, ...]]] = []
        self.places: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def is_new(self, paragraph: str) -> bool:
        """Return whether no earlier paragraph is nearly the same, and remember this one if so."""
        mark = triples(paragraph)
        shared = Counter(i for t in mark for i in self.places.get(t, ()))
        if any(n >= SAME * min(len(mark), len(self.marks[i])) for i, n in shared.items()):
            return False
        for triple in mark:
            self.places[triple].append(len(self.marks))
        self.marks.append(mark)
        return True


def without_repetitions(pages: Iterable[Page]) -> Iterator[Page]:
    """Yield the pages without near repetitions and scraps; pages that are then short go."""
    seen = Seen()
    for page in pages:
        long_enough = [p for p in page.paragraphs if len(p) >= MIN_PARAGRAPH]
        page = Page(page.title, tuple(p for p in long_enough if seen.is_new(p)))
        if page.paragraphs and page.size() >= MIN_PAGE:
            yield page


def take(pages: list[Page], characters: int) -> list[Page]:
    """Return pages from the front of the list until they hold that many characters."""
    taken: list[Page] = []
    total = 0
    while pages and total < characters:
        taken.append(pages.pop(0))
        total += taken[-1].size()
    return taken


def build(seed: int) -> dict[str, list[dict[str, str]]]:
    """Return the records of each file."""
    every = (page for service in SERVICES for page in pages_of(service))
    pages = list(without_repetitions(every))
    random.Random(seed).shuffle(pages)
    sides = {"validation": take(pages, VALIDATION_CHARACTERS)}
    sides["train"] = take(pages, TRAIN_CHARACTERS)
    parts = {name: [r for page in side for r in page.records()] for name, side in sides.items()}
    return {name: [r for r in rs if len(r["text"]) >= MIN_PAGE] for name, rs in parts.items()}


def write_jsonl(path: Path, records: list[dict[str, str]]) -> None:
    """Write the records, one JSON object a line, with a line feed after each."""
    lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_bytes("".join(lines).encode("utf-8"))


def main() -> None:
    """Build both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    default = Path(__file__).parent / "data"
    parser.add_argument("--out", type=Path, default=default, help="folder (default: data here)")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, records in build(args.seed).items():
        write_jsonl(args.out / f"{name}.jsonl", records)
        size = sum(len(r["text"]) for r in records)
        print(f"{name}.jsonl: {len(records)} records, {size:,} characters")


if __name__ == "__main__":
    main()
