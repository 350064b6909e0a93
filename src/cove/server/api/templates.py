"""Routes of templates (contract 2.4): list and get."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from cove.core.catalog import CatalogEntry, TemplateCatalog
from cove.models.templates import TemplateInfo, TemplatePage
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of
from cove.server.api.presentation import Presentation


def template_routes(catalog: TemplateCatalog, presentation: Presentation) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["templates"])

    @router.get("/v1/templates", response_model=TemplatePage)
    async def list_templates(request: Request, category: str | None = None, language: str | None = None) -> Response:
        """List templates."""
        namespace = principal_of(request.scope).namespace
        shown = [presentation.template(entry) for entry in catalog.all(namespace) if _speaks(entry, language)]
        wanted = tuple(info for info in shown if category is None or info.category == category)
        return answer(TemplatePage(data=wanted, request_id=request_id_of(request.scope)))

    @router.get("/v1/templates/{reference}", response_model=TemplateInfo)
    async def get_template(request: Request, reference: str) -> Response:
        """Get a template by its name or its id."""
        entry = await catalog.find(reference, principal_of(request.scope).namespace)
        return answer(presentation.template(entry, request_id_of(request.scope), with_packages=True))

    return router


def _speaks(entry: CatalogEntry, language: str | None) -> bool:
    return language is None or language in entry.template.languages
