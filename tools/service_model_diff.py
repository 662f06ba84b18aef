"""Make the diff of botocore's service models readable: what a new version changes for cloudft.

    python tools/service_model_diff.py 1.40.0 1.44.8 > diff.md
    python tools/service_model_diff.py installed ~/aws/models --service bedrock
    python tools/service_model_diff.py --pin

OLD and NEW are versions, which pip downloads into a temporary folder; `installed`; or a folder of
service models (`data/SERVICE/DATE/service-2.json`). The report names, for each service that cloudft
calls, new and removed operations, and of the operations that cloudft calls or its endpoint offers:
members, requirements, enums, patterns, ranges, errors and paginators, with the modules and tests
that name them. Operations and members are found in the sources: literals, keyword arguments, calls
and the annotations of TypedDicts.

`--pin` writes what cloudft uses of the installed botocore to `tests/unit/aws/service_models.json`.
`tests/unit/aws/test_service_models.py` compares another botocore with it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore import xform_name
from botocore.loaders import Loader, create_loader
from botocore.model import OperationModel, ServiceModel, Shape

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "tests" / "unit" / "aws" / "service_models.json"
SERVICES = (
    *("bedrock", "bedrock-runtime", "sagemaker", "service-quotas", "pricing", "s3", "iam", "sts"),
    *("kms", "ec2", "lambda", "logs", "ram", "stepfunctions", "cloudformation"),
)
"""The services that cloudft calls, by boto3's names."""
ENDPOINT = ROOT / "cloudft" / "endpoint"
OFFERED = ("bedrock", "bedrock-runtime", "sagemaker", "service-quotas", "iam", "cloudformation")
"""The services that the endpoint has operations of; its calls of moto's services do not count."""
PARTS = ("input", "output")
LONGEST_LIST = 8
"""How many names of a long list the report shows."""
Member = dict[str, Any]
"""Type of a member, and its constraints: required, enum, pattern, min, max."""
Described = dict[str, dict[str, Any]]
"""Operation -> its members by path, for `input` and `output`, its `errors` and its `paginator`."""


@dataclass(frozen=True)
class Change:
    """One difference. `member` is the name that changed, empty where it is the operation's."""

    service: str
    operation: str
    where: str
    what: str
    member: str = ""

    def __str__(self) -> str:
        where = f" {self.where}" if self.where else ""
        return f"{self.service} {self.operation}{where}: {self.what}"


@dataclass(frozen=True)
class Sources:
    """What the sources name: by file, its words; the words of all files of cloudft together."""

    words_by_file: Mapping[Path, frozenset[str]]

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """Return every word of cloudft's own files."""
        own = (words for path, words in self.words_by_file.items() if _is_own(path))
        return frozenset().union(*own)

    def naming(self, *names: str) -> list[str]:
        """Return the files that have one of the names, cloudft's before the tests."""
        paths = [path for path, words in self.words_by_file.items() if words & set(names)]
        return [
            str(path.relative_to(ROOT)) for path in sorted(paths, key=lambda p: (not _is_own(p), p))
        ]


def _is_own(path: Path) -> bool:
    return path.is_relative_to(ROOT / "cloudft")


@functools.cache
def read_sources() -> Sources:
    """Return the words of the files of cloudft and of its tests."""
    folders = (ROOT / "cloudft", ROOT / "tests")
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return Sources({path: frozenset(_words(path)) for path in paths})


def _words(path: Path) -> Iterator[str]:
    """Yield the names in a file that may be those of operations and members."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg
        elif isinstance(node, ast.Attribute) and "_" in node.attr:
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.FunctionDef) and path.is_relative_to(ENDPOINT):
            yield node.name  # the endpoint's operations are methods


@dataclass(frozen=True)
class Models:
    """The service models of one botocore."""

    title: str
    loader: Loader

    def service(self, name: str) -> ServiceModel:
        """Return the newest model of a service."""
        return ServiceModel(self.loader.load_service_model(name, "service-2"), name)

    def paginators(self, name: str) -> Mapping[str, Any]:
        """Return the paginators of a service, by operation; none where it has no such file."""
        from botocore.exceptions import UnknownServiceError

        try:
            model: Mapping[str, Any] = self.loader.load_service_model(name, "paginators-1")
        except (UnknownServiceError, ValueError):
            return {}
        return dict(model.get("pagination", {}))

    def has(self, name: str) -> bool:
        """Return whether there is a model of the service."""
        return name in self.loader.list_available_services("service-2")


@contextlib.contextmanager
def open_models(name: str) -> Iterator[Models]:
    """Open the models of a version, of `installed`, or in a folder."""
    if name == "installed":
        import botocore

        yield Models(f"botocore {botocore.__version__}", create_loader())
        return
    if Path(name).is_dir():
        folder = Path(name)
        nested = folder / "botocore" / "data"
        yield Models(name, _loader(nested if nested.is_dir() else folder))
        return
    with tempfile.TemporaryDirectory(prefix="botocore-") as temporary:
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--target", temporary)
        command = [sys.executable, "-m", "pip", "install", *options, f"botocore=={name}"]
        subprocess.run(command, check=True)
        yield Models(f"botocore {name}", _loader(Path(temporary) / "botocore" / "data"))


def _loader(folder: Path) -> Loader:
    return Loader(extra_search_paths=[str(folder)], include_default_search_paths=False)


def used_operations(models: Models, sources: Sources) -> dict[str, list[str]]:
    """Return the operations that the sources of cloudft name, by service, in the API's names.

    A name that several services have counts for those that the same file names, and for all of
    them where it names none.
    """
    by_service = {
        service: {xform_name(name): name for name in models.service(service).operation_names}
        for service in SERVICES
        if models.has(service)
    }
    used: dict[str, set[str]] = {service: set() for service in by_service}
    for path, words in sources.words_by_file.items():
        if not _is_own(path):
            continue
        candidates = OFFERED if path.is_relative_to(ENDPOINT) else SERVICES
        named = set(candidates) & words
        for service, names in by_service.items():
            if service not in candidates:
                continue
            for method in words & names.keys():
                owners = {one for one in candidates if method in by_service.get(one, ())}
                if len(owners) == 1 or service in (owners & named or owners):
                    used[service].add(names[method])
    return {service: sorted(names) for service, names in used.items() if names}


def describe(
    models: Models, service: str, operations: Sequence[str], words: frozenset[str] | None = None
) -> Described:
    """Return what the models say of these operations; of those that they lack, nothing.

    With `words`, only members of these names and required ones are described.
    """
    model, paginators = models.service(service), models.paginators(service)
    described: Described = {}
    for name in operations:
        if name not in model.operation_names:
            continue
        operation = model.operation_model(name)
        described[name] = {
            part: dict(_members(getattr(operation, f"{part}_shape"), words)) for part in PARTS
        }
        described[name]["errors"] = sorted(_errors(operation))
        described[name]["paginator"] = paginators.get(name)
    return described


def _errors(operation: OperationModel) -> Iterator[str]:
    for shape in operation.error_shapes:
        yield str(shape.name)


def _members(
    shape: Shape | None, words: frozenset[str] | None, path: str = "", above: tuple[str, ...] = ()
) -> Iterator[tuple[str, Member]]:
    """Yield the members of a structure by path: `a.b`, `items[].c`, `map{}.d`."""
    if shape is None or shape.type_name != "structure" or shape.name in above:
        return
    required = set(shape.required_members)
    for name, member in shape.members.items():
        if words is not None and name not in words and name not in required:
            continue
        at, inner = f"{path}{name}", member
        yield at, _describe_member(member, name in required)
        while inner.type_name in ("list", "map"):
            at += "[]" if inner.type_name == "list" else "{}"
            inner = inner.member if inner.type_name == "list" else inner.value
            if inner.type_name not in ("structure", "list", "map"):
                yield at, _describe_member(inner, False)
        yield from _members(inner, words, f"{at}.", (*above, shape.name))


def _describe_member(shape: Shape, required: bool) -> Member:
    found: Member = {"type": shape.type_name}
    if required:
        found["required"] = True
    if getattr(shape, "enum", None):
        found["enum"] = sorted(shape.enum)
    found |= {
        key: shape.metadata[key] for key in ("pattern", "min", "max") if key in shape.metadata
    }
    return found


def compare_described(service: str, old: Described, new: Described) -> Iterator[Change]:
    """Yield the differences between two descriptions of a service's operations."""
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Change(service, name, "", "the operation is gone")
        elif name not in old:
            yield Change(service, name, "", "the operation is new")
        else:
            yield from _compare_operation(service, name, old[name], new[name])


def _compare_operation(
    service: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    for part in PARTS:
        for path in sorted(old[part].keys() | new[part].keys()):
            member = path.rstrip("[]{}").rpartition(".")[2]
            before, after = old[part].get(path), new[part].get(path)
            for what in _compare_member(before, after):
                yield Change(service, name, f"{part} {path}", what, member)
    for error in sorted(set(old["errors"]) ^ set(new["errors"])):
        what = "no longer declared" if error in old["errors"] else "new"
        yield Change(service, name, f"error {error}", what)
    if old["paginator"] != new["paginator"]:
        what = f"{json.dumps(old['paginator'])} -> {json.dumps(new['paginator'])}"
        yield Change(service, name, "paginator", what)


def _compare_member(old: Member | None, new: Member | None) -> Iterator[str]:
    """Yield what differs between two descriptions of a member."""
    if old is None or new is None:
        what = "new member" if old is None else "the member is gone"
        yield f"{what}, required" if new is not None and new.get("required") else what
        return
    if old["type"] != new["type"]:
        yield f"type {old['type']} -> {new['type']}"
    if old.get("required") != new.get("required"):
        yield "required now" if new.get("required") else "no longer required"
    for values, word in (
        (set(new.get("enum", ())) - set(old.get("enum", ())), "new values"),
        (set(old.get("enum", ())) - set(new.get("enum", ())), "values gone"),
    ):
        if values:
            yield f"{word}: {_names(sorted(values))}"
    for key in ("pattern", "min", "max"):
        if old.get(key) != new.get(key):
            yield f"{key} {old.get(key)} -> {new.get(key)}"


def _names(names: Sequence[str]) -> str:
    shown, rest = ", ".join(names[:LONGEST_LIST]), len(names) - LONGEST_LIST
    return f"{shown} and {rest} more" if rest > 0 else shown


def report(old: Models, new: Models, services: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the report, in Markdown."""
    sources = read_sources()
    used = {**used_operations(old, sources)}
    for service, names in used_operations(new, sources).items():
        used[service] = sorted({*used.get(service, ()), *names})
    yield f"# {old.title} -> {new.title}"
    for service in services:
        yield from ("", f"## {service}", "")
        lines = list(_report_service(old, new, service, used.get(service, []), sources))
        yield from lines or ["No change in what cloudft uses."]


def _report_service(
    old: Models, new: Models, service: str, used: Sequence[str], sources: Sources
) -> Iterator[str]:
    for models in (old, new):
        if not models.has(service):
            yield f"- {models.title} has no such service"
            return
    before, after = (set(models.service(service).operation_names) for models in (old, new))
    for names, word in ((after - before, "new"), (before - after, "gone")):
        if names:
            yield f"- {len(names)} operations are {word}: {_names(sorted(names))}"
    descriptions = [describe(models, service, used) for models in (old, new)]
    by_operation: dict[str, list[Change]] = {}
    for change in compare_described(service, *descriptions):
        by_operation.setdefault(change.operation, []).append(change)
    for operation, changes in by_operation.items():
        named = [c for c in changes if not c.member or c.member in sources.words]
        others = [f"{c.where} ({c.what})" for c in changes if c not in named]
        yield from ("", f"### {operation}", "")
        files = sources.naming(operation, xform_name(operation))
        yield f"Named in {_names(files)}." if files else "Named nowhere."
        yield ""
        for change in named:
            naming = sources.naming(change.member) if change.member else []
            # A common name is in many files; those that name the operation too are meant.
            naming = [path for path in naming if path in files] or naming
            where = f" (named in {_names(naming)})" if naming else ""
            yield f"- **{change.where or 'operation'}**: {change.what}{where}"
        if others:
            yield f"- not used by cloudft: {_names(others)}"


def pin(models: Models) -> dict[str, Any]:
    """Return what cloudft uses of the service models, to compare another botocore with."""
    sources = read_sources()
    operations = used_operations(models, sources)
    services = {
        service: describe(models, service, names, sources.words)
        for service, names in operations.items()
    }
    return {"botocore": models.title.rpartition(" ")[2], "services": services}


def encode_pins(pins: Mapping[str, Any]) -> str:
    """Return the pins as JSON with one member a line, so that a diff shows what changed."""
    services = []
    for service, operations in sorted(pins["services"].items()):
        rows = []
        for name, operation in operations.items():
            parts = [
                f'"{part}": ' + _encode_rows(operation[part].items(), "    ") for part in PARTS
            ]
            parts += [f'"{key}": {json.dumps(operation[key])}' for key in ("errors", "paginator")]
            rows.append(f'  "{name}": {{\n   ' + ",\n   ".join(parts) + "}")
        services.append(f' "{service}": {{\n' + ",\n".join(rows) + "}")
    listed = ",\n".join(services)
    return f'{{"botocore": {json.dumps(pins["botocore"])}, "services": {{\n{listed}}}}}\n'


def _encode_rows(rows: Iterable[tuple[str, Member]], indent: str) -> str:
    lines = [f"{indent}{json.dumps(path)}: {json.dumps(member)}" for path, member in rows]
    return "{\n" + ",\n".join(lines) + "}" if lines else "{}"


def compare_with_pins(pins: Mapping[str, Any], models: Models) -> Iterator[Change]:
    """Yield how the service models differ from what is pinned.

    New members are no difference, unless they are required: cloudft does not use them yet.
    """
    for service, pinned in pins["services"].items():
        current = describe(models, service, list(pinned))
        for name, operation in current.items():
            for part in PARTS:
                operation[part] = {
                    path: member
                    for path, member in operation[part].items()
                    if path in pinned[name][part] or _is_newly_required(path, member, pinned[name])
                }
        yield from compare_described(service, pinned, current)


def _is_newly_required(path: str, member: Member, pinned: Mapping[str, Any]) -> bool:
    """Return whether a member must be sent now, in a structure that cloudft sends."""
    above = path.rpartition(".")[0].rstrip("[]{}")
    return bool(member.get("required")) and (not above or above in pinned["input"])


def unpinned_operations(pins: Mapping[str, Any], models: Models) -> list[str]:
    """Return the operations that the sources name and that are not pinned."""
    used = used_operations(models, read_sources())
    return [
        f"{service} {name}"
        for service, names in used.items()
        for name in names
        if name not in pins["services"].get(service, {})
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, or write the pins."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("old", nargs="?", help="a version of botocore, `installed`, or a folder")
    parser.add_argument("new", nargs="?", help="the same")
    parser.add_argument("--service", action="append", choices=SERVICES, help="only this service")
    parser.add_argument("--pin", action="store_true", help=f"write {PINS.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    if options.pin:
        with open_models("installed") as models:
            PINS.write_text(encode_pins(pin(models)), encoding="utf-8")
        return 0
    if options.old is None or options.new is None:
        parser.error("name two versions, for example: 1.40.0 installed")
    with open_models(options.old) as old, open_models(options.new) as new:
        for line in report(old, new, options.service or SERVICES):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
