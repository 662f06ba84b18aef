"""Load a job from its file, flags and environment: one checked job, or every fault at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from cloudft.catalogue import Model, resolve_job, with_prices
from cloudft.errors import SpecError
from cloudft.spec.checks import check_job
from cloudft.spec.merge import MergedTree, Origin, overlay, read_environment, read_flags
from cloudft.spec.model import JobSpec
from cloudft.spec.sections import job_model, job_sections
from cloudft.spec.validation_errors import SourceMap, build_findings
from cloudft.spec.yaml_source import (
    MAX_FILE_BYTES,
    FieldPath,
    JobTree,
    YamlDocument,
    flatten,
    parse_yaml,
)
from cloudft.types import Finding

DEFAULT_FILE_NAME = "cloudft.yaml"
EMPTY: Mapping[str, str] = MappingProxyType({})
REQUIRED_FLAGS_WITHOUT_FILE = {"base_model", "data.train"}


@dataclass(frozen=True)
class LoadedJob:
    """A job whose file has no error. `findings` are warnings.

    `origins` has every value's origin by its dotted name, defaults and the catalogue's included;
    data paths in `spec` are relative to `base_dir`. `path` is None when flags gave everything.
    """

    spec: JobSpec
    path: Path | None
    base_dir: Path
    model: Model
    origins: Mapping[str, Origin]
    findings: tuple[Finding, ...]
    lines: Mapping[FieldPath, int]

    def line_of(self, field: str) -> int | None:
        """Return the line of a dotted field in the job file, or of the section around it."""
        return SourceMap(None, self.lines, {}).find_line(tuple(field.split(".")))


def load_job(
    path: Path | None,
    *,
    flags: JobTree = EMPTY,
    environ: Mapping[str, str] = EMPTY,
) -> LoadedJob:
    """Load the job of `path` (None: cloudft.yaml here), overlaid with `flags`, over `environ`.

    `flags` has dotted names (`local.device`); text values are parsed as YAML. `environ` is what
    to read, such as os.environ: CLOUDFT_<FIELD> with `__` between levels, AWS_REGION.
    Raises SpecError, whose `findings` holds every fault.
    """
    path = _default_path(flags) if path is None else path
    document = YamlDocument(data={}) if path is None else _read(path)
    return _load_document(document, path, flags, environ)


def load_spec(
    spec: JobTree,
    *,
    flags: JobTree = EMPTY,
    environ: Mapping[str, str] = EMPTY,
) -> LoadedJob:
    """Load a stored job: the values of serialize.py, overlaid as `load_job` does.

    Raises SpecError.
    """
    import yaml

    document = parse_yaml(yaml.safe_dump(dict(spec), sort_keys=False).encode(), "")
    return _load_document(document, None, flags, environ)


def _load_document(
    document: YamlDocument,
    path: Path | None,
    flags: JobTree,
    environ: Mapping[str, str],
) -> LoadedJob:
    if document.data is None or _has_errors(document.findings):
        raise _spec_error(path, document.findings)
    base_dir = (path.absolute().parent if path else Path.cwd()).resolve()
    merged, warnings = _merge(document, path, flags, environ)
    source_map = SourceMap(str(path) if path else None, document.lines, merged.origins)
    spec, findings = _validate(merged.tree, source_map)
    model, more = check_job(merged.tree, base_dir, source_map)
    findings += [f for f in more if f not in findings]
    if spec is None or model is None or _has_errors(findings):
        raise _spec_error(path, [*findings, *warnings])
    spec = _name_jobs(spec)
    if spec.prices is not None:
        amounts = spec.prices.model_dump(exclude={"source", "date", "instance_hour"})
        model = with_prices(model, amounts, spec.prices.price_source)
    origins = _all_origins(spec, model, merged.origins)
    return LoadedJob(spec, path, base_dir, model, origins, (*findings, *warnings), document.lines)


def _name_jobs(spec: JobSpec) -> JobSpec:
    """Return the job with the whole id of each job that it names: a newer one changes nothing."""
    base_model = resolve_job(spec.base_model)
    changes: dict[str, object] = {} if base_model == spec.base_model else {"base_model": base_model}
    for name, section in job_sections().items():
        values = getattr(spec, name)
        given = {field: getattr(values, field, None) or "" for field in section.model_fields}
        named = {field: resolve_job(value) for field, value in given.items()}
        if named != given:
            changes[name] = values.model_copy(update=named)
    return spec.model_copy(update=changes) if changes else spec


def _default_path(flags: JobTree) -> Path | None:
    """Return cloudft.yaml of the current folder; None if there is none and flags give enough."""
    path = Path(DEFAULT_FILE_NAME)
    return None if not path.exists() and set(flags) >= REQUIRED_FLAGS_WITHOUT_FILE else path


def _read(path: Path) -> YamlDocument:
    """Return the file's document; a file that can't be read is a finding."""
    file = str(path)
    try:
        if not path.is_file():
            return YamlDocument(findings=[_no_file(path)])
        with path.open("rb") as handle:
            raw = handle.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        fix = "make the file readable"
        return YamlDocument(findings=[Finding("error", "FileUnreadable", reason, fix, file)])
    return parse_yaml(raw, file)


def _no_file(path: Path) -> Finding:
    if path.is_dir():
        fix = f"name the file: {path / DEFAULT_FILE_NAME}"
        return Finding("error", "FileUnreadable", "a folder, not a job file", fix, str(path))
    if path.exists():
        fix = "name a plain file"
        return Finding("error", "FileUnreadable", "not a plain file", fix, str(path))
    fix = "`cloudft init` writes a job file; or name one: cloudft check JOB.yaml"
    return Finding("error", "FileNotFound", f"no job file {path}", fix, str(path))


def _merge(
    document: YamlDocument,
    path: Path | None,
    flags: JobTree,
    environ: Mapping[str, str],
) -> tuple[MergedTree, list[Finding]]:
    """Return the three layers as one tree."""
    merged = MergedTree()
    variables, warnings = read_environment(environ)
    for key, value, origin in variables:
        merged.set_leaf(key, value, origin)
    tree = document.data or {}
    file_origins = {
        key: Origin("file", f"{path}:{document.lines.get(key, 1)}") for key, _ in flatten(tree)
    }
    overlay(merged, tree, file_origins)
    for key, value, origin in read_flags(flags):
        merged.set_leaf(key, value, origin)
    return merged, warnings


def _validate(tree: JobTree, source_map: SourceMap) -> tuple[JobSpec | None, list[Finding]]:
    try:
        return job_model().model_validate(tree), []
    except ValidationError as exc:
        return None, build_findings(exc, source_map)


def _has_errors(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _spec_error(path: Path | None, findings: list[Finding]) -> SpecError:
    """Return all findings as one error, whose message is the first one's, and how many more."""
    findings = sorted(findings, key=lambda f: (f.severity != "error", f.line or 0))
    count = sum(f.severity == "error" for f in findings)
    more = f" (and {count - 1} more)" if count > 1 else ""
    return SpecError(f"{findings[0].message}{more}", findings)


def _all_origins(
    spec: JobSpec, model: Model, given: Mapping[FieldPath, Origin]
) -> Mapping[str, Origin]:
    """Return an origin for every leaf of the job. Sections that show nothing unset are left out."""
    origins: dict[FieldPath, Origin] = {}
    hidden = {name for name, section in job_sections().items() if not section.show_unset}
    hidden -= {key[0] for key in given}
    for key, _ in flatten(spec.model_dump()):
        if key[0] in hidden:
            continue
        if key != ("hyperparameters",):
            origins[key] = given.get(key) or Origin("default", "cloudft")
    for name, row in model.hyperparameters.items():
        rank = "assumed from its siblings, " if row.assumed else ""
        origin = Origin("catalogue", f"{model.alias} ({rank}{row.source})")
        origins.setdefault(("hyperparameters", name), origin)
    return MappingProxyType({".".join(key): origin for key, origin in origins.items()})
