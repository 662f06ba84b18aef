"""The tensors of a model folder, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from local_backend.errors import TrainerError

if TYPE_CHECKING:
    import numpy as np


class Checkpoint:
    """The safetensors files of a folder: names and shapes at once, values when they are needed."""

    def __init__(self, folder: Path) -> None:
        """Read the headers. Raise TrainerError if the folder has no safetensors."""
        from safetensors import safe_open

        self._files = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118, not a dict
                    shape = tuple(int(size) for size in file.get_slice(name).get_shape())
                    self._files[name] = (path, shape)
        if not self._files:
            raise TrainerError(
                f"{folder} has no weights in safetensors.",
                fix="name the folder of a merged model, as `cloudft export` writes it.",
            )

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the tensors."""
        return iter(self._files)

    def __contains__(self, name: str) -> bool:
        """Return whether there is a tensor of this name."""
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._files[name][1]

    def read(self, name: str) -> np.ndarray:
        """Return a tensor's values in float32."""
        import torch
        from safetensors import safe_open

        with safe_open(self._files[name][0], "pt") as file:
            values: np.ndarray = file.get_tensor(name).to(torch.float32).numpy()
        return values
