"""Keep what rendering and tokenizing need of a tokenizer, to load it without transformers.

Importing transformers and its tokenizer takes three times the time and twice the memory of loading
the tokenizer's own library. So what transformers made of a model's files is kept in the model
cache: the tokenizer of the library `tokenizers`, the chat template and the special tokens. It is
used as long as the model's files and the libraries are the same, and kept only if it renders and
tokenizes as the original does. Templates are rendered by transformers' own function, whose module
is imported alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict, cast

from local_backend.data.text_tokens import encode_texts
from local_backend.job_dir import write_bytes
from local_backend.models.weights import model_cache

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

FORMAT = 2
"""Version of the file. Raise it when it changes, or what `load_tokenizer` makes of a tokenizer."""
FOLDER = "tokenizers"
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".pth"})
SAMPLE_TEXTS = [
    "Gr\u00fc\u00dfe \u65e5\u672c \U0001f389  a  b\n\n",
    " 1234567 x_y;\t{}",
    "e\u0301\u200b",
]
SAMPLE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
}
SAMPLE_TOOLS: tuple[None, list[Any]] = (None, [SAMPLE_TOOL])
_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
_USER = {"role": "user", "content": "Gr\u00fc\u00dfe \u65e5\u672c?"}
SAMPLES: list[list[dict[str, Any]]] = [
    [_USER],
    [{"role": "system", "content": "S"}, _USER, {"role": "assistant", "content": "A"}, _USER],
    [_USER, {"role": "assistant", "content": None, "tool_calls": [_CALL]}],
    [_USER, {"role": "assistant", "content": "", "reasoning_content": "R", "tool_calls": [_CALL]}],
]
"""What the original and the kept tokenizer must render and tokenize alike."""
Render = Callable[..., tuple[list[str], object]]


class Prepared(TypedDict):
    """The first line of the file; the rest is the tokenizer as `tokenizers` writes it."""

    identity: dict[str, Any]
    chatTemplate: str
    specialTokens: dict[str, str]
    eosTokenId: int | None
    facts: dict[str, Any]


class PreparedTokenizer:
    """A tokenizer with the attributes that rendering and tokenizing use, as transformers has them.

    Any other attribute is that of the original, which is loaded then.
    """

    is_fast = True

    def __init__(
        self,
        backend: Tokenizer,
        prepared: Prepared,
        render: Render,
        load_original: Callable[[], PreTrainedTokenizerBase],
    ) -> None:
        self.backend_tokenizer = backend
        self.chat_template = prepared["chatTemplate"]
        self.eos_token_id = prepared["eosTokenId"]
        self._special_tokens = prepared["specialTokens"]
        unknown = self._special_tokens.get("unk_token")
        self.unk_token_id = backend.token_to_id(unknown) if unknown else None
        self._render = render
        self._load_original = load_original
        self._original: PreTrainedTokenizerBase | None = None

    def __getattr__(self, name: str) -> Any:
        if self._original is None:
            self._original = self._load_original()
        return getattr(self._original, name)

    def get_chat_template(self, chat_template: str | None = None, tools: object = None) -> str:
        """Return the template."""
        return chat_template or self.chat_template

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        tokenize: bool,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return the template's text; `tokenize` must be False."""
        assert not tokenize
        # As transformers does: templates test whether a key is there.
        messages = [
            {key: value for key, value in message.items() if value is not None}
            for message in conversation
        ]
        rendered, _ = self._render(
            conversations=[messages],
            tools=tools,
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **self._special_tokens,
        )
        return rendered[0]

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> str | list[str | None] | None:
        """Return the token of an id, or those of several."""
        to_token: Callable[[int], str | None] = self.backend_tokenizer.id_to_token
        return to_token(ids) if isinstance(ids, int) else [to_token(token) for token in ids]


def read_prepared(
    folder: Path, load_original: Callable[[], PreTrainedTokenizerBase]
) -> tuple[PreTrainedTokenizerBase, dict[str, Any]] | None:
    """Return the tokenizer kept for a folder, and the facts kept with it; None if there is none.

    A file of other versions, of other model files, or one that can't be read counts as none.
    """
    try:
        with _path_for(folder).open("rb") as file:
            prepared: Prepared = json.loads(file.readline())
            if prepared["identity"] != identify(folder):
                return None
            tokenizer = _load(file.read(), prepared, load_original)
    except Exception:  # whatever is wrong with it, the original can be loaded
        return None
    return tokenizer, prepared["facts"]


def keep_prepared(folder: Path, tokenizer: PreTrainedTokenizerBase, facts: dict[str, Any]) -> None:
    """Keep a folder's tokenizer for `read_prepared`, if it then does what the original does."""
    if not (tokenizer.is_fast and isinstance(tokenizer.chat_template, str)):
        return
    with contextlib.suppress(Exception):  # a full disk, a tokenizer with parts in Python
        prepared: Prepared = {
            "identity": identify(folder),
            "chatTemplate": tokenizer.chat_template,
            "specialTokens": dict(tokenizer.special_tokens_map),
            "eosTokenId": tokenizer.eos_token_id,
            "facts": facts,
        }
        raw = tokenizer.backend_tokenizer.to_str().encode()
        if _does(tokenizer) != _does(_load(raw, prepared, lambda: tokenizer)):
            return
        path = _path_for(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path.parent)
        write_bytes(path, json.dumps(prepared).encode() + b"\n" + raw)


def _load(
    raw: bytes, prepared: Prepared, load_original: Callable[[], PreTrainedTokenizerBase]
) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_buffer(raw)
    tokenizer = PreparedTokenizer(backend, prepared, load_render(), load_original)
    return cast("PreTrainedTokenizerBase", tokenizer)


def _does(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """Return what a tokenizer renders and tokenizes of some chats, errors included."""
    done: list[object] = []
    for messages in SAMPLES:
        for tools in SAMPLE_TOOLS:
            for prompts in (False, True):
                try:
                    text = str(
                        tokenizer.apply_chat_template(
                            messages, tools=tools, tokenize=False, add_generation_prompt=prompts
                        )
                    )
                except Exception as error:
                    done.append(f"{type(error).__name__}: {error}")
                else:
                    done += [text, encode_texts(tokenizer, [text])]
    return [*done, encode_texts(tokenizer, SAMPLE_TEXTS)]


def _remove_orphans(folder: Path) -> None:
    """Remove what was kept for model folders that are gone."""
    for path in folder.glob("[!.]*"):  # hidden files are being written
        try:
            with path.open("rb") as file:
                kept: Prepared = json.loads(file.readline())
            is_orphan = not Path(kept["identity"]["folder"]).is_dir()
        except (ValueError, KeyError):
            is_orphan = True
        if is_orphan:
            path.unlink(missing_ok=True)


def identify(folder: Path) -> dict[str, Any]:
    """Return what the kept file depends on: the libraries, and the model's files but its weights.

    Size and time stand for the content.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in WEIGHT_SUFFIXES and path.is_file():
            status = path.stat()
            files[str(path.relative_to(folder))] = [status.st_size, status.st_mtime_ns]
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers")}
    return {"format": FORMAT, "folder": str(folder.resolve()), "files": files, **versions}


def _path_for(folder: Path) -> Path:
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    return model_cache() / FOLDER / f"{folder.name}-{digest}"


def load_render() -> Render:
    """Return transformers' `render_jinja_template`, without the rest of transformers.

    Raise ImportError if its module can't be imported alone.
    """
    name = "transformers.utils.chat_template_utils"
    with contextlib.nullcontext() if "transformers" in sys.modules else _empty_packages(name):
        render: Render = importlib.import_module(name).render_jinja_template
        return render


@contextlib.contextmanager
def _empty_packages(module: str) -> Iterator[None]:
    """Stand empty packages in for those of `module`, so that their own code does not run."""
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"no package {top}")
    root = spec.submodule_search_locations[0]
    packages = module.split(".")[:-1]
    for depth in range(len(packages)):
        package = ModuleType(".".join(packages[: depth + 1]))
        package.__path__ = [os.path.join(root, *packages[1 : depth + 1])]  # noqa: PTH118
        sys.modules[package.__name__] = package
    try:
        yield
    finally:
        # What is imported from here on must get the real package.
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]
