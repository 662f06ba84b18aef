"""Build "description to AWS CLI command" pairs from the examples in the PyPI package `awscli`.

Contract: writes `train.jsonl` and `test.jsonl` ({"prompt", "completion"}). A completion is one
line that the AWS CLI's own models accept (service, operation, options), and each value in it
stands in its prompt. No operation of a service is on both sides. Running the script twice gives
the same bytes.

Source: `awscli/examples/SERVICE/OPERATION.rst` (Apache-2.0, Amazon.com); option names come from
botocore's service models.

    pip install awscli==1.46.3
    python examples/aws-cli/build.py
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path

import botocore.session
from botocore import xform_name
from botocore.exceptions import DataNotFoundError
from botocore.model import OperationModel, ServiceModel

PACKAGE, VERSION = "awscli", "1.46.3"
SEED = 7
TRAIN_RECORDS, TEST_RECORDS = 600, 100
PER_OPERATION = 3  # examples of one operation, at most
PER_OPERATION_TEST = 1
SERVICE_SHARE = 0.12  # of all records that one service may have
MAX_COMMAND, MAX_DESCRIPTION = 130, 260  # characters; keeps commands within 60 tokens

GLOBAL_OPTIONS = {"region", "output"}

BLOCK = re.compile(
    r"(?:\A|\n\n)(?P<text>(?:[^\n]+\n)*[^\n]*?(?:\n\nCommand)?)\s*::[ ]*\n+"
    r"(?P<code>(?:[ \t]+[^\n]*\n?)+)"
)
OPENING = re.compile(
    r"^(?:The following|This)(?: ``[^`]+``)?(?: code)?(?: example| command)+ (?P<verb>[a-z]+s) "
)
INDIRECT = re.compile(
    r"^(?:(?:Show|Demonstrate) (?:you )?how to|Use the \S+ (?:command|operation|action) to) "
)
RST = (
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^>]*>`__?"), r"\1"),
    (re.compile(r"\*\*?([^*]+)\*\*?"), r"\1"),
    (re.compile(r":[a-z]+:`([^`]+)`"), r"\1"),
    (re.compile(r"`([^`]+)`"), r"\1"),
    (re.compile(r"\s+"), " "),
)
NOT_A_TASK = re.compile(
    r"\b(the output|for more information|see |above|below|previous|following|the specified"
    r"|this example|the example|the command|you can|you specify|this command"
    r"|alternate|as a result|the request|in this case|note that|specified|the response)\b",
    re.IGNORECASE,
)
NOT_PLAIN = re.compile(r"[|$<>`&;\\{}]|://|\bfileb?:|\barn:|[0-9a-f]{12}|\d{12}|EXAMPLE\b")
IDENTIFIER = re.compile(
    r"^[a-z]{1,12}-[0-9a-z]*\d[0-9a-z]{6,}$|^[A-Z0-9]{12,}$|^[0-9a-f-]{20,}$|^your"
)


@dataclass(frozen=True)
class Pair:
    """One example: what the command does, the command, and the operation it calls."""

    service: str
    operation: str
    description: str
    command: str

    @property
    def key(self) -> tuple[str, str]:
        """Return the service and operation, which one side alone may have."""
        return self.service, self.operation

    def record(self) -> dict[str, str]:
        """Return the JSON record."""
        prompt = f"AWS CLI command, service {self.service}:\n{self.description}"
        return {"prompt": prompt, "completion": self.command}


def examples_folder() -> Path:
    """Return the package's examples; refuse another version than the pinned one."""
    found = metadata.version(PACKAGE)
    if found != VERSION:
        raise SystemExit(f"{PACKAGE} {found} is installed, this data comes from {VERSION}")
    return Path(str(resources.files("awscli") / "examples"))


def read_blocks(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (paragraph, command) as written, in the order of the files' names."""
    for path in sorted(folder.glob("*/*.rst"), key=lambda p: p.parts[-2:]):
        text = path.read_text(encoding="utf-8").replace("\r", "")
        for match in BLOCK.finditer(text):
            if match["code"].lstrip().startswith("aws "):
                yield match["text"].removesuffix("\n\nCommand"), match["code"]


def one_line(code: str) -> str | None:
    """Return the command on one line, or None where the block holds more than one command."""
    joined = re.sub(r"\s*\\[ \t]*\n\s*", " ", code.strip())
    return None if "\n" in joined else re.sub(r"\s+", " ", joined)


def imperative(verb: str) -> str:
    """Return the verb's imperative ("creates" to "Create")."""
    if verb.endswith("ies"):
        verb = verb[:-3] + "y"
    elif verb.endswith(("ches", "shes", "sses", "xes", "zzes")):
        verb = verb[:-2]
    else:
        verb = verb[:-1]
    return verb.capitalize()


def clean_description(text: str) -> str | None:
    """Return the paragraph as a task in plain text, or None where it is none."""
    text = " ".join(text.split())
    opening = OPENING.match(text)
    if opening is None:
        return None
    text = f"{imperative(opening['verb'])} {text[opening.end() :]}"
    for pattern, replacement in RST:
        text = pattern.sub(replacement, text)
    sentences = re.split(r"(?<=[.!])\s+(?=[A-Z])", text.strip().rstrip(":").strip())
    text = " ".join([sentences[0], *(s for s in sentences[1:] if not NOT_A_TASK.search(s))])
    text = INDIRECT.sub("", text).rstrip(" .") + "."
    text = text[0].upper() + text[1:]
    usable = not NOT_A_TASK.search(text) and "`" not in text and text.isascii()
    return text if usable and 25 <= len(text) <= MAX_DESCRIPTION else None


@cache
def operations(service: str) -> dict[str, OperationModel]:
    """Return the operations of a service by their AWS CLI name."""
    session = botocore.session.get_session()
    renamed = {"configservice": "config", "deploy": "codedeploy"}
    try:
        model: ServiceModel = session.get_service_model(renamed.get(service, service))
    except DataNotFoundError:
        return {}
    return {xform_name(n, "-"): model.operation_model(n) for n in model.operation_names}


def option_names(operation: OperationModel) -> set[str]:
    """Return the options that the operation takes, with the `no-` form of its booleans."""
    shape = operation.input_shape
    members = shape.members if shape is not None else {}
    names = {xform_name(n, "-") for n in members} | GLOBAL_OPTIONS
    booleans = {xform_name(n, "-") for n, s in members.items() if s.type_name == "boolean"}
    return names | {f"no-{n}" for n in booleans}


def required_options(operation: OperationModel) -> set[str]:
    """Return the options that the operation cannot do without."""
    shape = operation.input_shape
    return {xform_name(n, "-") for n in (shape.required_members if shape is not None else ())}


def is_valid(service: str, operation: str, arguments: list[str]) -> bool:
    """Return whether the service's model knows the operation and its options, none missing."""
    model = operations(service).get(operation)
    if model is None or (arguments and not arguments[0].startswith("--")):
        return False
    options = {a[2:].split("=")[0] for a in arguments if a.startswith("--")}
    return options <= option_names(model) and required_options(model) <= options


def squeeze(text: str) -> str:
    """Return the text's letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def values(arguments: list[str]) -> Iterator[str]:
    """Yield every value that the arguments hold: `Name=a,Values=b` holds a and b."""
    for argument in arguments:
        text = argument.partition("=")[2] if argument.startswith("--") else argument
        for part in filter(None, re.split(r"[,\s\[\]]+", text)):
            yield part.rpartition("=")[2].strip("\"'")


def is_answerable(arguments: list[str], description: str) -> bool:
    """Return whether the text holds each value, spelling aside, and none is an identifier."""
    known = squeeze(description)
    words = set(re.findall(r"[a-z0-9]+", description.lower()))
    for value in values(arguments):
        needle = squeeze(value)
        if not needle or IDENTIFIER.match(value):
            return False
        if not (needle in words if len(needle) < 3 else needle in known):
            return False
    return True


def pair_of(text: str, code: str) -> Pair | None:
    """Return the pair of one block, or None where a filter drops it."""
    command, description = one_line(code), clean_description(text)
    if command is None or description is None:
        return None
    if len(command) > MAX_COMMAND or NOT_PLAIN.search(command) or NOT_PLAIN.search(description):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if len(words) < 3:
        return None
    _, service, operation, *arguments = words
    if operation in description:  # the answer itself
        return None
    if not is_valid(service, operation, arguments) or not is_answerable(arguments, description):
        return None
    return Pair(service, operation, description, command)


def read_pairs(folder: Path) -> list[Pair]:
    """Return the usable pairs; no command, and no description, twice."""
    seen: set[str] = set()
    pairs = []
    for pair in filter(None, (pair_of(text, code) for text, code in read_blocks(folder))):
        marks = {pair.command, f"{pair.service} {squeeze(pair.description)}"}
        if not marks & seen:
            seen |= marks
            pairs.append(pair)
    return pairs


def take(pairs: list[Pair], count: int, per_operation: int) -> list[Pair]:
    """Return the first `count` pairs that keep the limits for an operation and a service."""
    taken: list[Pair] = []
    by_operation: Counter[tuple[str, str]] = Counter()
    by_service: Counter[str] = Counter()
    for pair in pairs:
        if by_operation[pair.key] < per_operation and by_service[pair.service] < max(
            1, SERVICE_SHARE * count
        ):
            taken.append(pair)
            by_operation[pair.key] += 1
            by_service[pair.service] += 1
    return taken[:count]


def split(pairs: list[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return (train, test) without an operation in common."""
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    test = take(shuffled, TEST_RECORDS, PER_OPERATION_TEST)
    held_out = {p.key for p in test}
    train = take([p for p in shuffled if p.key not in held_out], TRAIN_RECORDS, PER_OPERATION)
    return train, test


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
    pairs = read_pairs(examples_folder())
    print(f"{len(pairs)} usable pairs")
    for name, side in zip(("train", "test"), split(pairs, args.seed), strict=True):
        write_jsonl(args.out / f"{name}.jsonl", [p.record() for p in side])
        services = len({p.service for p in side})
        print(f"{name}.jsonl: {len(side)} records, {services} services")


if __name__ == "__main__":
    main()
