#!/usr/bin/env bash
# Three constrained-decoding libraries and pydantic's types: what the type writes is forbidden, what it refuses is allowed.
#
# Packages: pydantic 2.14.4, llguidance 1.9.1, outlines-core 0.2.14, lm-format-enforcer 0.11.3, numpy 2.4.6.
# Guess: for a model with one field of a type, model_json_schema() constrains an answer so that what model_dump_json writes
# can be generated, and a text that the type refuses ("x" for a date) cannot; or the library says that it can't keep it.
# Behavior: the three agree on none of 27 types that pydantic writes as a string with a format. llguidance takes the
# formats of JSON Schema alone: a datetime or a time without an offset, which is what datetime.now() writes and pydantic's
# schema calls date-time, cannot be generated, nor a duration with fractions of a second; 11 types with formats of
# pydantic's own (path, uuid4, binary, ...) are refused. outlines-core refuses 14, among them the standard's ipv4 and
# duration, forbids microseconds, and lets any text through as a URL. lm-format-enforcer reads no format at all.
# Why it matters: the same response_format gives an error, an answer that does not parse, or an answer with an invented
# time zone, by the library behind the server. A schema without its own formats hides all three.
# Way out: for dates use AwareDatetime; give the others a pattern (Field(pattern=...)) instead of the format.
# Seen (own text: ok, FORBIDS or refuses the schema; then whether "x" is allowed too):
#                                   llguidance       outlines-core  lm-format-enforcer
#   date                                    ok                  ok           ok, x too
#   datetime                           FORBIDS                  ok           ok, x too
#   datetime, microseconds             FORBIDS             FORBIDS           ok, x too
#   AwareDatetime                           ok                  ok           ok, x too
#   time                               FORBIDS                  ok           ok, x too
#   timedelta, microseconds            FORBIDS             refuses           ok, x too
#   UUID                                    ok                  ok           ok, x too
#   UUID4                              refuses             refuses           ok, x too
#   Path                               refuses             refuses                  ok
#   IPv4Address                             ok             refuses           ok, x too
#   HttpUrl                                 ok           ok, x too           ok, x too          (and so on)
#   the three agree on 0 of 27
#   llguidance: {'FORBIDS': 5, 'ok': 11, 'refuses': 11}
#   outlines-core: {'FORBIDS': 1, 'ok': 8, 'ok, x too': 4, 'refuses': 14}
#   lm-format-enforcer: {'ok': 3, 'ok, x too': 24}
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet pydantic==2.14.4 llguidance==1.9.1 \
    outlines-core==0.2.14 lm-format-enforcer==0.11.3 numpy==2.4.6
cd "$folder"
cat > try.py <<'PYTHON'
import datetime
import ipaddress
import json
import pathlib
import re
import sys
import uuid
from collections import Counter

import pydantic
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from lmformatenforcer import JsonSchemaParser
from outlines_core.json_schema import build_regex_from_schema

NOON, UTC = datetime.datetime(2026, 2, 28, 13, 5, 9), datetime.timezone.utc
TYPES = {
    "date": (datetime.date, NOON.date()), "PastDate": (pydantic.PastDate, datetime.date(2020, 1, 1)),
    "datetime": (datetime.datetime, NOON), "datetime, microseconds": (datetime.datetime, NOON.replace(microsecond=12345)),
    "NaiveDatetime": (pydantic.NaiveDatetime, NOON), "AwareDatetime": (pydantic.AwareDatetime, NOON.replace(tzinfo=UTC)),
    "time": (datetime.time, NOON.time()), "time, UTC": (datetime.time, NOON.time().replace(tzinfo=UTC)),
    "timedelta": (datetime.timedelta, datetime.timedelta(hours=1.5)),
    "timedelta, microseconds": (datetime.timedelta, datetime.timedelta(days=3, microseconds=12)),
    "UUID": (uuid.UUID, uuid.UUID(int=2**127 + 5)), "UUID4": (pydantic.UUID4, "146025c7-d498-4d07-833f-d06947c1dff8"),
    "UUID7": (pydantic.UUID7, "018f22e2-79b0-7cc0-98c4-dc0c0c07398f"),
    "bytes": (bytes, b"abc"), "Base64Bytes": (pydantic.Base64Bytes, b"YWJj"), "Base64UrlStr": (pydantic.Base64UrlStr, "YWJj"),
    "Path": (pathlib.Path, "/a/b"), "IPv4Address": (ipaddress.IPv4Address, "10.0.0.1"),
    "IPv6Address": (ipaddress.IPv6Address, "2001:db8::1"), "IPv4Network": (ipaddress.IPv4Network, "10.0.0.0/8"),
    "IPv4Interface": (ipaddress.IPv4Interface, "10.0.0.1/8"), "IPvAnyAddress": (pydantic.IPvAnyAddress, "::1"),
    "AnyUrl": (pydantic.AnyUrl, "https://example.org/a?b=c#d"), "HttpUrl": (pydantic.HttpUrl, "https://example.org/"),
    "FileUrl": (pydantic.FileUrl, "file:///a/b"), "PostgresDsn": (pydantic.PostgresDsn, "postgresql://u@h:5432/d"),
    "Pattern": (re.Pattern, "a+b"),
}
CHARACTERS = [chr(code) for code in range(32, 127)]


class Characters:
    """A vocabulary with one token for each character."""

    eos_token_id, bos_token_id = len(CHARACTERS), None
    tokens = [character.encode() for character in CHARACTERS] + [b"\xff</s>"]
    special_token_ids = [len(CHARACTERS)]

    def __call__(self, text):
        return [CHARACTERS.index(character) for character in (text.decode() if isinstance(text, bytes) else text)]


TOKENIZER = LLTokenizer(TokenizerWrapper(Characters()))


def with_llguidance(schema):
    grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
    if error := LLMatcher.validate_grammar(grammar, TOKENIZER):
        raise ValueError(error)

    def allows(text):
        matcher, tokens = LLMatcher(TOKENIZER, grammar), Characters()(text)
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    return allows


def with_outlines(schema):
    expression = re.compile(build_regex_from_schema(schema, whitespace_pattern=""))
    return lambda text: bool(expression.fullmatch(text))


def with_enforcer(schema):
    def allows(text):
        parser = JsonSchemaParser(json.loads(schema))
        for character in text:
            if character not in parser.get_allowed_characters():
                return False
            parser = parser.add_character(character)
        return parser.can_end()

    return allows


def refused_by(model, text):
    try:
        model.model_validate_json(text)
    except pydantic.ValidationError:
        return True
    return False


LIBRARIES = {"llguidance": with_llguidance, "outlines-core": with_outlines, "lm-format-enforcer": with_enforcer}
found = {name: Counter() for name in LIBRARIES}
agree = 0
print(f"{'':24}" + "".join(f"{name:>20}" for name in LIBRARIES))
for title, (kind, value) in TYPES.items():
    model = pydantic.create_model("Answer", x=(kind, ...))
    own, wrong = model(x=value).model_dump_json(), '{"x":"x"}'
    assert not refused_by(model, own)
    schema, outcomes = json.dumps(model.model_json_schema()), []
    for name, make in LIBRARIES.items():
        try:
            allows = make(schema)
        except Exception as error:
            if "ormat" not in str(error):
                raise
            outcomes.append("refuses")
        else:
            outcomes.append("ok" if allows(own) else "FORBIDS")
            if refused_by(model, wrong) and allows(wrong):
                outcomes[-1] += ", x too"
        found[name][outcomes[-1]] += 1
    agree += len(set(outcomes)) == 1
    print(f"{title:24}" + "".join(f"{outcome:>20}" for outcome in outcomes))
print(f"the three agree on {agree} of {len(TYPES)}")
for name, counts in found.items():
    print(f"{name}: {dict(sorted(counts.items()))}")
EXPECTED = {
    "llguidance": {"FORBIDS": 5, "ok": 11, "refuses": 11},
    "outlines-core": {"FORBIDS": 1, "ok": 8, "ok, x too": 4, "refuses": 14},
    "lm-format-enforcer": {"ok": 3, "ok, x too": 24},
}
same = {name: dict(counts) for name, counts in found.items()} == EXPECTED
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
env/bin/python -W ignore try.py 2> log || { tail -30 log >&2; exit 1; }
