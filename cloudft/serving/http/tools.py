"""Tools of a chat completion: what the model sees of them, and how a call is made certain.

With `tool_choice` `auto` the model writes calls as its chat template does, and the engine reads
them. A call that is `required`, or that of one named function, is written as JSON that a schema
constrains, and read from that: for a named function its arguments alone.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from cloudft.serving.http.errors import ApiError, invalid
from cloudft.web.json_text import load_json_text

MAX_TOOLS = 128
CALL_ID_CHARACTERS = string.ascii_letters + string.digits
CALL_ID_LENGTH = 9
"""Letters and digits of a call's id: as many as Mistral's chat templates take."""
NO_PARAMETERS = {"type": "object", "properties": {}}
JsonObject = dict[str, Any]


class FunctionTool(Struct, forbid_unknown_fields=True):
    """A function that can be called. `strict` changes nothing: see docs/how-to/serve-locally.md."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, forbid_unknown_fields=True):
    """A tool of a request."""

    function: FunctionTool
    type: str = "function"


class NamedFunction(Struct, forbid_unknown_fields=True):
    """The name of the function that shall be called."""

    name: str


class NamedChoice(Struct, forbid_unknown_fields=True):
    """A `tool_choice` that names a function."""

    function: NamedFunction
    type: str = "function"


@dataclass(frozen=True)
class ToolUse:
    """How an answer may use tools.

    `config` is Converse's, None where the model sees no tools. With `schema` the answer is JSON
    that is a call, or several; `named` is the function whose arguments it is.
    """

    config: JsonObject | None = None
    schema: JsonObject | None = None
    named: str | None = None
    only_one: bool = False


@dataclass(frozen=True)
class ToolCall:
    """A call that a model has written. `arguments` is JSON text."""

    name: str
    arguments: str
    id: str = ""

    def to_json(self) -> JsonObject:
        """Return the call as OpenAI's API writes it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def new_call_id() -> str:
    """Return a new id of a call."""
    return "".join(secrets.choice(CALL_ID_CHARACTERS) for _ in range(CALL_ID_LENGTH))


def make_tool_use(
    tools: Sequence[Tool] | None, choice: str | NamedChoice | None, parallel: bool | None
) -> ToolUse:
    """Return how an answer may use the tools of a request. Raise ApiError."""
    functions = _functions(tools or [])
    if isinstance(choice, NamedChoice):
        return _use_named(functions, choice, parallel)
    if choice not in (None, "none", "auto", "required"):
        message = f"'tool_choice' is {choice[:40]!r}; write none, auto, required or a function."
        raise invalid(message, "tool_choice", "invalid_value")
    if not functions:
        if choice in (None, "none"):
            return ToolUse()
        message = f"'tool_choice' is {choice!r}, but there are no 'tools'."
        raise invalid(message, "tool_choice", "invalid_value")
    if choice == "none":
        return ToolUse()
    config = _tool_config(functions)
    schema = _calls_schema(functions, parallel) if choice == "required" else None
    return ToolUse(config, schema, only_one=parallel is False)


def _functions(tools: Sequence[Tool]) -> dict[str, FunctionTool]:
    if len(tools) > MAX_TOOLS:
        raise invalid(f"There are more than {MAX_TOOLS} tools.", "tools", "invalid_value")
    functions: dict[str, FunctionTool] = {}
    for index, tool in enumerate(tools):
        if tool.type != "function":
            message = f"tools[{index}].type is {tool.type[:40]!r}; functions alone are supported."
            raise invalid(message, f"tools[{index}].type", "invalid_value")
        if tool.function.name in functions:
            message = f"There are two tools called {tool.function.name!r}."
            raise invalid(message, f"tools[{index}].function.name", "invalid_value")
        functions[tool.function.name] = tool.function
    return functions


def _use_named(
    functions: Mapping[str, FunctionTool], choice: NamedChoice, parallel: bool | None
) -> ToolUse:
    name = choice.function.name
    if choice.type != "function" or name not in functions:
        raise invalid(
            f"'tool_choice' names the function {name[:100]!r}, which is not in 'tools'.",
            "tool_choice",
            "invalid_value",
        )
    schema = functions[name].parameters or NO_PARAMETERS
    return ToolUse(_tool_config(functions), schema, name, only_one=parallel is False)


def _tool_config(functions: Mapping[str, FunctionTool]) -> JsonObject:
    """Return Converse's `toolConfig`."""
    specs = []
    for function in functions.values():
        spec: JsonObject = {"name": function.name}
        if function.description:
            spec["description"] = function.description
        spec["inputSchema"] = {"json": function.parameters or NO_PARAMETERS}
        specs.append({"toolSpec": spec})
    return {"tools": specs}


def _calls_schema(functions: Mapping[str, FunctionTool], parallel: bool | None) -> JsonObject:
    """Return the schema of one call, or of a list of them: as answers are written in training.

    `$ref`s of parameters point into their own schema, so each has its `$defs` moved to the top.
    """
    definitions: JsonObject = {}
    calls = []
    for number, function in enumerate(functions.values()):
        parameters = _with_own_definitions(
            function.parameters or NO_PARAMETERS, f"tool{number}_", definitions
        )
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "arguments": parameters},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    one: JsonObject = {"anyOf": calls} if len(calls) > 1 else calls[0]
    several = {"type": "array", "items": one, "minItems": 1}
    schema: JsonObject = one if parallel is False else {"anyOf": [one, several]}
    return {"$defs": definitions, **schema} if definitions else schema


def _with_own_definitions(schema: JsonObject, prefix: str, definitions: JsonObject) -> JsonObject:
    """Return a schema whose `$defs` are in `definitions`, under names that begin with `prefix`."""
    kept = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    for group in ("$defs", "definitions"):
        found = schema.get(group)
        for name, definition in found.items() if isinstance(found, dict) else ():
            definitions[prefix + name] = _rename_refs(definition, prefix)
    renamed: JsonObject = _rename_refs(kept, prefix)
    return renamed


def _rename_refs(value: Any, prefix: str) -> Any:
    if isinstance(value, list):
        return [_rename_refs(inner, prefix) for inner in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _rename_refs(inner, prefix) for key, inner in value.items()}
    ref = value.get("$ref")
    if isinstance(ref, str):
        for start in ("#/$defs/", "#/definitions/"):
            if ref.startswith(start):
                renamed["$ref"] = f"#/$defs/{prefix}{ref.removeprefix(start)}"
    return renamed


def parse_calls(use: ToolUse, text: str, calls: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
    """Return the tool calls of an answer: those that the engine has read, or the JSON of `text`.

    JSON that the end of the answer has cut off is no call.
    """
    if use.schema is None:
        found = [(call["name"], call["arguments"]) for call in calls]
    elif use.named is not None:
        is_whole = _loads(text) is not None
        return [ToolCall(use.named, text.strip(), new_call_id())] if is_whole else []
    else:
        value = _loads(text)
        values = value if isinstance(value, list) else [value]
        found = [(v["name"], v["arguments"]) for v in values if _is_call(v)]
    if use.only_one:
        found = found[:1]
    return [
        ToolCall(name, json.dumps(arguments, ensure_ascii=False), new_call_id())
        for name, arguments in found
    ]


def _is_call(value: object) -> bool:
    return isinstance(value, dict) and {"name", "arguments"} <= value.keys()


def _loads(text: str) -> Any:
    try:
        return load_json_text(text)
    except ValueError:
        return None


def text_before_calls(text: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of an answer without the JSON of the calls that the engine has read."""
    if not calls:
        return text
    from cloudft.data.formats.record import ToolCall as RecordCall
    from cloudft.data.formats.record import join_answer

    written = [RecordCall("", call["name"], call["arguments"]) for call in calls]
    return text.removesuffix(join_answer("", written)).removesuffix("\n")


def wrong_tools(message: str) -> ApiError:
    """Return the error of tools that a model's chat template does not render."""
    return invalid(message, "tools", "unsupported_parameter")
