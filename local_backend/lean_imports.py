"""Import transformers' modeling code without the packages that most jobs never call.

Its modules import whatever is installed: accelerate, scipy (for the losses of object detection),
pandas, torch's compiler, its distributed tensors. That is half of the time before a job's first
step. Three means, each a state that transformers and torch support, make them leave these out:

- a package whose entry in `sys.modules` is None counts as not installed (as in `hide_torch`);
- `torch.distributed.is_available()` is False during the import, as in a torch built without it;
- `torch._dynamo` is imported when it is first used, as torch itself does.

When the import fails all the same, as another version's may, it is repeated plainly.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from local_backend.job_dir import WeightSource
from local_backend.libraries import pause_collection
from local_backend.models.weights import find_model_folder
from local_backend.settings import Settings

UNUSED_PACKAGES = (
    *("accelerate", "scipy", "sklearn", "pandas", "peft", "datasets"),
    *("PIL", "torchvision", "torchaudio", "librosa", "cv2", "matplotlib", "tensorflow", "flax"),
)
"""Optional packages that transformers imports where they are installed, and LoRA and full
fine-tuning of a text model on one device do not use."""
MODELING = "transformers.modeling_utils"
DYNAMO = "torch._dynamo"
NEEDS_MORE = ("quantization_config", "auto_map")
"""Keys of a config.json: its quantizer, or the model's own code, may need any package."""
MISTRAL_TOKENIZER, MISTRAL_PACKAGE = "tekken.json", "mistral_common"
"""A tokenizer that transformers leaves to this package where it is installed; it imports PIL."""


_allowed: list[bool] = []


def allow_lean_imports() -> None:
    """Declare that this process runs a program of the trainer and nothing else.

    Elsewhere packages are not hidden, because others in the process may import them.
    """
    _allowed.append(True)


def import_modeling(settings: Settings) -> bool:
    """Import transformers' modeling code for a job; return whether that was the lean import."""
    models = [settings.weights]
    if settings.distillation is not None:
        models.append(settings.distillation.weights)
    with pause_collection():
        is_lean = import_transformers(
            lean=lean_imports_suffice(settings.method, settings.fsdp, models)
        )
    if _allowed:
        gc.freeze()  # what was imported stays: no collection has to look through it
    return is_lean


def import_transformers(*, lean: bool) -> bool:
    """Import transformers' modeling code; return whether that was the lean import."""
    if not (lean and _allowed) or MODELING in sys.modules:
        importlib.import_module(MODELING)
        return False
    hidden = hide_packages()
    before = set(sys.modules)
    try:
        with _without_distributed(), _lazy_dynamo():
            _import_decoder()
    except Exception as error:
        # Another version of transformers or torch may need what is hidden.
        print(f"importing transformers with all that is installed: {error!r}", flush=True)
        for name in [*hidden, *_imported_since(before)]:
            sys.modules.pop(name, None)
        importlib.import_module(MODELING)
        return False
    return True


def _import_decoder() -> None:
    """Import what each decoder needs: transformers loads its modules when they are first used."""
    for name in (MODELING, "transformers.modeling_layers", "transformers.generation"):
        importlib.import_module(name)


def _imported_since(before: set[str]) -> list[str]:
    tops = ("transformers", DYNAMO)
    return [
        name
        for name in sys.modules
        if name not in before and any(name == top or name.startswith(f"{top}.") for top in tops)
    ]


def lean_imports_suffice(
    method: str, fsdp: bool | str, models: Iterable[Sequence[WeightSource]]
) -> bool:
    """Return whether a job on these models uses none of the packages that are left out."""
    if method == "qlora" or fsdp is True or "WORLD_SIZE" in os.environ:
        return False
    return all(map(is_plain_model, map(find_model_folder, models)))


def is_plain_model(folder: Path | None) -> bool:
    """Return whether a model's configuration is on this machine and names no other code."""
    if folder is None:
        return False
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    if (folder / MISTRAL_TOKENIZER).exists() and importlib.util.find_spec(MISTRAL_PACKAGE):
        return False
    return isinstance(config, dict) and not any(key in config for key in NEEDS_MORE)


def hide_packages() -> list[str]:
    """Make the unused packages count as not installed in this process; return their names."""
    names = [name for name in UNUSED_PACKAGES if name not in sys.modules]
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]
    return names


@contextlib.contextmanager
def _without_distributed() -> Iterator[None]:
    """Let torch say that it was built without `torch.distributed`, which is slow to import.

    transformers remembers the answer, so it never uses them in this process.
    """
    import torch.distributed

    is_available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = is_available


@contextlib.contextmanager
def _lazy_dynamo() -> Iterator[None]:
    """Put a module in place of `torch._dynamo` that becomes it on first use."""
    spec = None if DYNAMO in sys.modules else importlib.util.find_spec(DYNAMO)
    if spec is None:
        yield
        return
    sys.modules[DYNAMO] = lazy = LazyDynamo(spec)
    yield
    if sys.modules[DYNAMO] is lazy:
        sys.meta_path.insert(0, DynamoFirst())


class DynamoFirst:
    """A finder that imports `torch._dynamo` itself before a module of its package."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of a module that was imported with the package; None for all others."""
        package = sys.modules.get(DYNAMO)
        if not name.startswith(f"{DYNAMO}.") or not isinstance(package, LazyDynamo):
            return None
        package.load()
        module = sys.modules.get(name)
        return None if module is None else ModuleSpec(name, ImportedModule(module))


class ImportedModule(Loader):
    """A loader of a module that is imported already: it must not run twice."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module as it is."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Keep what the module knows of its origin."""
        module.__spec__ = self._spec


class LazyDynamo(ModuleType):
    """`torch._dynamo` as far as code that is not compiled needs it.

    Its decorators mark functions for the compiler, and an optimizer marks a place in its step. The
    marks are made once something else of it is used: then the module itself is imported, with the
    marks.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__path__ = list(spec.submodule_search_locations or [])
        self._spec, self._real = spec, None
        self._marked: list[tuple[str, Any]] = []
        self._lock = threading.RLock()

    _real: ModuleType | None

    def graph_break(self, *_: object, **__: object) -> None:
        """Do nothing, as it does in code that is not compiled."""

    def assume_constant_result(self, function: Any) -> Any:
        """Return the function, and mark it later."""
        return self._mark("assume_constant_result", function)

    def allow_in_graph(self, function: Any) -> Any:
        """Return the function, and mark it later."""
        return self._mark("allow_in_graph", function)

    def _mark(self, decorator: str, function: Any) -> Any:
        if self._real is not None:
            return getattr(self._real, decorator)(function)
        self._marked.append((decorator, function))
        return function

    def disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """Return a function that calls `fn`, and that the compiler, once imported, leaves alone."""
        if self._real is not None:
            return self._real.disable(fn, recursive, **options)
        if fn is None:
            return functools.partial(self.disable, recursive=recursive, **options)
        if not callable(fn) or isinstance(fn, type):
            return self.load().disable(fn, recursive, **options)

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._real is None:
                return fn(*args, **kwargs)
            return disabled()(*args, **kwargs)

        @functools.cache
        def disabled() -> Callable[..., Any]:
            result: Callable[..., Any] = self.load().disable(fn, recursive, **options)
            return result

        return call

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.load(), name)

    def load(self) -> Any:
        """Import the module itself, put it in this one's place, and make the marks."""
        with self._lock:
            if self._real is None:
                self._real = real = importlib.util.module_from_spec(self._spec)
                # Submodules that were imported on their own stay the only ones of their names.
                for name, module in list(sys.modules.items()):
                    package, _, last = name.rpartition(".")
                    if package == DYNAMO:
                        setattr(real, last, module)
                sys.modules[DYNAMO] = real
                assert self._spec.loader is not None
                self._spec.loader.exec_module(real)
                import torch

                torch._dynamo = real
                for decorator, function in self._marked:
                    getattr(real, decorator)(function)
            return self._real
