"""Files of the OpenAI-compatible API: uploaded as a form, kept in the endpoint's folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import FileStorage
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from cloudft.endpoint.openai_api.listing import list_page
from cloudft.endpoint.openai_api.records import UploadedFile, new_object_id
from cloudft.endpoint.protocols.messages import Parameters, Response, ServiceError
from cloudft.storage.atomic_files import as_store_error, atomic_write

if TYPE_CHECKING:
    from cloudft.endpoint.state import State

PURPOSE = "fine-tune"
"""The purpose that Bedrock documents for training data (user guide, fine-tuning-openai-apis)."""
MAX_BYTES = 512 * 1024 * 1024
"""Size of a file. Source: OpenAI API reference, "Upload file"."""
DEFAULT_LIMIT = 10_000
"""Files of a page. Source: OpenAI API reference, "List files"."""


class Files:
    """Operations on uploaded files, whose content is in `folder`."""

    def __init__(self, state: State, folder: Path) -> None:
        self.state = state
        self.folder = folder

    def path(self, file_id: str) -> Path:
        """Return where a file's content is."""
        return self.folder / file_id

    def create_file(self, request: Parameters) -> Response:
        """Store an uploaded file."""
        purpose, upload = _parse_form(request["form"], request["content_type"])
        if purpose != PURPOSE:
            message = f"Invalid purpose '{purpose}': this endpoint takes '{PURPOSE}'"
            raise ServiceError("ValidationException", message)
        content = upload.read(MAX_BYTES + 1)
        if not content:
            raise ServiceError("ValidationException", "The file is empty")
        if len(content) > MAX_BYTES:
            raise ServiceError("ValidationException", f"The file is larger than {MAX_BYTES} bytes")
        file = UploadedFile(
            new_object_id("file"), str(upload.filename or "upload"), purpose, len(content)
        )
        path = self.path(file.id)
        with as_store_error("an uploaded file can't be written", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        # The content first: a file that the state has can be read.
        with self.state.lock:
            self.state.openai_files[file.id] = file
            self.state.save()
        return _to_response(file)

    def get_file(self, request: Parameters) -> Response:
        """Return a file's size, name and purpose."""
        with self.state.lock:
            return _to_response(self.require(request["file_id"]))

    def list_files(self, request: Parameters) -> Response:
        """Return the files, the newest first unless `order` is `asc`."""
        purpose = request.get("purpose")
        with self.state.lock:
            files = [f for f in self.state.openai_files.values() if purpose in (None, f.purpose)]
        ordered = files if request.get("order") == "asc" else files[::-1]
        return list_page([_to_response(file) for file in ordered], request, DEFAULT_LIMIT)

    def delete_file(self, request: Parameters) -> Response:
        """Delete a file. A job that runs has its own copy."""
        file_id = request["file_id"]
        with self.state.lock:
            self.require(file_id)
            del self.state.openai_files[file_id]
            self.state.save()
        self.path(file_id).unlink(missing_ok=True)
        return {"id": file_id, "object": "file", "deleted": True}

    def require(self, file_id: str) -> UploadedFile:
        """Return a file by its id. Raises ServiceError (ResourceNotFoundException)."""
        file = self.state.openai_files.get(file_id)
        if file is None:
            raise ServiceError("ResourceNotFoundException", f"No such File object: {file_id}")
        return file


def _to_response(file: UploadedFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "expires_at": None,
        "status_details": None,
    }


def _parse_form(body: bytes, content_type: str) -> tuple[str, FileStorage]:
    """Return purpose and file of an upload. Raises ServiceError (ValidationException)."""
    mimetype, options = parse_options_header(content_type)
    if mimetype != "multipart/form-data" or not options.get("boundary"):
        message = "The request body must be multipart/form-data with the fields file and purpose"
        raise ServiceError("ValidationException", message)
    _, fields, files = FormDataParser(silent=True).parse(
        io.BytesIO(body), mimetype, len(body), options
    )
    for name, part in (("purpose", fields.get("purpose")), ("file", files.get("file"))):
        if part is None:
            raise ServiceError("ValidationException", f"Missing required parameter: '{name}'")
    return fields["purpose"], files["file"]
