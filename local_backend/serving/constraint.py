"""Constrain an answer to JSON that keeps a schema, by llguidance.

llguidance refuses what it can't keep; xgrammar and outlines silently leave keywords out.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from local_backend.errors import SchemaError, TrainerError
from local_backend.serving.deep_calls import DeepCalls
from local_backend.serving.schema_refs import find_circular_ref

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from local_backend.models.load_model import LoadedModel

WHITE_SPACE = r"[ \n\r\t]{0,24}"
"""White space between the parts of JSON, as json.dumps writes it with and without `indent`. With no
limit, a weak model may write nothing else to the end."""
STACK_BYTES = 256 << 20
"""Stack in which a schema is compiled: llguidance 1.9.1 calls itself while it reads one, and the
end of a stack is the end of the process. Memory is taken as it is used."""
COMPILED_AT_ONCE = 2
"""Schemas, so that a quick one does not wait for a slow one."""
KEPT_SCHEMAS = 64
"""Compiled schemas that later requests find again: those that were used last."""
INSTALL = "`pip install 'cloudft[serve]'` installs it."
NO_VALUE = "NoExtensionBias"
"""llguidance's word for an answer that nothing can follow and that is not complete."""


class SchemaCompiler:
    """Compiles the schemas of requests to one model, beside the steps, each once.

    What llguidance needs to know of the tokenizer is made at the first schema (about a second).
    """

    def __init__(self, loaded: LoadedModel, vocabulary: int, calls: DeepCalls) -> None:
        self._loaded, self._vocabulary, self._calls = loaded, vocabulary, calls
        self._made: LLTokenizer | None = None
        self._making = threading.Lock()
        self._kept: OrderedDict[str, _Compilation] = OrderedDict()

    def start(self, schema: Mapping[str, Any]) -> PendingConstraint:
        """Begin to compile a schema, or find it compiled."""
        text = json.dumps(schema)
        compilation = self._kept.get(text)
        if compilation is None or compilation.is_void:
            matcher = self._calls.submit(partial(self._compile, schema, text), len(text))
            compilation = self._kept[text] = _Compilation(matcher)
        self._kept.move_to_end(text)
        while len(self._kept) > KEPT_SCHEMAS:
            self._kept.popitem(last=False)
        return PendingConstraint(compilation, self._vocabulary)

    def _compile(self, schema: Mapping[str, Any], text: str) -> LLMatcher:
        """Return what follows the schema. Raise SchemaError for one that isn't kept whole."""
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise TrainerError(
                "An answer is constrained to a JSON schema by llguidance, which is not installed.",
                fix=INSTALL,
            ) from error
        circular = find_circular_ref(schema)
        if circular is not None:
            raise SchemaError(
                f"The JSON schema can't be kept: its '$ref' {circular!r} leads back to itself, so"
                " it describes no value.",
                fix="let '$ref' lead to a schema that has other keywords.",
            )
        options: Any = {"whitespace_pattern": WHITE_SPACE, "lenient": False}
        try:
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=options)
            matcher = LLMatcher(self._tokenizer(), grammar, log_level=0)
        except ValueError as error:  # a number or a nesting that its JSON reader does not take
            raise _schema_error(str(error), schema) from error
        if matcher.is_error():
            raise _schema_error(matcher.get_error(), schema)
        warnings = matcher.get_grammar_warnings()
        if warnings:
            raise _schema_error(" ".join(warnings), schema)
        return matcher

    def _tokenizer(self) -> LLTokenizer:
        with self._making:
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


class _Compilation:
    """A schema that is compiled, once for all requests that have it."""

    def __init__(self, matcher: Future[LLMatcher]) -> None:
        self.matcher = matcher
        self.waiting = 0
        """Requests that have not taken their constraint yet."""

    @property
    def is_void(self) -> bool:
        """Return whether it was canceled, or failed in a way that need not happen again."""
        if not self.matcher.done():
            return False
        if self.matcher.cancelled():
            return True
        error = self.matcher.exception()
        return error is not None and not isinstance(error, SchemaError)


class PendingConstraint:
    """The constraint of one answer, from the time that its schema is compiled."""

    def __init__(self, compilation: _Compilation, vocabulary: int) -> None:
        self._compilation, self._vocabulary = compilation, vocabulary
        compilation.waiting += 1

    @property
    def is_done(self) -> bool:
        """Return whether `take` returns or raises at once."""
        return self._compilation.matcher.done()

    @property
    def has_begun(self) -> bool:
        """Return whether the schema is being compiled, and does not wait for other schemas."""
        return self._compilation.matcher.running()

    def call_when_done(self, call: Callable[[], None]) -> None:
        """Call this, in any thread, when `is_done` is True."""
        self._compilation.matcher.add_done_callback(lambda _: call())

    def take(self) -> JsonConstraint:
        """Return the constraint. Raise what the compilation has raised."""
        self._compilation.waiting -= 1
        return JsonConstraint(self._compilation.matcher.result().deep_copy(), self._vocabulary)

    def cancel(self) -> None:
        """Do not compile the schema, unless that has begun or another request has it."""
        self._compilation.waiting -= 1
        if not self._compilation.waiting:
            self._compilation.matcher.cancel()


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
