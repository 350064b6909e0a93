"""`/files/...`: the files that the sandbox's user can see."""

# A path is text here: pathlib would rewrite what the client sent.
# ruff: noqa: PTH110

import os

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.files.failures import file_error, file_errors
from cove.agent.files.listing import listing_json
from cove.agent.files.paths import resolved, shown
from cove.agent.files.reading import read_content
from cove.agent.files.removal import make_directory, remove_tree
from cove.agent.files.uploads import Upload
from cove.agent.files.writing import decoded_content, parsed_mode, write_file
from cove.agent.http.answers import JSON_TYPE, json_answer, model_answer
from cove.agent.http.body import next_chunk, read_model
from cove.agent.http.download import Download
from cove.agent.http.pieces import Pieces
from cove.agent.http.query import PathArgument, number_argument, path_argument
from cove.agent.state import AgentState, state_of
from cove.models.files import MAX_WRITE_BYTES, FileWritten, MakeDirectory, WriteFile

# Base64 takes four bytes for three; JSON escapes take up to six for one, and whoever needs that many can upload.
MAX_WRITE_BODY = MAX_WRITE_BYTES * 3 // 2
_UPLOAD_REMEDY = "Use POST /files/upload."


async def read(request: Request) -> Response:
    """The content of a file."""
    state = state_of(request)
    path = _existing(path_argument(request), state)
    offset, limit = number_argument(request, "offset"), number_argument(request, "limit")
    with file_errors(path, state.boot.limits):
        return model_answer(await read_content(path, offset=offset or 0, limit=limit))


async def fetch(request: Request) -> Response:
    """The bytes of a file, of any size."""
    state = state_of(request)
    path = _existing(path_argument(request), state)
    with file_errors(path, state.boot.limits):
        return Download(path, double=_decodes_downloads(request))


async def listing(request: Request) -> Response:
    """The entries of a directory."""
    state = state_of(request)
    path = _existing(path_argument(request, default=state.boot.workspace), state)
    offset, limit = number_argument(request, "offset"), number_argument(request, "limit")
    with file_errors(path, state.boot.limits, missing="DIRECTORY_NOT_FOUND"):
        return await Pieces.begin(listing_json(path, offset=offset or 0, limit=limit), media_type=JSON_TYPE)


async def exists(request: Request) -> Response:
    """Whether there is something at a path, links followed."""
    path = _existing(path_argument(request), state_of(request))
    return json_answer({"exists": os.path.exists(path), "path": shown(path)})


async def write(request: Request) -> Response:
    """Write a file whole."""
    state = state_of(request)
    body = await read_model(request, WriteFile, limit=MAX_WRITE_BODY, remedy=_UPLOAD_REMEDY)
    path = resolved(body.path, workspace=state.boot.workspace)
    data, mode = decoded_content(body), parsed_mode(body.mode)
    with file_errors(path, state.boot.limits):
        write_file(path, data, mode=mode, overwrite=body.overwrite)
    return _written(path, len(data))


async def upload(request: Request) -> Response:
    """Write a file from a multipart form, of any size."""
    state = state_of(request)
    with Upload(request.headers.get("content-type", ""), workspace=state.boot.workspace) as incoming:
        try:
            more = True
            while more:
                chunk, more = await next_chunk(request)
                incoming.write(chunk)
            path, size = await incoming.finish()
        except OSError as failure:
            raise file_error(failure, incoming.path or state.boot.workspace, state.boot.limits) from None
    return _written(path, size)


async def remove(request: Request) -> Response:
    """Remove a file or a whole directory."""
    state = state_of(request)
    path = resolved(path_argument(request).text, workspace=state.boot.workspace)
    with file_errors(path, state.boot.limits):
        await remove_tree(path)
    return json_answer({"success": True, "message": "removed", "path": shown(path), "timestamp": timestamp()})


async def make(request: Request) -> Response:
    """Make a directory and its parents."""
    state = state_of(request)
    body = await read_model(request, MakeDirectory)
    path = resolved(body.path, workspace=state.boot.workspace)
    with file_errors(path, state.boot.limits):
        make_directory(path)
    return json_answer({"success": True, "message": "created", "path": path, "timestamp": timestamp()})


def _existing(argument: PathArgument, state: AgentState) -> str:
    """The path that is meant: a client that does not encode its paths means `+` where others mean a space."""
    path = resolved(argument.text, workspace=state.boot.workspace)
    if not argument.literals or os.path.lexists(path):
        return path
    literals = (resolved(literal, workspace=state.boot.workspace) for literal in argument.literals)
    return next(filter(os.path.lexists, literals), path)


def _decodes_downloads(request: Request) -> bool:
    # All versions of the Hopx clients for Python send this and nothing that tells them from other users of httpx.
    return request.headers.get("user-agent", "").startswith("python-httpx/")


def _written(path: str, size: int) -> Response:
    return model_answer(FileWritten(message=f"{size} bytes written", path=path, size=size, timestamp=timestamp()))


ROUTES = (
    Route("/files/read", read, methods=["GET"]),
    Route("/files/write", write, methods=["POST"]),
    Route("/files/list", listing, methods=["GET"]),
    Route("/files/exists", exists, methods=["GET"]),
    Route("/files/download", fetch, methods=["GET"]),
    Route("/files/upload", upload, methods=["POST"]),
    Route("/files/remove", remove, methods=["DELETE"]),
    Route("/files/mkdir", make, methods=["POST"]),
)
