"""Places in S3, as the API names them."""

from __future__ import annotations

from urllib.parse import urlsplit


def split_s3_uri(uri: str, *, folder: bool = True) -> tuple[str, str]:
    """Bucket and key of an S3 URI; as a folder, the key ends with a slash unless it is empty."""
    parts = urlsplit(uri)
    key = parts.path.lstrip("/")
    return parts.netloc, key.rstrip("/") + "/" if folder and key else key
