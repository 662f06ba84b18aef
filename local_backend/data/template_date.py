"""Fix the date that a chat template writes, so that training and every later prompt have the same.

Some templates (Llama 3.1 and later, gpt-oss, SmolLM3) write today's date by calling
`strftime_now(format)`, which transformers defines. A job that runs over midnight, is resumed or
evaluated later would see other prompts than it was trained on.
"""

from __future__ import annotations

import ast
import datetime
import re

CALL = re.compile(
    r"""strftime_now\s*\(\s*(?:format\s*=\s*)?("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\s*\)"""
)
MACRO = "{%- macro strftime_now(format) -%}"
"""How a template begins whose date is fixed."""


def writes_date(template: str) -> bool:
    """Return whether a template writes the date of the day."""
    return "strftime_now" in template and not template.startswith(MACRO)


def fix_date(template: str, day: str) -> str:
    """Return a template that writes this day, by a macro in place of transformers' function.

    `day` is in ISO 8601, and so is what the macro writes for a format that the template computes.
    """
    if not writes_date(template):
        return template
    date = datetime.date.fromisoformat(day)
    formats = sorted({ast.literal_eval(match[1]) for match in CALL.finditer(template)})
    cases = "".join(f"{{% if format == {f!r} %}}{date.strftime(f)}{{% else %}}" for f in formats)
    ends = "{% endif %}" * len(formats)
    # The line end after the macro is dropped (trim_blocks); the template's own are kept.
    return f"{MACRO}{cases}{day}{ends}{{%- endmacro %}}\n{template}"
