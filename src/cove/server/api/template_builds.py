"""Routes of template builds (contract 2.4). Build and template have one id: clients use the two interchangeably."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cove.core.clock import rfc3339
from cove.core.template_builds import TemplateBuilds
from cove.models.stored import StoredTemplate
from cove.models.template_builds import (
    BuildAccepted,
    BuildLogs,
    BuildState,
    BuildStatus,
    BuildTemplate,
    TemplateDeleted,
    UploadLink,
    UploadRequest,
)
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of
from cove.server.api.uploads import PREFIX
from cove.server.uploads import UploadShelf

_BUILD = "/v1/templates/build"


def build_routes(builds: TemplateBuilds, shelf: UploadShelf, *, base_url: str) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["templates"])
    _add_uploads(router, shelf, base_url)
    _add_builds(router, builds, base_url)
    _add_reading(router, builds)
    return router


def _add_uploads(router: APIRouter, shelf: UploadShelf, base_url: str) -> None:
    @router.post("/v1/templates/files/upload-link", response_model=UploadLink)
    async def upload_link(request: Request, body: UploadRequest) -> Response:
        """Say where to put the archive of a COPY step: a tar.gz, with PUT, without any other credential."""
        namespace = principal_of(request.scope).namespace
        request_id = request_id_of(request.scope)
        if shelf.find(namespace, body.files_hash) is not None:
            return answer(UploadLink(present=True, files_hash=body.files_hash, request_id=request_id))
        token, expires = shelf.link(namespace, body.files_hash, body.content_length)
        return answer(
            UploadLink(
                present=False,
                upload_url=f"{base_url}{PREFIX}{token}",
                expires_at=rfc3339(expires),
                files_hash=body.files_hash,
                request_id=request_id,
            )
        )


def _add_builds(router: APIRouter, builds: TemplateBuilds, base_url: str) -> None:
    @router.post(_BUILD, status_code=201, response_model=BuildAccepted)
    async def build_template(request: Request, body: BuildTemplate) -> Response:
        """Build a template. The steps run in a sandbox; ask for the status until it is active or failed."""
        row = await builds.start(principal_of(request.scope), body)
        number = str(row.id)
        return answer(
            BuildAccepted(
                build_id=number,
                template_id=number,
                status=row.status,
                logs_url=f"{base_url}{_BUILD}/{number}/logs",
                request_id=request_id_of(request.scope),
            ),
            201,
        )

    @router.delete("/v1/templates/{reference}", response_model=TemplateDeleted)
    async def delete_template(request: Request, reference: str) -> Response:
        """Delete a template of one's own. Sandboxes that were made from it go on."""
        row = await builds.remove(principal_of(request.scope), reference)
        return answer(TemplateDeleted(id=str(row.id), name=row.name, request_id=request_id_of(request.scope)))


def _add_reading(router: APIRouter, builds: TemplateBuilds) -> None:
    @router.get(_BUILD + "/{build_id}/status", response_model=BuildState)
    async def build_status(request: Request, build_id: str) -> Response:
        """How far a build is."""
        row = await builds.get(principal_of(request.scope), build_id)
        return answer(_state(row, request_id_of(request.scope)))

    @router.get(_BUILD + "/{build_id}/logs", response_model=BuildLogs)
    async def build_logs(
        request: Request, build_id: str, offset: Annotated[int, Query(ge=0, le=2**31)] = 0
    ) -> Response:
        """What a build has said from `offset` (characters) on."""
        row, text = await builds.log(principal_of(request.scope), build_id)
        return answer(
            BuildLogs(
                logs=text[offset:],
                offset=max(offset, len(text)),
                status=row.status,
                complete=row.status is not BuildStatus.BUILDING,
                request_id=request_id_of(request.scope),
            )
        )


def _state(row: StoredTemplate, request_id: str) -> BuildState:
    build = row.build
    assert build
    took = None if build.completed_at is None else int(1000 * (build.completed_at - build.started_at))
    return BuildState(
        build_id=str(row.id),
        template_id=str(row.id),
        status=row.status,
        progress=build.progress,
        started_at=rfc3339(build.started_at),
        current_step=build.step,
        completed_at=None if build.completed_at is None else rfc3339(build.completed_at),
        error_message=build.error,
        build_duration_ms=took,
        request_id=request_id,
    )
