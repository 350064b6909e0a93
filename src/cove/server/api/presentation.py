"""From what is stored to what clients see."""

from cove.core.catalog import CatalogEntry
from cove.core.clock import utc
from cove.models.agent import AGENT_PORT
from cove.models.isolation import ISOLATION_SUMMARY
from cove.models.limits import Limits
from cove.models.previews import PREVIEW_PARAMETER, PreviewAccess
from cove.models.sandboxes import AgentToken, CreatedSandbox, Resources, SandboxInfo
from cove.models.secrets import BoundSecret, SecretUse
from cove.models.stored import StoredSandbox, StoredTemplate
from cove.models.template_builds import BuildStatus
from cove.models.templates import TemplateInfo, TemplateResources

_VENDOR_PATH = "/.vms.hopx.dev"
"""Hopx clients make the URL of a port (`get_preview_url`) only from an address that ends so; the gateway takes it off
again."""


class Presentation:
    """Knows under which address this server is reached.

    Args:
        base_url: of the server.
        port_origin: URL of a sandbox's port, with `{port}` and `{id}` to be filled in; None where ports have no host
            names of their own, and are reached by path.
        preview_access: of sandboxes that have none of their own.
    """

    def __init__(
        self,
        *,
        base_url: str,
        limits: Limits,
        port_origin: str | None = None,
        preview_access: PreviewAccess = PreviewAccess.PUBLIC,
    ) -> None:
        self._base_url = base_url
        self._port_origin = port_origin
        self._preview_access = preview_access
        self._default_resources = TemplateResources(
            vcpu=limits.vcpu, memory_mb=limits.memory_mb, disk_gb=max(1, limits.disk_mb // 1024)
        )

    def sandbox(self, row: StoredSandbox, request_id: str | None = None) -> SandboxInfo:
        """A sandbox."""
        return SandboxInfo.model_construct(None, **self._facts(row, request_id))

    def created(self, row: StoredSandbox, token: AgentToken, request_id: str) -> CreatedSandbox:
        """A sandbox that was just made, and its first token."""
        return CreatedSandbox.model_construct(
            None,
            **self._facts(row, request_id),
            auth_token=token.auth_token,
            token_expires_at=token.token_expires_at,
        )

    def template(
        self, entry: CatalogEntry, request_id: str | None = None, *, with_packages: bool = False
    ) -> TemplateInfo:
        """A template. Its build has the same id: clients use the two interchangeably."""
        template = entry.template
        return TemplateInfo(
            id=str(template.id),
            name=template.name,
            display_name=template.display_name,
            description=template.description,
            category="development",
            language=template.languages[0] if template.languages else None,
            features=template.languages,
            is_active=entry.built and template.status is not BuildStatus.FAILED,
            is_public=not template.namespace,
            status=_template_status(entry),
            build_id=str(template.id),
            default_resources=self._resources_of(template),
            network=entry.network,
            created_at=utc(template.created_at),
            updated_at=utc(template.updated_at),
            packages=dict(entry.packages) if with_packages else None,
            request_id=request_id,
        )

    def access(self, row: StoredSandbox) -> PreviewAccess:
        """Who may reach programs in a sandbox."""
        return row.preview_access or self._preview_access

    def link(self, sandbox_id: str, port: int, token: str) -> str:
        """The URL of a port, with a link's token."""
        _, preview = self._addresses(sandbox_id)
        return f"{preview.replace('{port}', str(port))}?{PREVIEW_PARAMETER}={token}"

    def _resources_of(self, template: StoredTemplate) -> TemplateResources:
        if template.build is None:
            return self._default_resources
        limits = template.build.limits
        return TemplateResources(
            vcpu=limits["vcpu"], memory_mb=limits["memory_mb"], disk_gb=max(1, limits["disk_mb"] // 1024)
        )

    def _facts(self, row: StoredSandbox, request_id: str | None) -> dict[str, object]:
        """Values of our own, so they are not validated again: this is on the hot path."""
        address, preview = self._addresses(row.id)
        return {
            "id": row.id,
            "name": row.name,
            "namespace": row.namespace,
            "status": row.status,
            "template_id": row.template_id,
            "template_name": row.template_name,
            "organization_id": row.organization_id,
            "node_id": row.host_id,
            "region": row.region,
            "public_host": address,
            "direct_url": address,
            "preview_url": preview,
            "preview_access": self.access(row),
            "resources": Resources.model_construct(
                None, vcpu=row.limits.vcpu, memory_mb=row.limits.memory_mb, disk_mb=row.limits.disk_mb
            ),
            "internet_access": row.internet_access,
            "network": row.network,
            "secrets": {name: _use(secret) for name, secret in row.secrets.items()},
            "timeout_seconds": row.timeout_seconds,
            "expires_at": None if row.deadline is None else utc(row.deadline),
            "created_at": utc(row.created_at),
            "isolation": row.isolation,
            "isolation_summary": ISOLATION_SUMMARY[row.isolation],
            "limits": row.limits,
            "limits_not_enforced": row.unenforced,
            "request_id": request_id,
        }

    def _addresses(self, sandbox_id: str) -> tuple[str, str]:
        """Of the agent, and of any port, where `{port}` is to be filled in."""
        if self._port_origin is None:
            address = f"{self._base_url}/sandboxes/{sandbox_id}"
            return address, f"{address}/ports/{{port}}/"
        preview = self._port_origin.replace("{id}", sandbox_id)
        return preview.replace("{port}", str(AGENT_PORT)) + _VENDOR_PATH, f"{preview}/"


def _use(secret: BoundSecret) -> SecretUse:
    """What its programs see of it is not shown."""
    return SecretUse.model_construct(None, **secret.model_dump(exclude={"placeholder"}))


def _template_status(entry: CatalogEntry) -> str:
    """In the words of the contract: `archived` is what was built once and is not here now."""
    if entry.template.status is not BuildStatus.ACTIVE:
        return entry.template.status.value
    return "active" if entry.built else "archived"
