"""The file of a reinforcement job's grader: read it, and check it without running it."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudft.errors import CheckFailed
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity

FIELD = "reinforcement.grader"
HANDLER = "lambda_handler"
MAX_BYTES = 1024 * 1024
"""Far above any file of source code."""
LAMBDA_PACKAGES = frozenset(
    ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
)
"""What Lambda's Python runtimes have besides the standard library. Source: Lambda developer guide,
"Runtime-included SDK versions", 2026-10."""


@dataclass(frozen=True)
class GraderFile:
    """A grader's file as it was read."""

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        """Return the digest of the file in hex."""
        return hashlib.sha256(self.content).hexdigest()


def grader_path(job: LoadedJob) -> Path | None:
    """Return the path of the job's grader; None where the job file names none."""
    section = job.spec.reinforcement
    if section is None or section.grader is None:
        return None
    return job.base_dir / Path(section.grader).expanduser()


def read_grader(job: LoadedJob) -> GraderFile | None:
    """Return the job's grader; None where the job file names none. Raise CheckFailed."""
    grader, findings = _read(job)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, findings)
    return grader


def check_grader(job: LoadedJob) -> tuple[Finding, ...]:
    """Return what is wrong with the grader's file, with its own lines."""
    return tuple(_read(job)[1])


def _read(job: LoadedJob) -> tuple[GraderFile | None, list[Finding]]:
    path = grader_path(job)
    if path is None:
        return None, []
    place = (str(job.path) if job.path else None, job.line_of(FIELD), FIELD)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"the grader {path} can't be read: {reason}"
        fix = f"correct {FIELD}: the path of a file, relative to the job file's folder."
        return None, [Finding("error", "GraderUnreadable", message, fix, *place)]
    if len(content) > MAX_BYTES:
        message = f"the grader {path} has {len(content):,} bytes; the limit is {MAX_BYTES:,}"
        fix = "a grader is one file of source code: keep data out of it."
        return None, [Finding("error", "GraderTooLarge", message, fix, *place)]
    return GraderFile(path, content), list(_check_source(content, path))


def _check_source(content: bytes, path: Path) -> Iterator[Finding]:
    def finding(
        code: str, message: str, fix: str, line: int | None, severity: Severity = "error"
    ) -> Finding:
        return Finding(severity, code, message, fix, str(path), line, FIELD)

    try:
        module = ast.parse(content, filename=str(path))
    except (SyntaxError, ValueError) as error:
        message = f"the grader is not valid Python: {error.args[0]}"
        yield finding("GraderSyntax", message, "correct that line.", getattr(error, "lineno", None))
        return
    handler = _find_handler(module.body)
    signature = f"define `def {HANDLER}(event, context):` at the top level of the file."
    if handler is None:
        yield finding("NoGraderHandler", f"the grader has no function {HANDLER}", signature, None)
    elif isinstance(handler, ast.AsyncFunctionDef):
        message = f"{HANDLER} is async, and Lambda awaits nothing"
        yield finding("NoGraderHandler", message, signature, handler.lineno)
    elif isinstance(handler, ast.FunctionDef) and not _takes_two(handler.args):
        message = f"{HANDLER} can't be called with (event, context)"
        yield finding("NoGraderHandler", message, signature, handler.lineno)
    for line, name in _imports(module):
        if (path.parent / name).is_dir() or (path.parent / f"{name}.py").is_file():
            message = f"the grader imports {name}, a file beside it"
            fix = "write what it needs into it: the grader is one file, on Lambda too."
            yield finding("GraderImports", message, fix, line)
        elif name not in sys.stdlib_module_names and name not in LAMBDA_PACKAGES:
            message = f"the grader imports {name}, which Lambda's Python runtime lacks"
            fix = "do without it, or give the function a layer that has it."
            yield finding("GraderImports", message, fix, line, "warning")


def _find_handler(body: Sequence[ast.stmt]) -> ast.stmt | None:
    """Return the last statement that binds the handler's name in a module."""
    found = None
    for statement in body:
        if isinstance(statement, ast.If | ast.Try | ast.With):
            inner = [part for part in ast.iter_child_nodes(statement) if isinstance(part, ast.stmt)]
            found = _find_handler(inner) or found
        elif HANDLER in _bound_names(statement):
            found = statement
    return found


def _bound_names(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def _takes_two(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    needs_names = any(default is None for default in arguments.kw_defaults)
    return required <= 2 <= (2 if arguments.vararg else positional) and not needs_names


def _imports(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and top-level name of what a module imports; not what it can do without (try)."""
    nodes: list[ast.AST] = [module]
    seen = set()
    while nodes:
        node = nodes.pop(0)
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or node.names[0].name]
        for name in (name.partition(".")[0] for name in names):
            if name not in seen:
                seen.add(name)
                yield getattr(node, "lineno", 0), name
        if not isinstance(node, ast.Try):
            nodes += ast.iter_child_nodes(node)
