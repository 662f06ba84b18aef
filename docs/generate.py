"""Write the generated parts of the documentation from the code: `python docs/generate.py`.

`reference/cli/` is generated whole. In other pages the text between `<!-- generated: NAME -->` and
`<!-- end -->` is replaced. `tests/e2e/test_docs.py` fails when a page is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import model_tables
import yaml

import cloudft
from cloudft import errors
from cloudft.catalogue import load_models
from cloudft.catalogue.model import Limits, MediaLimits
from cloudft.catalogue.quotas import load_quotas
from cloudft.cli.lazy_group import LazyGroup
from cloudft.cli.main import cloudft as cloudft_command
from cloudft.data.formats import pairs, reinforcement
from cloudft.data.formats.chat_roles import ROLES
from cloudft.data.formats.chat_writers import FEATURE_NAMES
from cloudft.data.formats.registry import all_formats
from cloudft.endpoint.supported_operations import render_markdown_table
from cloudft.spec.sections import job_model
from local_backend.export import runtime_results
from local_backend.export.gguf.families import GGUF_FAMILIES

DOCS = Path(__file__).resolve().parent
HELP_OPTIONS = ["-h", "--help"]
GENERATED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Schema = Mapping[str, Any]
"""A JSON Schema."""


def render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table. Pipes and line ends in cells are escaped."""

    def render_row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"

    return "\n".join([render_row(header), "|" + " --- |" * len(header), *map(render_row, rows)])


def list_commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every command; a group comes before its commands."""
    assert isinstance(group, LazyGroup)
    for name in group.list_commands(click.Context(group)):
        yield (*path, name)
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from list_commands(command, (*path, name))


def find_command(path: tuple[str, ...]) -> click.Command:
    """Return the command of a path."""
    command: click.Command = cloudft_command
    for name in path:
        assert isinstance(command, click.Group)
        child = command.get_command(click.Context(command), name)
        assert child is not None
        command = child
    return command


def render_command(path: tuple[str, ...]) -> str:
    """Return the page of one command: help text, usage, options, examples."""
    command, title = find_command(path), f"cloudft {' '.join(path)}"
    context = command.make_context(
        title, [], resilient_parsing=True, help_option_names=HELP_OPTIONS
    )
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"# {title}", inspect.cleandoc(command.help or ""), f"    {' '.join(usage.split())}"]
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [(f"`{name}`", text) for name, text in filter(None, records) if text]
    if isinstance(command, click.Group):
        children = list(list_commands(command, path))
        links = [(f"[{' '.join(c)}]({'-'.join(c)}.md)", _summary(c)) for c in children]
        parts += ["## Commands", render_table(("command", "purpose"), links)]
    if rows:
        parts += ["## Options", render_table(("option", "meaning"), rows)]
    if command.epilog:
        lines = inspect.cleandoc(command.epilog.replace("\b", "")).splitlines()
        shown = [line.strip() for line in lines if line.strip() and not line.startswith("Example")]
        parts += ["## Examples", "\n".join(f"    {line}" for line in shown)]
    return "\n\n".join(parts) + "\n"


def _summary(path: tuple[str, ...]) -> str:
    return find_command(path).get_short_help_str(limit=200)


def render_command_index() -> str:
    """Return the index of all commands, in the sections of `cloudft --help`."""
    assert isinstance(cloudft_command, LazyGroup)
    parts = []
    for section, commands in cloudft_command.sections.items():
        paths = [path for path in list_commands(cloudft_command) if path[0] in commands]
        rows = [(f"[{' '.join(path)}]({'-'.join(path)}.md)", _summary(path)) for path in paths]
        parts += [f"## {section}", render_table(("command", "purpose"), rows)]
    return "\n\n".join(parts)


def describe_type(schema: Schema) -> str:
    """Return the type of a field in a few words: a name, the choices, the limits."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            names = [describe_type(option) for option in schema[union]]
            return " or ".join(dict.fromkeys(name for name in names if name != "null"))
    kind = str(schema.get("type", "any value"))
    if kind == "array":
        return f"list of {describe_type(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"mapping of {describe_type(values)}" if isinstance(values, Mapping) else "mapping"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:,.10g}" for key, sign in signs.items() if key in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


def find_section(schema: Schema) -> str | None:
    """Return the name of the section that a field holds; None for a plain value."""
    references = [o["$ref"] for o in schema.get("anyOf", [schema]) if "$ref" in o]
    return str(references[0]).rpartition("/")[2] if len(references) == 1 else None


def list_fields(
    section: Schema, prefix: str, definitions: Schema
) -> Iterator[tuple[str, str, str, str]]:
    """Yield (field, type, default, description), those of inner sections by dotted name."""
    for name, schema in section["properties"].items():
        field, description = f"{prefix}{name}", str(schema.get("description", ""))
        inner = find_section(schema)
        if inner is not None:
            yield f"`{field}`", "section", "", description
            yield from list_fields(definitions[inner], f"{field}.", definitions)
            continue
        default = schema.get("default")
        shown = "" if default in (None, [], {}) else f"`{_yaml(default)}`"
        required = name in section.get("required", ())
        yield f"`{field}`", describe_type(schema), "required" if required else shown, description


def _yaml(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")


def render_job_file_fields() -> str:
    """Return a table of the fields of each top-level section of the job file."""
    schema = job_model().model_json_schema()
    definitions, header = schema["$defs"], ("field", "type", "default", "meaning")
    plain = {name: f for name, f in schema["properties"].items() if find_section(f) is None}
    top = {**schema, "properties": plain}
    parts = ["### Top level", render_table(header, list_fields(top, "", definitions))]
    for name, field in schema["properties"].items():
        section = find_section(field)
        if section is not None:
            rows = list_fields(definitions[section], f"{name}.", definitions)
            description = str(field.get("description", ""))
            parts += [f"### `{name}`", description, render_table(header, rows)]
    return "\n\n".join(parts)


def list_errors(
    error: type[errors.CloudftError] = errors.CloudftError,
) -> Iterator[type[errors.CloudftError]]:
    """Yield an error class and its subclasses in `cloudft.errors`, depth first."""
    if not error.__name__.startswith("_"):
        yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from list_errors(child)


def render_errors() -> str:
    """Return a table of the errors: class, code in JSON, exit code, meaning."""
    rows = [
        (f"`{e.__name__}`", f"`{e.code}`", str(e.exit_code), (e.__doc__ or "").partition("\n\n")[0])
        for e in dict.fromkeys(list_errors())
    ]
    return render_table(("exception", "`code` in JSON", "exit code", "meaning"), rows)


def render_python_api() -> str:
    """Return signature and docstring of everything that `import cloudft` exports."""
    parts = []
    for name in cloudft.__all__:
        if name.startswith("__"):
            continue
        value = getattr(cloudft, name)
        parts += [f"### `{name}`", *_describe(name, value)]
        for member in vars(value) if inspect.isclass(value) else ():
            function = getattr(value, member)
            if not member.startswith("_") and callable(function):
                parts += [f"#### `{name}.{member}`", *_describe(member, function)]
    return "\n\n".join(parts)


def _describe(name: str, value: Callable[..., object]) -> Iterator[str]:
    # A default without a spelling (`<function sleep>`) is shown as `...`.
    signature = re.sub(r"<[^<>]*>", "...", str(inspect.signature(value)).replace("'", ""))
    yield f"```python\n{name}{signature}\n```"
    yield inspect.cleandoc(value.__doc__ or "")


def render_layers() -> str:
    """Return a table of the import layers, the highest first."""
    layers = yaml.safe_load((DOCS / "explanation" / "layers.yaml").read_text(encoding="utf-8"))
    rows = [
        (str(number), f"`{name}`", purpose)
        for number, layer in reversed(list(enumerate(layers, start=1)))
        for name, purpose in layer.items()
    ]
    return render_table(("layer", "package", "purpose"), rows)


def _keys(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def render_pair_keys() -> str:
    """Return a table of the keys that a prompt with its answer may have."""
    contexts = sorted({key for keys in pairs.CONTEXT_KEYS.values() for key in keys})
    rows = [
        ("prompt", "yes", _keys(pairs.PROMPT_KEYS), "`prompt`"),
        ("answer", "yes", _keys(pairs.COMPLETION_KEYS), "`completion`"),
        ("system prompt", "", _keys(pairs.SYSTEM_KEYS), "`system`"),
        ("text that the prompt is about", "", _keys(contexts), "`context`"),
        ("reasoning before the answer", "", _keys(pairs.REASONING_KEYS), "`reasoning`"),
        ("earlier turns, `[[question, answer], ...]`", "", "`history`", "`history`"),
        ("tools", "", "`tools`", "`tools`"),
    ]
    return render_table(("what", "needed", "keys", "in `data.columns`"), rows)


def render_record_formats() -> str:
    """Return a table of the formats besides pairs: those trained on first, then those refused."""
    keys: dict[tuple[str, bool], list[str]] = {}
    for format in all_formats():
        if format.parse is not None and format not in pairs.FORMATS:
            title = format.title or format.name
            keys.setdefault((title, format.is_trained_on), []).append(_keys(format.keys.required))
    rows = [
        (title, "; ".join(sets), _trained_on(title, is_trained_on))
        for (title, is_trained_on), sets in sorted(keys.items(), key=lambda item: not item[0][1])
    ]
    return render_table(("format", "keys", "trained on"), rows)


def _trained_on(title: str, is_trained_on: bool) -> str:
    if is_trained_on:
        return "yes"
    if title in {f.title for f in (reinforcement.FORMAT, reinforcement.VERL_FORMAT)}:
        return "with REINFORCEMENT_FINE_TUNING"
    if title == reinforcement.PROMPT_FORMAT.title:
        return "with DISTILLATION and REINFORCEMENT_FINE_TUNING"
    return "recognized, and refused by name"


def render_chat_roles() -> str:
    """Return a table of the names that tools give the roles."""
    rows = [(role, _keys(names)) for role, names in ROLES.items()]
    return render_table(("role", "names, in any case"), rows)


def render_model_limits() -> str:
    """Return a table of the limits of each model's data, by customization type, with sources."""
    rows = []
    for model in load_models():
        for kind, limits in model.limits.items():
            if kind in model.customization_types:
                rows.append((f"`{model.alias}`", f"`{kind}`", _describe_limits(limits)))
    sources = {
        source.url: source
        for model in load_models()
        for limits in model.limits.values()
        for source in (limits.source, *limits.other_sources.values())
    }
    listed = "\n".join(f"- <{url}> ({source.date})" for url, source in sources.items())
    table = render_table(("model", "customization type", "limits"), rows)
    return f"{table}\n\nThey were read in:\n\n{listed}"


LIMIT_WORDS = {
    "records_min": "{} records at least",
    "records_max": "{} records at most",
    "train_records_min": "{} training records at least",
    "train_records_max": "{} training records at most",
    "validation_records_min": "{} validation records at least",
    "validation_records_max": "{} validation records at most",
    "tokens_per_record": "{} tokens a record",
    "input_tokens_max": "{} tokens a prompt",
    "output_tokens_max": "{} tokens an answer",
    "train_bytes_max": "{} of training data",
    "validation_bytes_max": "{} of validation data",
    "line_bytes_max": "{} a line",
    "user_turns_max": "{} prompt a record",
    "system_texts_max": "{} system text",
    "turn_texts_max": "{} text a turn",
}


def _describe_limits(limits: Limits) -> str:
    parts = []
    for name, words in LIMIT_WORDS.items():
        value = getattr(limits, name)
        if value is not None:
            unsure = " (unsure)" if name in limits.unsure else ""
            shown = _describe_size(value) if "bytes" in name else f"{value:,}"
            parts.append(words.format(shown) + unsure)
    for batch, tokens in limits.tokens_by_batch.items():
        parts.append(f"{tokens:,} tokens a record up to batch size {batch}")
    for words, note in (
        (limits.reserved, "reserved"),
        (limits.reserved_exact, "reserved"),
        (limits.reserved_unsure, "perhaps reserved"),
    ):
        if words:
            parts.append(f"{note}: " + ", ".join(f"`{_escape(word)}`" for word in words))
    if limits.ignores_validation:
        parts.append("validation data is not used")
    return "; ".join(parts)


def _describe_size(size: int) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            break
        size //= 1024
    return f"{size:,} {unit}"


def _escape(word: str) -> str:
    return word.encode("unicode_escape").decode("ascii")


def render_model_content() -> str:
    """Return a table of what each model takes besides texts."""
    rows = []
    for model in load_models():
        for kind in model.customization_types:
            taken, unsure = (m.get(kind, ()) for m in (model.content, model.content_unsure))
            if taken or unsure:
                media = model.limits[kind].media if kind in model.limits else {}
                cells = [_describe_content(name, media) for name in taken]
                cells += [f"{_describe_content(name, media)} (unsure)" for name in unsure]
                rows.append((f"`{model.alias}`", f"`{kind}`", "; ".join(cells)))
    return render_table(("model", "customization type", "takes"), rows)


def _describe_content(name: str, media: Mapping[str, MediaLimits]) -> str:
    words = FEATURE_NAMES[name]
    if name not in media:
        return words
    limits = media[name]
    most = f"{limits.per_record_max} a record, " if limits.per_record_max else ""
    size = f"{_describe_size(limits.bytes_max)} each" if limits.bytes_max else ""
    seconds = f", {limits.seconds_max} seconds, which is not checked" if limits.seconds_max else ""
    return f"{words} ({', '.join(limits.formats)}; {most}{size}{seconds})"


def render_quotas() -> str:
    """Return a table of Bedrock's quotas with code and default, and their sources."""
    rows = [
        (
            quota.name,
            f"`{quota.code}`" if quota.code else "not published",
            f"{quota.default:,.0f}",
            "yes" if quota.adjustable else "no",
            f"`{quota.model}`" if quota.model else "",
        )
        for quota in load_quotas()
    ]
    table = render_table(("quota", "code", "AWS's default", "can be raised", "model"), rows)
    sources = {quota.source.url: quota.source for quota in load_quotas()}
    listed = "\n".join(f"- <{url}> ({source.date})" for url, source in sources.items())
    return f"{table}\n\nThey were read in:\n\n{listed}"


def render_models() -> str:
    """Return a table of what Bedrock customizes today: model, type, Region, price, serving."""
    header = ("model", "state", "customization type", "Region", "training, USD", "source")
    header += ("format", "limits", "serving", "`check`")
    return render_table(header, model_tables.list_offers())


def render_prices() -> str:
    """Return tables of all prices with their sources."""
    model_header = ("model", "Region", "name in `prices:`", "USD", "for", "source")
    unit_header = ("version", "Region", "a minute, USD", "a month of storage, USD", "source")
    instance_header = ("instance", "GPUs", "Region", "an hour, USD", "source")
    listed = "\n".join(
        f"{number}. {source.url} ({source.date})"
        for number, source in enumerate(model_tables.price_sources(), 1)
    )
    return "\n\n".join(
        [
            "### Models on Bedrock",
            render_table(model_header, model_tables.list_prices()),
            "### Custom model units of imported models",
            render_table(unit_header, model_tables.list_import_prices()),
            "### Instances of SageMaker",
            render_table(instance_header, model_tables.list_instance_prices()),
            "### Sources",
            listed,
        ]
    )


RUNTIME_TITLES = {
    "llama_cpp": "llama.cpp, Ollama",
    "mlx_lm": "mlx-lm",
    "onnxruntime_genai": "onnxruntime-genai",
    "openvino": "OpenVINO",
    "vllm": "vLLM",
}


def render_runtimes() -> str:
    """Return what was measured of models in runtimes: versions, results, and their details."""
    cells, runtimes = runtime_results.load_cells(), runtime_results.load_runtimes()
    names = [name for name in RUNTIME_TITLES if name in runtimes]
    versions = [
        (
            RUNTIME_TITLES[name],
            ", ".join(" ".join(pair) for pair in sorted(runtimes[name]["versions"].items())),
            runtimes[name]["date"],
        )
        for name in names
    ]
    rows = [
        (f"`{case}`", *(_describe_cell(found.get(name)) for name in names))
        for case, found in sorted(cells.items())
    ]
    details = [
        (f"`{case}`", RUNTIME_TITLES[name], _escape_markup(found[name].detail))
        for case, found in sorted(cells.items())
        for name in names
        if name in found and found[name].detail
    ]
    return "\n\n".join(
        [
            render_table(("runtime", "versions", "measured"), versions),
            render_table(("model", *(RUNTIME_TITLES[name] for name in names)), rows),
            "## What differs, and the words of refusals",
            render_table(("model", "runtime", "what"), details),
        ]
    )


def render_gguf_families() -> str:
    """Return how each family is written as GGUF."""
    windows = {
        "list": "any layers",
        "period": "all but the last of every n layers",
        None: "none: the file's context ends with the window",
    }
    rows = [
        (
            f"`{name}`",
            f"`{family.architecture}`",
            windows[family.windows]
            + (f", {n} layers only" if (n := family.windows_need_layers) else ""),
            ", ".join(sorted(family.rope_types - {"default"})),
            ", ".join(f"`{part}`" for part in sorted(family.biases)),
        )
        for name, family in GGUF_FAMILIES.items()
    ]
    header = ("family", "llama.cpp's architecture", "sliding windows", "rope scaling", "biases")
    return render_table(header, rows)


def _describe_cell(cell: runtime_results.Cell | None) -> str:
    if cell is None:
        return ""
    if cell.result == "wrong":
        return f"**wrong**: {cell.layer}"
    return "refused by cloudft" if cell.by == "cloudft" else cell.result


def _escape_markup(text: str) -> str:
    """Return a message with nothing that Markdown takes for markup but commands in backticks."""
    return re.sub(r"(`[^`]+`)|([<>*_\[\]`])", lambda found: found[1] or f"\\{found[2]}", text)


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": render_command_index,
    "gguf-families": render_gguf_families,
    "job-file-fields": render_job_file_fields,
    "errors": render_errors,
    "python-api": render_python_api,
    "operations": render_markdown_table,
    "layers": render_layers,
    "model-limits": render_model_limits,
    "model-content": render_model_content,
    "pair-keys": render_pair_keys,
    "quotas": render_quotas,
    "record-formats": render_record_formats,
    "chat-roles": render_chat_roles,
    "models": render_models,
    "runtimes": render_runtimes,
    "prices": render_prices,
}


def render_pages() -> Iterator[tuple[Path, str]]:
    """Yield path and content of every page with generated text, as it should be."""
    for command in list_commands(cloudft_command):
        yield DOCS / "reference" / "cli" / f"{'-'.join(command)}.md", render_command(command)
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if "<!-- generated: " in text:
            yield page, GENERATED.sub(lambda m: f"{m[1]}{PARTS[m[2]]()}\n{m[3]}", text)


def main() -> None:
    """Write every page that is out of date, and print its path."""
    for page, content in render_pages():
        if not page.exists() or page.read_text(encoding="utf-8") != content:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(content, encoding="utf-8")
            print(page.relative_to(DOCS), file=sys.stderr)


if __name__ == "__main__":
    main()
