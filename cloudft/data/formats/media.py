"""Records with pictures, videos or sounds beside their texts, as other tools have them: refused.

Hugging Face's, LLaVA's, ms-swift's and LLaMA-Factory's records name files, or hold them; `<image>`
stands in a text where one belongs. No model here is trained on these: Bedrock's vision models take
objects in S3, as blocks of a conversation (converse.py), and a text model would learn answers about
pictures that it never sees.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Literal

from cloudft.data.formats import chat_dialects, messages, pairs
from cloudft.data.formats.record import BadRecord, Conversation, RawRecord
from cloudft.data.formats.record_format import Keys, RecordFormat, describe_keys

MediaName = Literal["pictures", "videos", "sounds"]
MEDIA_COLUMNS: dict[str, MediaName] = {
    "images": "pictures",
    "image": "pictures",
    "img": "pictures",
    "image_path": "pictures",
    "image_paths": "pictures",
    "image_url": "pictures",
    "image_file": "pictures",
    "image-ref": "pictures",
    "picture": "pictures",
    "pictures": "pictures",
    "video": "videos",
    "videos": "videos",
    "video_path": "videos",
    "audio": "sounds",
    "audios": "sounds",
    "audio_path": "sounds",
    "audio_filepath": "sounds",
    "file_name": "pictures",
}
"""Keys of a record that hold media, or the name of a file with some."""
_MEDIA_FILE = re.compile(
    r".*\.(png|jpe?g|gif|webp|bmp|tiff?|heic|mp4|mov|mkv|webm|avi|wav|mp3|flac|ogg|m4a)(\?.*)?",
    re.IGNORECASE | re.DOTALL,
)
_INLINE = re.compile(r"data:(image|video|audio)/|iVBORw0KGgo|/9j/4|R0lGOD|UklGR")
"""How base64 of PNG, JPEG, GIF and RIFF (WebP, WAV) begins, and a data URL."""
_FIXES: dict[MediaName, str] = {
    "pictures": "for Bedrock's nova-2-lite, nova-lite or nova-pro, upload them to the bucket of the"
    ' dataset and write each as a block of its message: {"image": {"format": "png", "source":'
    ' {"s3Location": {"uri": "s3://BUCKET/KEY"}}}}; a text model needs records without pictures',
    "videos": "for Bedrock's nova-2-lite, nova-lite or nova-pro, upload them to the bucket of the"
    ' dataset and write each as a block of its message: {"video": {"format": "mp4", "source":'
    ' {"s3Location": {"uri": "s3://BUCKET/KEY"}}}}; a text model needs records without videos',
    "sounds": "take the records out: no model here is trained on sounds",
}
_FURTHER_KEYS = (
    *(key for format in pairs.FORMATS for key in (*format.keys.required, *format.keys.optional)),
    *(key for f in chat_dialects.FORMATS for key in (*f.keys.required, *f.keys.optional)),
    *messages.KEYS.required,
    *messages.KEYS.optional,
    *("text", "caption", "captions", "label", "labels", "transcription", "sentence", "objects"),
)


def is_media(value: object) -> bool:
    """Return whether a value is media, the name of a file with some, or a list of these."""
    if isinstance(value, (list, tuple)):
        return bool(value) and is_media(value[0])
    if isinstance(value, dict):  # Hugging Face's Image and Audio: {"bytes", "path"}
        return value.get("bytes") is not None or is_media(value.get("path") or value.get("url"))
    if isinstance(value, str):
        return bool(_MEDIA_FILE.fullmatch(value.strip()) or _INLINE.match(value))
    return isinstance(value, bytes) and len(value) > 0


def _recognizes(key: str, value: RawRecord) -> bool:
    return is_media(value[key])


def _refuse(key: str, value: RawRecord) -> Conversation:
    name = MEDIA_COLUMNS[key]
    message = f"records with {name} ({key!r}): no model here is trained on them in this form"
    raise BadRecord("MediaData", message, _FIXES[name], key)


def _make_format(key: str) -> RecordFormat:
    return RecordFormat(
        name=f"media-{key}",
        title=f"records with {MEDIA_COLUMNS[key]}",
        keys=Keys((key,), tuple(dict.fromkeys((*MEDIA_COLUMNS, *_FURTHER_KEYS)))),
        parse=partial(_refuse, key),
        recognizes=partial(_recognizes, key),
        describe=describe_keys(key),
        is_trained_on=False,
    )


FORMATS = tuple(map(_make_format, MEDIA_COLUMNS))
