"""Parse a YAML text into plain data, with the line of every value and every fault of the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudft.spec.yaml_scalars import UntypedScalar, parse_scalar
from cloudft.types import Finding

if TYPE_CHECKING:
    import yaml

FieldPath = tuple[str, ...]
"""The keys that lead to a value: ("local", "lora", "r"). A list's items have "0", "1" ..."""
JobTree = Mapping[str, object]
"""A job file's values by key, nested as in the file."""
TreeDict = dict[str, object]
MAX_FILE_BYTES = 256 * 1024
"""A job file has one or two thousand bytes."""
MAX_VALUES = 20_000
"""Values of a job file. Aliases can make a small file huge."""
_PREFIX = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_PREFIX + name for name in ("null", "bool", "int", "float", "timestamp", "value")}


@dataclass
class YamlDocument:
    """What a text holds: `data` (None when it can't be read), `lines` by path, `findings`."""

    data: TreeDict | None = None
    lines: dict[FieldPath, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def parse_yaml(raw: bytes, file: str) -> YamlDocument:
    """Return the document in `raw`. Never raises: what is wrong is in `findings`."""
    parser = _Parser(file)
    text = parser.decode(raw)
    if text is not None:
        node = parser.compose(text)
        if node is not None:
            parser.document.data = parser.convert_top(node)
    return parser.document


def parse_flow_value(text: str) -> object:
    """Return a value that a flag or a variable gives as `[a, b]`, `{a: b}` or `"a"`.

    Anything that isn't YAML of that kind is returned as the text it is.
    """
    parser = _Parser("")
    node = parser.compose(text)
    value = parser.convert(node, ()) if node is not None else None
    return text if node is None or parser.document.findings else value


class _Parser:
    """One pass over one text."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.document = YamlDocument()
        self.open_nodes: set[int] = set()
        self.count = 0

    def add_error(
        self, code: str, message: str, fix: str, line: int | None, path: FieldPath = ()
    ) -> None:
        """Add an error of the text."""
        self.document.findings.append(
            Finding("error", code, message, fix, self.file, line, ".".join(path) or None)
        )

    def decode(self, raw: bytes) -> str | None:
        """Return the bytes as text; None, with an error, if they are none."""
        if len(raw) > MAX_FILE_BYTES:
            self.add_error("FileTooLarge", f"a job file of {len(raw)} bytes", "is it data?", None)
            return None
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            line = raw.count(b"\n", 0, exc.start) + 1
            what = f"byte 0x{raw[exc.start]:02x} at offset {exc.start} is not UTF-8"
            self.add_error("NotUtf8", what, "save the file as UTF-8", line)
            return None
        if not text.strip():
            self.add_error("EmptyFile", "the job file is empty", "`cloudft init` writes one", 1)
            return None
        return text

    def compose(self, text: str) -> yaml.Node | None:
        """Return the text's one document as YAML nodes; None, with an error, if it has none."""
        import yaml

        try:
            # The Python parser, not libyaml's: the latter crashes on deep nesting.
            node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as exc:
            self.add_syntax_error(exc, text)
        except RecursionError:
            self.add_error("BadYaml", "the nesting is too deep", "write a job file", None)
        except ValueError as exc:  # such as a %YAML directive with a huge number
            self.add_error("BadYaml", str(exc), "correct the file", None)
        else:
            if node is None:
                fix = "`cloudft init` writes one"
                self.add_error("EmptyFile", "the job file has no content", fix, 1)
            return node
        return None

    def add_syntax_error(self, exc: yaml.YAMLError, text: str) -> None:
        """Add the error that the YAML parser raised."""
        mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
        line = mark.line if mark else text.count("\n", 0, getattr(exc, "position", 0))
        what = getattr(exc, "problem", None) or str(exc).splitlines()[0]
        fix = "correct the YAML"
        if "'\\t'" in what:
            fix = "indent with spaces: YAML allows no tabs there"
        elif "but found another document" in what:
            fix = "keep one document: remove the line ---"
        self.add_error("BadYaml", f"not YAML: {what}", fix, line + 1)

    def convert_top(self, node: yaml.Node) -> TreeDict | None:
        """Return the document's mapping; None, with an error, if it is something else."""
        value = self.convert(node, ())
        if isinstance(value, dict):
            return value
        kind = "a list" if isinstance(value, list) else "a single value"
        line = node.start_mark.line + 1
        message = f"a job file is a mapping, this is {kind}"
        self.add_error("NotAMapping", message, "`key: value`", line)
        return None

    def convert(self, node: yaml.Node, path: FieldPath) -> object:
        """Return a node as plain data. Guards against aliases that loop or multiply."""
        self.count += 1
        # An alias is the same node again: inside itself it is a loop, elsewhere it only counts.
        if id(node) in self.open_nodes or self.count > MAX_VALUES:
            if self.count <= MAX_VALUES + 1 or id(node) in self.open_nodes:
                line = node.start_mark.line + 1
                message = "aliases that grow without end"
                self.add_error("BadYaml", message, "write it out", line, path)
            return None
        self.open_nodes.add(id(node))
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        try:
            return self.convert_by_kind(node, path)
        finally:
            self.open_nodes.discard(id(node))

    def convert_by_kind(self, node: yaml.Node, path: FieldPath) -> object:
        """Return the node's value by its kind: mapping, list or scalar."""
        import yaml

        collections = {"map": yaml.MappingNode, "seq": yaml.SequenceNode}
        kind = node.tag.removeprefix(_PREFIX)
        if kind in collections and isinstance(node, collections[kind]):
            if isinstance(node, yaml.MappingNode):
                return self.convert_mapping(node, path)
            return [self.convert(item, (*path, str(i))) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind == "str":
            return _number_or_text(node)
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS and not node.style:
            return parse_scalar(node.value)
        line = node.start_mark.line + 1
        message = f"the tag {node.tag!r} is not allowed"
        self.add_error("BadYaml", message, "remove the tag", line, path)
        return None

    def convert_mapping(self, node: yaml.MappingNode, path: FieldPath) -> TreeDict:
        """Return a mapping whose keys are scalars, each once."""
        import yaml

        mapping: TreeDict = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                message = "a key that is a list or a mapping"
                self.add_error("BadYaml", message, "write `key: value`", line, path)
                continue
            name = name_node.value
            inner = (*path, name)
            if name in mapping:
                self.add_duplicate_key(name, line, inner)
                continue
            self.document.lines[inner] = line
            mapping[name] = self.convert(value_node, inner)
        return mapping

    def add_duplicate_key(self, name: str, line: int, path: FieldPath) -> None:
        """Add an error about a key that is repeated in one mapping."""
        first = self.document.lines[path]
        message = f"{name!r} is repeated here (first on line {first})"
        self.add_error("DuplicateKey", message, "keep one of the two", line, path)


def _number_or_text(node: yaml.ScalarNode) -> str:
    """Return a text node's value: an unquoted 1e-5, text in YAML 1.1, may be meant as a number."""
    value = parse_scalar(node.value) if not node.style else None
    return value if isinstance(value, UntypedScalar) else str(node.value)


def flatten(tree: JobTree, prefix: FieldPath = ()) -> list[tuple[FieldPath, object]]:
    """Return every value of a tree with its path; an empty mapping and a list count as values."""
    leaves: list[tuple[FieldPath, object]] = []
    for name, value in tree.items():
        path = (*prefix, name)
        if isinstance(value, Mapping) and value:
            leaves += flatten(value, path)
        else:
            leaves.append((path, value))
    return leaves
