"""An agent's routes for files."""

from typing import Any, Final

from cove.models.files import (
    ArchiveExtracted,
    FileContent,
    FileList,
    FileWritten,
    MakeDirectory,
    WriteFile,
)
from cove.server.documents.operation import (
    BINARY,
    BOOLEAN,
    INTEGER,
    TEXT,
    Body,
    Operation,
    Parameter,
    record,
)

_TAG: Final = "files"
_TIME: Final = "2026-01-17T12:21:35.120Z"
_PATH: Final = "/workspace/notes.txt"
_COUNT: Final = {**INTEGER, "minimum": 0}

# What the kernel may say about any path.
_PATH_ERRORS: Final = ("INVALID_PATH", "FORBIDDEN", "MISSING_PARAMETER", "RESOURCE_LIMIT_EXCEEDED", "CONFLICT")
_READ_ERRORS: Final = (*_PATH_ERRORS, "FILE_NOT_FOUND")
_WRITE_ERRORS: Final = (*_READ_ERRORS, "FILE_ALREADY_EXISTS", "REQUEST_TOO_LARGE", "DISK_FULL")
_LIST_ERRORS: Final = (*_PATH_ERRORS, "DIRECTORY_NOT_FOUND")


def _path(description: str, *, example: str = _PATH, required: bool = True) -> Parameter:
    return Parameter(name="path", description=description, schema=TEXT, required=required, example=example)


def _changed(message: str) -> Body:
    return Body(
        shape=record(success=BOOLEAN, message=TEXT, path=TEXT, timestamp=TEXT),
        example={"success": True, "message": message, "path": _PATH, "timestamp": _TIME},
    )


_WRITTEN: Final = Body(
    shape=FileWritten,
    example={"success": True, "message": "6 bytes written", "path": _PATH, "size": 6, "timestamp": _TIME},
)
_PART: Final = (
    Parameter(name="offset", description="Where to begin; 0 where it is absent.", schema=_COUNT),
    Parameter(name="limit", description="How much at most.", schema=_COUNT),
)
_ENTRY: Final[dict[str, Any]] = {
    "name": "notes.txt",
    "path": _PATH,
    "size": 6,
    "is_directory": False,
    "is_dir": False,
    "permissions": "-rw-r--r--",
    "mode": "-rw-r--r--",
    "modified_time": _TIME,
    "modified": _TIME,
    "is_symlink": False,
}

FILE_OPERATIONS: Final = (
    Operation(
        tag=_TAG,
        method="get",
        path="/files/read",
        name="read_file",
        description="The content of a file: text, or base64 where it is not UTF-8. `offset` and `limit` in bytes.",
        parameters=(_path("Of the file."), *_PART),
        answer=Body(shape=FileContent, example={"content": "hello\n", "path": _PATH, "size": 6, "encoding": "utf-8"}),
        errors=(*_READ_ERRORS, "REQUEST_TOO_LARGE"),
    ),
    Operation(
        tag=_TAG,
        method="post",
        path="/files/write",
        name="write_file",
        description="Write a file whole; its parents are made. For more than 64 MiB use `/files/upload`.",
        body=Body(shape=WriteFile, example={"path": _PATH, "content": "hello\n", "mode": "0644", "overwrite": True}),
        answer=_WRITTEN,
        errors=_WRITE_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/files/list",
        name="list_files",
        description="The entries of a directory. `offset` and `limit` in entries.",
        parameters=(_path("Of the directory; the workspace where it is absent.", required=False), *_PART),
        answer=Body(shape=FileList, example={"files": [_ENTRY], "path": "/workspace", "count": 1, "truncated": False}),
        errors=_LIST_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/files/exists",
        name="file_exists",
        description="Whether there is something at a path, links followed.",
        parameters=(_path("To look at."),),
        answer=Body(shape=record(exists=BOOLEAN, path=TEXT), example={"exists": True, "path": _PATH}),
        errors=_PATH_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/files/download",
        name="download_file",
        description="The bytes of a file, of any size. Clients whose `User-Agent` begins with `python-httpx/` decode "
        "what looks like base64 without being asked: for them such a file is encoded once more.",
        parameters=(_path("Of the file."),),
        answer=Body(shape=BINARY, content_type="application/octet-stream"),
        errors=_READ_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="post",
        path="/files/upload",
        name="upload_file",
        description="Write a file of any size from a form, its parts in any order.",
        body=Body(
            shape={
                "type": "object",
                "properties": {
                    "path": {**TEXT, "description": "Where the file goes."},
                    "file": {**BINARY, "description": "Its content."},
                },
                "required": ["file"],
            },
            content_type="multipart/form-data",
        ),
        answer=_WRITTEN,
        errors=(*_WRITE_ERRORS, "MISSING_PARAMETER"),
    ),
    Operation(
        tag=_TAG,
        method="delete",
        path="/files/remove",
        name="remove_file",
        description="Remove a file, or a directory with all that is in it.",
        parameters=(_path("What to remove."),),
        answer=_changed("removed"),
        errors=_READ_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="post",
        path="/files/mkdir",
        name="make_directory",
        description="Make a directory and its parents; one that exists is fine.",
        body=Body(shape=MakeDirectory, example={"path": "/workspace/results"}),
        answer=_changed("created"),
        errors=_WRITE_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/files/archive",
        name="download_directory",
        description="A directory as a tar archive; `X-Archive-Entries` and `X-Archive-Bytes` say how much is in it.",
        parameters=(
            _path("Of the directory.", example="/workspace"),
            Parameter(
                name="skip_unreadable",
                description="Leave out what the sandbox's user may not read, instead of failing.",
                schema=BOOLEAN,
            ),
        ),
        answer=Body(shape=BINARY, content_type="application/x-tar"),
        errors=(*_LIST_ERRORS, "FILE_NOT_FOUND", "REQUEST_TOO_LARGE"),
    ),
    Operation(
        tag=_TAG,
        method="put",
        path="/files/archive",
        name="upload_directory",
        description="Extract an uncompressed tar archive below a directory, which is made if it does not exist.",
        parameters=(_path("Of the directory.", example="/workspace/input"),),
        body=Body(shape=BINARY, content_type="application/x-tar"),
        answer=Body(
            shape=ArchiveExtracted,
            example={"success": True, "path": "/workspace/input", "entries": 3, "bytes": 1200},
        ),
        errors=(*_WRITE_ERRORS, "DIRECTORY_NOT_FOUND"),
    ),
)
