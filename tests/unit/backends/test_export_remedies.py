"""A remedy of `export` leads to an export, not to the next refusal."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cloudft.backends.export_options import FORMATS, RUNTIME_FORMATS, choose_export
from cloudft.errors import UsageError

GIVEN = {"quantization": "q8_0", "dtype": "float16", "base": "org/model"}


@pytest.mark.parametrize("form", [None, *FORMATS])
@pytest.mark.parametrize("runtime", [None, *sorted(RUNTIME_FORMATS)])
@pytest.mark.parametrize("option", sorted(GIVEN))
def test_what_a_remedy_names_is_taken(runtime: str | None, form: str | None, option: str) -> None:
    values: dict[str, Any] = {option: GIVEN[option]}
    try:
        choose_export(runtime, form, **values)
    except UsageError as error:
        fix = error.fix or ""
    else:
        return
    formats, runtimes, dtypes = (
        re.findall(rf"(?:{name}|or) ({choices})", fix) if name in fix else []
        for name, choices in (
            ("--format", "|".join(FORMATS)),
            ("--for", "|".join(map(re.escape, RUNTIME_FORMATS))),
            ("--dtype", "float16|bfloat16"),
        )
    )
    for named in formats:
        choose_export(runtime, named, **({} if "leave --format" in fix else values))
    for named in runtimes:
        choose_export(named, None, **values)
    for named in dtypes:
        choose_export(runtime, form, dtype=named)
    assert formats or runtimes or dtypes or "leave out" in fix or "--quantize" in fix
