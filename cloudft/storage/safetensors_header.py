"""Read the header of a safetensors file: names, dtypes and shapes of its tensors, not the tensors.

Source of the format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

MAX_HEADER_BYTES = 100_000_000
"""Maximum bytes of a header, by the format's own limit."""


class TensorInfo(msgspec.Struct):
    """The dtype of a tensor, in safetensors' own words (F32, BF16), and its shape."""

    dtype: str
    shape: list[int] = []


def read_safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """Return each tensor's entry by its name. Raise OSError, and ValueError for another file."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = msgspec.json.decode(stream.read(length), type=dict[str, msgspec.Raw])
        return {
            name: msgspec.json.decode(entry, type=TensorInfo)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (struct.error, msgspec.MsgspecError) as error:
        raise ValueError(f"its header can't be read: {error}") from error
