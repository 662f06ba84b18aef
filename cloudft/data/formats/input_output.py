"""Pairs `{"input", "output"}`."""

from __future__ import annotations

import msgspec

from cloudft.data.formats.record_format import make_pair_format


class _BatchRecord(msgspec.Struct, gc=False):
    input: str
    output: str


FORMAT = make_pair_format("input-output", ("input", "output"), _BatchRecord)
