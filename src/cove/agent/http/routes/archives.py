"""`/files/archive`: a whole directory in one stream, out of the sandbox and into it."""

import posixpath

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.files.failures import file_error
from cove.agent.files.packing import pack, survey
from cove.agent.files.paths import resolved, shown
from cove.agent.files.tar_stream import BrokenArchive
from cove.agent.files.unpacking import Extraction
from cove.agent.http.answers import model_answer
from cove.agent.http.body import next_chunk
from cove.agent.http.pieces import Pieces
from cove.agent.http.query import flag_argument, path_argument
from cove.agent.state import state_of
from cove.models.errors import CoveError, error
from cove.models.files import ArchiveExtracted
from cove.models.limits import Limits

ARCHIVE_TYPE = "application/x-tar"


async def archive(request: Request) -> Response:
    """Send a directory, or fill one."""
    return await (_extract(request) if request.method == "PUT" else _fetch(request))


async def _fetch(request: Request) -> Response:
    """A directory as a tar archive; the headers say how much will be in it."""
    state = state_of(request)
    path = resolved(path_argument(request).text, workspace=state.boot.workspace)
    skip = flag_argument(request, "skip_unreadable")
    try:
        found = await survey(path, skip_unreadable=skip)
        headers = {"x-archive-entries": str(found.entries), "x-archive-bytes": str(found.size)}
        return await Pieces.begin(pack(path, skip_unreadable=skip), media_type=ARCHIVE_TYPE, headers=headers)
    except OSError as failure:
        raise _unreadable(failure, path, state.boot.limits) from None


async def _extract(request: Request) -> Response:
    """Extract a tar archive below a directory."""
    state = state_of(request)
    path = resolved(path_argument(request).text, workspace=state.boot.workspace)
    try:
        extraction = Extraction(path)
    except OSError as failure:
        raise file_error(failure, path, state.boot.limits) from None
    with extraction:
        try:
            more = True
            while more:
                chunk, more = await next_chunk(request)
                extraction.write(chunk)
            extraction.finish()
        except BrokenArchive as problem:
            raise _told(_broken(problem), extraction) from None
        except OSError as failure:
            raise _told(file_error(failure, extraction.path, state.boot.limits), extraction) from None
        except CoveError as failure:
            raise _told(failure, extraction) from None
    return model_answer(ArchiveExtracted(path=shown(path), entries=extraction.entries, bytes=extraction.bytes))


def _unreadable(failure: OSError, top: str, limits: Limits) -> CoveError:
    """`failure`, whose `filename` is relative to `top` where it is not `top` itself."""
    inner = failure.filename if isinstance(failure.filename, str) and failure.filename not in (top, ".") else ""
    path = posixpath.join(top, inner)
    problem = file_error(failure, path, limits, missing="DIRECTORY_NOT_FOUND")
    if problem.code == "FORBIDDEN":
        problem.remedy = "Change its permissions, or leave out what cannot be read: `skip_unreadable=true`."
    return problem


def _broken(problem: BrokenArchive) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"The archive is not accepted: {problem}.",
        remedy="Send an uncompressed tar archive of directories, files, and links that stay inside.",
    )


def _told(failure: CoveError, extraction: Extraction) -> CoveError:
    """`failure`, with what is in place already."""
    done = f"{extraction.entries} entries were extracted before"
    failure.message = f"{failure.message.rstrip('.')} ({done})."
    failure.details |= {"extracted_entries": extraction.entries, "extracted_bytes": extraction.bytes}
    return failure


ROUTES = (Route("/files/archive", archive, methods=["GET", "PUT"]),)
