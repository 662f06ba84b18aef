"""A YAML text as plain data, the line of every value, and every fault of the text itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudft.spec.yaml_scalars import UntypedScalar, parse_scalar
from cloudft.types import Finding

if TYPE_CHECKING:
    import yaml

FieldPath = tuple[str, ...]
MAX_FILE_BYTES = 256 * 1024  # bytes; a job file has one or two thousand
MAX_VALUES = 20_000  # aliases can make a small file huge
_PREFIX = "tag:yaml.org,2002:"
_TAGS_OF_WORDS = {_PREFIX + name for name in ("null", "bool", "int", "float", "timestamp", "value")}


@dataclass
class YamlDocument:
    """What a text holds: `data` (None when it can't be read), `lines` by key, `findings`."""

    data: dict[str, Any] | None = None
    lines: dict[FieldPath, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def parse_yaml(raw: bytes, file: str) -> YamlDocument:
    """The document in `raw`. Never raises: what is wrong is in `findings`."""
    reader = _Reader(file)
    text = reader.decode(raw)
    if text is not None:
        node = reader.compose(text)
        if node is not None:
            reader.document.data = reader.top(node)
    return reader.document


def parse_flow_value(text: str) -> object:
    """A value given on the command line or in the environment as `[a, b]`, `{a: b}` or `"a"`.

    Anything that isn't YAML of that form is taken as the text it is.
    """
    reader = _Reader("")
    node = reader.compose(text)
    value = reader.value(node, ()) if node is not None else None
    return text if node is None or reader.document.findings else value


class _Reader:
    """One pass over one text."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.document = YamlDocument()
        self.open: set[int] = set()
        self.count = 0

    def fault(
        self, code: str, message: str, fix: str, line: int | None, key: FieldPath = ()
    ) -> None:
        """Note an error of the text."""
        self.document.findings.append(
            Finding("error", code, message, fix, self.file, line, ".".join(key) or None)
        )

    def decode(self, raw: bytes) -> str | None:
        """The bytes as text, None with a finding when they are none."""
        if len(raw) > MAX_FILE_BYTES:
            self.fault("FileTooLarge", f"a job file of {len(raw)} bytes", "is it data?", None)
            return None
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            line = raw.count(b"\n", 0, exc.start) + 1
            what = f"byte 0x{raw[exc.start]:02x} at offset {exc.start} is not UTF-8"
            self.fault("NotUtf8", what, "save the file as UTF-8", line)
            return None
        if not text.strip():
            self.fault("EmptyFile", "the job file is empty", "`cloudft init` writes one", 1)
            return None
        return text

    def compose(self, text: str) -> yaml.Node | None:
        """The text's one document as YAML nodes, None with a finding when it has none."""
        import yaml

        try:
            # The Python parser, not libyaml's: the latter crashes on deep nesting.
            node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as exc:
            self.broken(exc, text)
        except RecursionError:
            self.fault("BadYaml", "the nesting is too deep", "write a job file", None)
        except ValueError as exc:  # such as a %YAML directive with a huge number
            self.fault("BadYaml", str(exc), "correct the file", None)
        else:
            if node is None:
                self.fault("EmptyFile", "the job file says nothing", "`cloudft init` writes one", 1)
            return node
        return None

    def broken(self, exc: yaml.YAMLError, text: str) -> None:
        """Note what the YAML parser stumbled on."""
        mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
        line = mark.line if mark else text.count("\n", 0, getattr(exc, "position", 0))
        what = getattr(exc, "problem", None) or str(exc).splitlines()[0]
        fix = "correct the YAML"
        if "'\\t'" in what:
            fix = "indent with spaces: YAML allows no tabs there"
        elif "but found another document" in what:
            fix = "keep one document: remove the line ---"
        self.fault("BadYaml", f"not YAML: {what}", fix, line + 1)

    def top(self, node: yaml.Node) -> dict[str, Any] | None:
        """The document's mapping, None with a finding when it is something else."""
        value = self.value(node, ())
        if isinstance(value, dict):
            return value
        found = "a list" if isinstance(value, list) else "a single value"
        line = node.start_mark.line + 1
        self.fault("NotAMapping", f"a job file is a mapping, this is {found}", "`key: value`", line)
        return None

    def value(self, node: yaml.Node, key: FieldPath) -> object:
        """A node as plain data. Guards against aliases that loop or multiply."""
        self.count += 1
        if id(node) in self.open or self.count > MAX_VALUES:
            if self.count <= MAX_VALUES + 1 or id(node) in self.open:
                line = node.start_mark.line + 1
                self.fault("BadYaml", "aliases that grow without end", "write it out", line, key)
            return None
        self.open.add(id(node))
        self.document.lines.setdefault(key, node.start_mark.line + 1)
        try:
            return self.plain(node, key)
        finally:
            self.open.discard(id(node))

    def plain(self, node: yaml.Node, key: FieldPath) -> object:
        """The node's value by its kind: mapping, list or word."""
        import yaml

        known = {"map": yaml.MappingNode, "seq": yaml.SequenceNode}
        kind = node.tag.removeprefix(_PREFIX)
        if kind in known and isinstance(node, known[kind]):
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, key)
            return [self.value(item, (*key, str(i))) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind == "str":
            return _number_or_text(node)
        if isinstance(node, yaml.ScalarNode) and node.tag in _TAGS_OF_WORDS and not node.style:
            return parse_scalar(node.value)
        line = node.start_mark.line + 1
        self.fault("BadYaml", f"the tag {node.tag!r} is not allowed", "remove the tag", line, key)
        return None

    def mapping(self, node: yaml.MappingNode, key: FieldPath) -> dict[str, Any]:
        """A mapping whose keys are words, each once."""
        import yaml

        found: dict[str, Any] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                self.fault("BadYaml", "a key that is no word", "write `key: value`", line, key)
                continue
            name = name_node.value
            inner = (*key, name)
            if name in found:
                self.twice(name, line, inner)
                continue
            self.document.lines[inner] = line
            found[name] = self.value(value_node, inner)
        return found

    def twice(self, name: str, line: int, key: FieldPath) -> None:
        """Note a key that stands twice in one mapping."""
        first = self.document.lines[key]
        message = f"{name!r} stands here again (first on line {first})"
        self.fault("DuplicateKey", message, "keep one of the two", line, key)


def _number_or_text(node: yaml.ScalarNode) -> str:
    """YAML 1.1 calls an unquoted 1e-5 text; a field of numbers may take it as one."""
    found = parse_scalar(node.value) if not node.style else None
    return found if isinstance(found, UntypedScalar) else str(node.value)


def flatten(tree: Mapping[str, Any], prefix: FieldPath = ()) -> list[tuple[FieldPath, Any]]:
    """Every value of a tree with its key; an empty mapping and a list count as values."""
    found: list[tuple[FieldPath, Any]] = []
    for name, value in tree.items():
        key = (*prefix, name)
        if isinstance(value, Mapping) and value:
            found += flatten(value, key)
        else:
            found.append((key, value))
    return found
