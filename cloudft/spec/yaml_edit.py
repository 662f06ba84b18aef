"""Change values in a job file's text, and keep everything else: comments, order, quotes.

The values' positions come from YAML's own nodes; only their characters are replaced. A value that
the file does not have is added at the end of its mapping, as a line of its own in block style.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from cloudft.errors import UsageError
from cloudft.spec.yaml_source import FieldPath

if TYPE_CHECKING:
    import yaml

INDENT = 2


class _Edit(NamedTuple):
    """Characters `start` to `end` of the text, and what takes their place."""

    start: int
    end: int
    text: str


def edit_yaml(text: str, changes: Mapping[FieldPath, object]) -> str:
    """Return the text with other values at these paths. Raise UsageError where that can't be done.

    Values are scalars, or lists of them.
    """
    import yaml

    for path, value in changes.items():
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise _refused(path, "the file is no mapping")
        edit = _replace_or_add(text, root, path, value)
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def write_scalar(value: object) -> str:
    """Return a value as YAML on one line."""
    import yaml

    if isinstance(value, float):
        # As people write it: 3e-04 would be text in YAML 1.1, 0.0003 is a number everywhere.
        text = f"{value:.10f}".rstrip("0") if 1e-6 <= abs(value) < 1e15 else f"{value:.6e}"
        return f"{text}0" if text.endswith(".") else text
    dumped: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _replace_or_add(text: str, root: yaml.MappingNode, path: FieldPath, value: object) -> _Edit:
    """Return the edit that sets the value at `path` in this document."""
    import yaml

    mapping: yaml.Node = root
    for depth, name in enumerate(path):
        assert isinstance(mapping, yaml.MappingNode)
        pair = next((p for p in mapping.value if p[0].value == name), None)
        if pair is None:
            return _add(text, mapping, path[depth:], value)
        key, node = pair
        # An anchor's value is used elsewhere too; an alias is written after its own key.
        if node.start_mark.index < key.end_mark.index or _has_anchor(text, key, node):
            raise _refused(path, "its value is an anchor or an alias")
        if depth == len(path) - 1:
            return _Edit(node.start_mark.index, _end_of(text, node), write_scalar(value))
        if not isinstance(node, yaml.MappingNode):
            if text[node.start_mark.index : node.end_mark.index].strip() in ("", "~", "null"):
                return _fill_empty(text, key, node, path[depth + 1 :], value)
            raise _refused(path, f"{'.'.join(path[: depth + 1])} is no mapping")
        mapping = node
    raise AssertionError("a path has a name")


def _has_anchor(text: str, key: yaml.Node, node: yaml.Node) -> bool:
    """Return whether a value has an anchor, which another one refers to."""
    between = text[key.end_mark.index : node.start_mark.index + 1].partition("#")[0]
    return "&" in between


def _end_of(text: str, node: yaml.Node) -> int:
    """Return the end of a node's own characters: of a block, without the comments after it."""
    import yaml

    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        key, value = last if isinstance(last, tuple) else (last, last)
        return max(int(key.end_mark.index), _end_of(text, value))
    start = int(node.start_mark.index)
    return start + len(text[start : node.end_mark.index].rstrip())


def _fill_empty(
    text: str, key: yaml.Node, node: yaml.Node, rest: FieldPath, value: object
) -> _Edit:
    """Return the edit that gives a key without a value (`local:`) a mapping."""
    end = key.end_mark.index + text[key.end_mark.index :].index(":") + 1
    inner = "".join(f"{name}: {{" for name in rest[:-1])
    closing = "}" * len(rest[:-1])
    return _Edit(
        end,
        max(end, node.end_mark.index if node.value else end),
        f" {{{inner}{rest[-1]}: {write_scalar(value)}{closing}}}",
    )


def _add(text: str, mapping: yaml.MappingNode, names: FieldPath, value: object) -> _Edit:
    """Return the edit that adds a key, and the mappings it is in, at the end of a mapping."""
    if mapping.flow_style:
        inner = "".join(f"{name}: {{" for name in names[:-1])
        added = f"{inner}{names[-1]}: {write_scalar(value)}" + "}" * (len(names) - 1)
        at = mapping.end_mark.index - 1
        before = text[: mapping.end_mark.index - 1].rstrip()
        separator = "" if before.endswith(("{", ",")) else ", "
        if before.endswith(","):
            separator = " "
        return _Edit(len(before), at, separator + added)
    last = mapping.value[-1][1] if mapping.value else mapping
    column = mapping.start_mark.column
    end = max(_end_of(text, last), mapping.value[-1][0].end_mark.index if mapping.value else 0)
    line_end = text.find("\n", end)
    at = len(text) if line_end < 0 else line_end + 1
    lines = [f"{' ' * (column + INDENT * n)}{name}:" for n, name in enumerate(names)]
    lines[-1] += f" {write_scalar(value)}"
    begin = "\n" if line_end < 0 and text and not text.endswith("\n") else ""
    return _Edit(at, at, begin + "\n".join(lines) + "\n")


def _refused(path: FieldPath, why: str) -> UsageError:
    dotted = ".".join(path)
    return UsageError(
        f"{dotted} can't be changed in the file: {why}", field=dotted, fix="set it by hand."
    )
