"""Constrain an answer to JSON that keeps a schema, by llguidance.

llguidance refuses what it can't keep; xgrammar and outlines silently leave keywords out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from local_backend.errors import SchemaError, TrainerError
from local_backend.serving.deep_calls import call_with_stack
from local_backend.serving.schema_refs import find_circular_ref

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from local_backend.models.load_model import LoadedModel

WHITE_SPACE = r"[ \n\r\t]{0,24}"
"""White space between the parts of JSON, as json.dumps writes it with and without `indent`. With no
limit, a weak model may write nothing else to the end."""
STACK_BYTES = 256 << 20
"""Stack in which a schema is compiled: llguidance 1.9.1 calls itself while it reads one, and the
end of a stack is the end of the process. Memory is taken as it is used."""
INSTALL = "`pip install 'cloudft[serve]'` installs it."
NO_VALUE = "NoExtensionBias"
"""llguidance's word for an answer that nothing can follow and that is not complete."""


class SchemaTokenizer:
    """What llguidance needs to know of a tokenizer; made at the first schema (about a second)."""

    def __init__(self, loaded: LoadedModel, vocabulary: int) -> None:
        self._loaded, self._vocabulary = loaded, vocabulary
        self._made: LLTokenizer | None = None

    def start(self, schema: Mapping[str, Any]) -> JsonConstraint:
        """Return the constraint of one answer. Raise SchemaError for a schema that isn't kept."""
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise TrainerError(
                "An answer is constrained to a JSON schema by llguidance, which is not installed.",
                fix=INSTALL,
            ) from error
        tokenizer = self._tokenizer()
        circular = find_circular_ref(schema)
        if circular is not None:
            raise SchemaError(
                f"The JSON schema can't be kept: its '$ref' {circular!r} leads back to itself, so"
                " it describes no value.",
                fix="let '$ref' lead to a schema that has other keywords.",
            )

        def compile_schema() -> LLMatcher:
            grammar = LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides={"whitespace_pattern": WHITE_SPACE, "lenient": False}
            )
            is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
            if is_error or messages:
                raise _schema_error(" ".join(messages), schema)
            return LLMatcher(tokenizer, grammar, log_level=0)

        try:
            matcher = call_with_stack(compile_schema, STACK_BYTES)
        except ValueError as error:  # a number or a nesting that its JSON reader does not take
            raise _schema_error(str(error), schema) from error
        if matcher.is_error():
            raise _schema_error(matcher.get_error(), schema)
        return JsonConstraint(matcher, self._vocabulary)

    def _tokenizer(self) -> LLTokenizer:
        if self._made is None:
            import llguidance.hf

            tokenizer: Any = self._loaded.tokenizer
            try:
                self._made = llguidance.hf.from_tokenizer(
                    tokenizer, n_vocab=self._vocabulary, eos_token=list(self._loaded.stop_ids)
                )
            except ValueError as error:
                raise TrainerError(
                    f"llguidance can't read the model's tokenizer: {error}",
                    fix="send the request without a JSON schema.",
                ) from error
        return self._made


class JsonConstraint:
    """Which tokens one answer may go on with."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> torch.Tensor:
        """Return the tokens that may come next, bool [vocabulary].

        Raise TrainerError where llguidance gives up. By its mask alone the answer would end there.
        """
        packed = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise self._broken_off_error()
        bits = np.frombuffer(packed, dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool)
        found = torch.from_numpy(mask)
        if len(found) < self._vocabulary:  # rows of the embedding that no token has
            found = torch.cat([found, found.new_zeros(self._vocabulary - len(found))])
        return found

    def take(self, token: int) -> bool:
        """Note the token that was chosen; return whether the answer ends with it.

        Raise SchemaError where llguidance gives up.
        """
        if not self._matcher.consume_token(token):
            raise self._broken_off_error()
        return bool(self._matcher.is_stopped())

    def _broken_off_error(self) -> SchemaError:
        reason = _first_line(self._matcher.get_error())
        if reason == NO_VALUE:
            reason = "a part of it fits no value"
        return SchemaError(
            f"The JSON schema can't be kept any further: {reason}", fix="simplify the schema."
        )


def _schema_error(message: str, schema: Mapping[str, Any]) -> SchemaError:
    """Return the error of a schema that can't be kept whole, which names the keyword."""
    line = _reason(message)
    quoted = re.findall(r'"([^"]+)"|`([^`]+)`|\'([^\']+)\'', line)
    names = [name for group in quoted for name in group if name and _has_key(schema, name)]
    fix = (
        f"leave {' and '.join(dict.fromkeys(names))} out of the schema."
        if names
        else "leave what it names out of the schema."
    )
    return SchemaError(f"The JSON schema can't be kept: {line}", fix=fix)


def _reason(message: str) -> str:
    """Return what is wrong with a schema, in one line.

    Of a regular expression llguidance shows the place first and says what is wrong in the end.
    """
    line = _first_line(message)
    if line.startswith("oneOf"):
        return "its 'oneOf' has alternatives that may hold at the same time; 'anyOf' can be kept"
    if line.startswith("regex parse error"):
        reason = message.strip().splitlines()[-1].removeprefix("error: ")
        return f"regular expression of a 'pattern': {reason}"
    return line


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[0]


def _has_key(value: object, name: str) -> bool:
    if isinstance(value, Mapping):
        return name in value or any(_has_key(item, name) for item in value.values())
    return isinstance(value, list) and any(_has_key(item, name) for item in value)
