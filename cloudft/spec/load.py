"""A job file, flags and the environment in; one checked job out, or every fault at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from cloudft.catalogue import Model, with_prices
from cloudft.errors import SpecError
from cloudft.spec.checks import check
from cloudft.spec.document import LARGEST, Document, leaves, parse
from cloudft.spec.explain import Places, explain
from cloudft.spec.layers import Merged, Origin, from_environment, from_flags, overlay
from cloudft.spec.models import JobSpec
from cloudft.spec.tree import Key
from cloudft.types import Finding

DEFAULT_NAME = "cloudft.yaml"
NOTHING: Mapping[str, Any] = MappingProxyType({})
ENOUGH_WITHOUT_FILE = {"base_model", "data.train"}


@dataclass(frozen=True)
class LoadedJob:
    """A job whose file is right. `findings` are warnings.

    `origins` has every value's origin by its dotted name, defaults and the catalogue's included;
    data paths in `spec` are relative to `base_dir`. `path` is None when flags said everything.
    """

    spec: JobSpec
    path: Path | None
    base_dir: Path
    model: Model
    origins: Mapping[str, Origin]
    findings: tuple[Finding, ...]
    lines: Mapping[Key, int]

    def line_of(self, field: str) -> int | None:
        """The line of a dotted field in the job file, or of the section around it."""
        return Places(None, self.lines, {}).line(tuple(field.split(".")))


def load_job(
    path: Path | None,
    *,
    flags: Mapping[str, object] = NOTHING,
    environ: Mapping[str, str] = NOTHING,
) -> LoadedJob:
    """The job of `path` (None: cloudft.yaml here), overlaid with `flags`, over `environ`.

    `flags` has dotted names (`local.device`); text values are read as YAML words. `environ` is
    what to read, such as os.environ: CLOUDFT_<FIELD> with `__` between levels, AWS_REGION.
    Raises SpecError, whose `findings` holds every fault.
    """
    path = _default_path(flags) if path is None else path
    document = Document(data={}) if path is None else _read(path)
    return _loaded(document, path, flags, environ)


def load_spec(
    spec: Mapping[str, Any],
    *,
    flags: Mapping[str, object] = NOTHING,
    environ: Mapping[str, str] = NOTHING,
) -> LoadedJob:
    """The job of a record: what portable.py made of its file, overlaid as `load_job` does.

    Raises SpecError.
    """
    import yaml

    document = parse(yaml.safe_dump(dict(spec), sort_keys=False).encode(), "")
    return _loaded(document, None, flags, environ)


def _loaded(
    document: Document,
    path: Path | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
) -> LoadedJob:
    if document.data is None or _has_errors(document.findings):
        raise _refused(path, document.findings)
    base_dir = (path.absolute().parent if path else Path.cwd()).resolve()
    merged, warnings = _merge(document, path, flags, environ)
    places = Places(str(path) if path else None, document.lines, merged.origins)
    spec, findings = _validated(merged.tree, places)
    model, more = check(merged.tree, base_dir, places)
    findings += [f for f in more if f not in findings]
    if spec is None or model is None or _has_errors(findings):
        raise _refused(path, [*findings, *warnings])
    if spec.prices is not None:
        amounts = spec.prices.model_dump(exclude={"source", "date", "instance_hour"})
        model = with_prices(model, amounts, spec.prices.origin)
    origins = _all_origins(spec, model, merged.origins)
    return LoadedJob(spec, path, base_dir, model, origins, (*findings, *warnings), document.lines)


def _default_path(flags: Mapping[str, object]) -> Path | None:
    """cloudft.yaml of the current folder; None when it isn't there and flags say enough."""
    path = Path(DEFAULT_NAME)
    return None if not path.exists() and set(flags) >= ENOUGH_WITHOUT_FILE else path


def _read(path: Path) -> Document:
    """The file's document; a file that can't be read is a finding."""
    file = str(path)
    try:
        if not path.is_file():
            return Document(findings=[_no_file(path)])
        with path.open("rb") as handle:
            raw = handle.read(LARGEST + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        fix = "make the file readable"
        return Document(findings=[Finding("error", "FileUnreadable", reason, fix, file)])
    return parse(raw, file)


def _no_file(path: Path) -> Finding:
    if path.is_dir():
        fix = f"name the file: {path / DEFAULT_NAME}"
        return Finding("error", "FileUnreadable", "a folder is no job file", fix, str(path))
    if path.exists():
        fix = "name a plain file"
        return Finding("error", "FileUnreadable", "not a plain file", fix, str(path))
    fix = "`cloudft init` writes a job file; or name one: cloudft check JOB.yaml"
    return Finding("error", "FileNotFound", f"no job file {path}", fix, str(path))


def _merge(
    document: Document,
    path: Path | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
) -> tuple[Merged, list[Finding]]:
    """The three layers as one tree, the lowest first."""
    merged = Merged()
    variables, warnings = from_environment(environ)
    for key, value, origin in variables:
        merged.put(key, value, origin)
    tree = document.data or {}
    file_origins = {
        key: Origin("file", f"{path}:{document.lines.get(key, 1)}") for key, _ in leaves(tree)
    }
    overlay(merged, tree, file_origins)
    for key, value, origin in from_flags(flags):
        merged.put(key, value, origin)
    return merged, warnings


def _validated(tree: Mapping[str, Any], places: Places) -> tuple[JobSpec | None, list[Finding]]:
    try:
        return JobSpec.model_validate(tree), []
    except ValidationError as exc:
        return None, explain(exc, places)


def _has_errors(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _refused(path: Path | None, findings: list[Finding]) -> SpecError:
    """All findings as one error; its message is the first error's, and how many more."""
    findings = sorted(findings, key=lambda f: (f.severity != "error", f.line or 0))
    count = sum(f.severity == "error" for f in findings)
    more = f" (and {count - 1} more)" if count > 1 else ""
    return SpecError(f"{findings[0].message}{more}", findings)


def _all_origins(spec: JobSpec, model: Model, given: Mapping[Key, Origin]) -> Mapping[str, Origin]:
    """An origin for every leaf of the job. Whole sections of other backends stay out."""
    origins: dict[Key, Origin] = {}
    for key, _ in leaves(spec.model_dump()):
        if key[0] in {"bedrock", "sagemaker"} and not any(k[0] == key[0] for k in given):
            continue
        if key != ("hyperparameters",):
            origins[key] = given.get(key) or Origin("default", "cloudft")
    for name, row in model.hyperparameters.items():
        rank = "assumed from its siblings, " if row.assumed else ""
        origin = Origin("catalogue", f"{model.alias} ({rank}{row.source})")
        origins.setdefault(("hyperparameters", name), origin)
    return MappingProxyType({".".join(key): origin for key, origin in origins.items()})
