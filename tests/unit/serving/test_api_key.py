"""Where a server's key comes from, and where one is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudft.errors import UsageError
from cloudft.serving.api_key import VARIABLE, read_api_key, require_key_for


def test_a_file_wins_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" abc-123 \n")
    assert read_api_key(file, {VARIABLE: "other"}) == "abc-123"
    assert read_api_key(None, {VARIABLE: "other\n"}) == "other"
    assert read_api_key(None, {}) is None


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two\nlines", b"caf\xc3\xa9", b"\xff", b"x" * 5000, b"a\0b"], ids=repr
)
def test_a_key_that_no_header_carries_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="no key that a header can carry"):
        read_api_key(file, {})
    with pytest.raises(UsageError, match="can't be read"):
        read_api_key(tmp_path / "none", {})
    with pytest.raises(UsageError, match=VARIABLE):
        read_api_key(None, {VARIABLE: "  "})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    require_key_for(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "gpu-box", "", "localhost.evil"])
def test_any_other_address_needs_one(host: str) -> None:
    require_key_for(host, "key")
    with pytest.raises(UsageError, match="there is no key") as caught:
        require_key_for(host, None)
    assert VARIABLE in str(caught.value.fix)
