"""Turn values of Arrow tables into those that JSON has, by the schema: JSON columns, names, times.

A column says more than its values: which texts are JSON (Arrow's extension type `arrow.json`, or
Parquet's logical type), which numbers are classes (the feature types that the datasets library
keeps in the schema), and which numbers are times.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from cloudft.data.formats.record import JsonObject

Decode = Callable[[Any], object]
"""Turns one value that is not null into what it means."""
JSON_TYPES = frozenset({"arrow.json"})
"""Names of Arrow's extension types whose storage is JSON text."""
MESSAGE_FIELDS = (frozenset({"role", "content"}), frozenset({"from", "value"}))
_NO_FEATURES: Mapping[str, object] = {}


class RowDecoder:
    """Decodes the rows of one table.

    `schema` is pyarrow's. `json_leaves` says for each leaf column, in the order of the schema,
    whether the file's own format marks it as JSON; empty where the file has no such marks.
    """

    def __init__(self, schema: Any, json_leaves: Sequence[bool] = ()) -> None:
        leaves = iter(json_leaves)
        features = _read_features(schema)
        self._decoders: dict[str, Decode] = {}
        self.class_columns: list[str] = []
        """Top-level columns whose numbers are replaced by the names of classes."""
        for field in schema:
            feature = features.get(field.name)
            decode = _field_decoder(field, feature, leaves)
            if decode is not None:
                self._decoders[field.name] = decode
            if _feature_type(feature) == "ClassLabel":
                self.class_columns.append(field.name)

    @property
    def has_decoders(self) -> bool:
        """Return whether a column's values are not what they mean."""
        return bool(self._decoders)

    def decode(self, row: JsonObject) -> JsonObject:
        """Change the row's values to what they mean, and return it."""
        for name, decode in self._decoders.items():
            value = row[name]
            if value is not None:
                row[name] = decode(value)
        return row


def _field_decoder(field: Any, feature: object, leaves: Iterator[bool]) -> Decode | None:
    metadata = field.metadata or {}
    name = metadata.get(b"ARROW:extension:name", b"").decode("utf-8", "replace")
    if name in JSON_TYPES:  # a pyarrow that does not know the type shows its storage
        next(leaves, None)
        return _decode_json
    return _decoder(field.type, feature, leaves)


def _decoder(type: Any, feature: object, leaves: Iterator[bool]) -> Decode | None:
    """Return what decodes values of a type; None if they are what they are."""
    from importlib import import_module

    types = import_module("pyarrow.types")
    if getattr(type, "extension_name", "") in JSON_TYPES:
        next(leaves, None)
        return _decode_json
    storage = getattr(type, "storage_type", None)
    if storage is not None:  # another extension type: Python's own type for it, where there is one
        inner = _decoder(storage, feature, leaves)
        return str if type.extension_name == "arrow.uuid" else inner
    if types.is_dictionary(type):
        type = type.value_type
    if types.is_struct(type):
        members = _members(feature)
        decoders = {
            inner.name: _field_decoder(inner, members.get(inner.name), leaves)
            for inner in (type.field(i) for i in range(type.num_fields))
        }
        known = {k: d for k, d in decoders.items() if d is not None}
        if _holds_columns(types, type):
            return partial(_decode_columns, known)
        return partial(_decode_struct, known)
    if types.is_map(type):
        keys = _field_decoder(type.key_field, None, leaves)
        items = _field_decoder(type.item_field, None, leaves)
        return partial(_decode_map, keys or str, items)
    if type.num_fields == 1:  # a list of any kind
        return partial(_decode_list, _field_decoder(type.field(0), _element(feature), leaves))
    is_json = next(leaves, False)
    return _decode_json if is_json else _leaf_decoder(types, type, feature)


def _leaf_decoder(types: Any, type: Any, feature: object) -> Decode | None:
    if types.is_integer(type):
        names = _class_names(feature)
        return partial(_decode_class, names) if names else None
    if types.is_temporal(type):
        return _decode_duration if types.is_duration(type) else _decode_time
    if types.is_decimal(type):
        return str
    if types.is_float32(type) or types.is_float16(type):
        return partial(_shorten, 9 if types.is_float32(type) else 5)
    if types.is_binary(type) or types.is_large_binary(type) or types.is_fixed_size_binary(type):
        return _decode_bytes
    return None


def _decode_struct(decoders: Mapping[str, Decode], value: Mapping[str, object]) -> JsonObject:
    """Return the fields that are there: a struct names every field of its type, null or not."""
    return {
        key: decoders[key](item) if key in decoders else item
        for key, item in value.items()
        if item is not None
    }


def _holds_columns(types: Any, type: Any) -> bool:
    """Return whether a struct is a list of messages by columns, as datasets stored lists of dicts.

    Older versions did so for every `Sequence` of a dict.
    """
    names = {type.field(i).name for i in range(type.num_fields)}
    are_lists = all(types.is_list(type.field(i).type) for i in range(type.num_fields))
    return are_lists and any(names >= pair for pair in MESSAGE_FIELDS)


def _decode_columns(decoders: Mapping[str, Decode], value: Mapping[str, object]) -> object:
    """Return the messages of a struct that has a list for each field, if these are of a length."""
    columns = _decode_struct(decoders, value)
    lists = [item for item in columns.values() if isinstance(item, list)]
    if len({len(item) for item in lists}) != 1:
        return columns
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*lists, strict=True)]
    return [{key: cell for key, cell in row.items() if cell is not None} for row in rows]


def _decode_list(decode: Decode | None, value: Sequence[object]) -> list[object]:
    if decode is None:
        return list(value)
    return [None if item is None else decode(item) for item in value]


def _decode_map(
    keys: Decode, items: Decode | None, value: Sequence[tuple[object, object]]
) -> JsonObject:
    return {
        str(keys(key)): items(item) if items and item is not None else item for key, item in value
    }


def _decode_json(value: object) -> object:
    """Return the value that a JSON text holds; the text itself if it holds none."""
    import orjson

    if not isinstance(value, (str, bytes)):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        try:
            return json.loads(value)  # DuckDB writes NaN
        except ValueError:
            return value


def _decode_class(names: Sequence[str | None], value: int) -> object:
    """Return the name of a class. datasets writes -1 for "no class known"."""
    if value == -1:
        return None
    return names[value] if 0 <= value < len(names) else value


def _decode_time(value: object) -> str:
    """Return a date or time as ISO 8601 has it; midnight without a zone is the date alone."""
    text = str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
    return text.removesuffix("T00:00:00")


def _decode_duration(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


def _shorten(digits: int, value: float) -> float:
    """Return the shortest number that is the same in single precision: 0.1, not 0.10000000149."""
    import numpy as np

    return float(str(np.float32(value) if digits == 9 else np.float16(value)))


def _decode_bytes(value: bytes) -> object:
    """Return texts of writers that do not mark them as such; other bytes in Base64."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")


def _read_features(schema: Any) -> Mapping[str, object]:
    """Return the feature types by column that the datasets library keeps in a schema."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(raw)["info"]["features"] if raw else None
    except (ValueError, KeyError, TypeError):
        return _NO_FEATURES
    return features if isinstance(features, dict) else _NO_FEATURES


def _feature_type(feature: object) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _class_names(feature: object) -> Sequence[str | None]:
    names = feature.get("names") if isinstance(feature, dict) else None
    is_class = _feature_type(feature) == "ClassLabel" and isinstance(names, list)
    return list(names) if is_class and names else []


def _element(feature: object) -> object:
    """Return the feature of a list's elements: datasets has had several ways to write it."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, dict) else None


def _members(feature: object) -> Mapping[str, object]:
    return feature if isinstance(feature, dict) and "_type" not in feature else _NO_FEATURES
