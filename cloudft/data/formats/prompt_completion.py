"""Pairs `{"prompt", "completion"}`: Bedrock's format for text models, OpenAI's older one."""

from __future__ import annotations

import msgspec

from cloudft.data.formats.record_format import make_pair_format


class _BatchRecord(msgspec.Struct, gc=False):
    prompt: str
    completion: str


FORMAT = make_pair_format("prompt-completion", ("prompt", "completion"), _BatchRecord)
