"""The composition root: the one file that knows every layer of the control plane."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, FastAPI

from cove.core.accounts import Accounts
from cove.core.audit_pages import AuditPages
from cove.core.clock import Clock
from cove.core.creation import GuestEnvironment
from cove.core.credentials import Credentials
from cove.core.directory import LiveDirectory
from cove.core.engine import SandboxEngine
from cove.core.keys import ApiKeys
from cove.core.microsandbox_tokens import MicrosandboxTokens
from cove.core.namespace_access import NamespaceAccess
from cove.core.planning import CreationPolicy
from cove.core.ports import Host
from cove.core.sessions import Sessions
from cove.core.tokens import AgentTokens, load_signing_key
from cove.core.usage import UsageReport
from cove.keys.sealing import Sealer
from cove.models.network import NetworkPolicy
from cove.models.version import VERSION
from cove.server.api.account import account_routes
from cove.server.api.account_keys import key_routes, usage_routes
from cove.server.api.application import build_application
from cove.server.api.audit import audit_routes
from cove.server.api.client_leases import lease_routes
from cove.server.api.executions import execution_routes
from cove.server.api.failed_attempts import FailedAttempts
from cove.server.api.microsandbox import microsandbox_routes
from cove.server.api.networks import network_routes
from cove.server.api.operations import operation_routes
from cove.server.api.presentation import Presentation
from cove.server.api.previews import preview_routes
from cove.server.api.sandboxes import sandbox_routes
from cove.server.api.secrets import secret_routes
from cove.server.api.template_builds import build_routes
from cove.server.api.templates import template_routes
from cove.server.api.volumes import volume_routes
from cove.server.asynchronous import AsynchronousExecutions, build_executions
from cove.server.audit_file import AuditFile
from cove.server.building import TemplateBuilding, build_building
from cove.server.guests import AgentEnvironment
from cove.server.host_directories import HostDirectories
from cove.server.local_address import socket_path as local_socket_path
from cove.server.mcp.callers import HttpCallers
from cove.server.mcp.endpoint import McpEndpoint
from cove.server.mcp.fetching import JsonDocuments
from cove.server.mcp.issuer_keys import IssuerKeys
from cove.server.mcp.resource_metadata import metadata_routes, metadata_url
from cove.server.mcp.resource_server import ResourceServer
from cove.server.metrics import Metrics
from cove.server.package_registries import registries_of
from cove.server.settings import Settings
from cove.server.store_access import open_keys as open_keys
from cove.server.store_access import open_store
from cove.store.database import Database


def token_key_path(data_dir: Path) -> Path:
    """Where the key that signs agent tokens is kept."""
    return data_dir / "keys" / "agent-tokens.pem"


def vault_key_path(data_dir: Path) -> Path:
    """Where the key that seals the secrets of namespaces is kept."""
    return data_dir / "keys" / "vault.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Everything that runs. The app's lifespan starts and stops it.

    Attributes:
        app: the ASGI application of the REST API.
        directory: where agents are, for the gateway.
        tokens: verifies agent tokens, for the gateway.
        keys: API keys.
        engine: the core, for programs that need no HTTP.
        asynchronous: asynchronous executions and their webhooks.
        mcp: `/mcp`.
        audit_file: where the audit log is also written to.
    """

    settings: Settings
    app: FastAPI
    tokens: AgentTokens
    keys: ApiKeys
    store: Database
    engine: SandboxEngine
    asynchronous: AsynchronousExecutions
    building: TemplateBuilding
    metrics: Metrics
    mcp: McpEndpoint
    audit_file: AuditFile | None

    @property
    def directory(self) -> LiveDirectory:
        """Implements `AgentDirectory`."""
        return self.engine.directory

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Open the store, adopt what runs, start the loops; at the end finish what is under way. Sandboxes go on.

        Raises:
            CoveError: STORE_UNAVAILABLE, DISK_FULL.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.store)
            if self.audit_file is not None:
                await stack.enter_async_context(_following(self.audit_file))
            stack.push_async_callback(self.keys.flush)
            noting = asyncio.create_task(self.keys.run(), name="keys")
            stack.push_async_callback(_end, noting)
            stack.push_async_callback(self.engine.stop)
            await self.engine.start()
            stack.push_async_callback(self.asynchronous.stop)
            await self.asynchronous.start()
            stack.push_async_callback(self.building.stop)
            await self.building.start()
            await stack.enter_async_context(self.mcp.running())
            self.engine.audit.server("server.started", version=VERSION, dev=self.settings.dev)
            stack.callback(self.engine.audit.server, "server.stopped")
            yield


def build_control_plane(
    settings: Settings, host: Host, *, clock: Clock = time.time, guests: GuestEnvironment | None = None
) -> ControlPlane:
    """Put the control plane of one server together over `host`. Nothing is started yet.

    Raises:
        CoveError: INTERNAL_ERROR when the data directory holds something else than it should.
    """
    store = open_store(settings)
    signing_key = load_signing_key(token_key_path(settings.data_dir))
    tokens, sessions = AgentTokens(signing_key, clock=clock), Sessions(signing_key, clock=clock)
    keys, namespaces, metrics = ApiKeys(store, clock=clock), NamespaceAccess(store, clock=clock), Metrics()
    policy = _policy(settings)
    engine = SandboxEngine(
        host,
        store,
        tokens=tokens,
        sealer=Sealer.load(vault_key_path(settings.data_dir)),
        guests=guests or AgentEnvironment(),
        policy=policy,
        pool_targets=dict.fromkeys(settings.pool_templates, settings.pool_size),
        namespace_quota=settings.namespace_quota,
        reconcile_seconds=settings.reconcile_seconds,
        audit_days=settings.audit_days,
        clock=clock,
    )
    asynchronous = build_executions(settings, store, engine.directory, count=metrics.webhook, clock=clock)
    building = build_building(settings, store, host, engine, policy, clock=clock)
    callers = HttpCallers(engine.delegated_keys, local_socket_path(settings.data_dir))
    mcp = McpEndpoint(callers, toolset=settings.mcp_toolset)
    app = _application(
        settings, store, engine, policy, keys, namespaces, sessions, metrics, clock,
        execution_routes(asynchronous.executions, tokens), microsandbox_routes(callers), building, mcp,
    )  # fmt: skip
    plane = ControlPlane(
        settings=settings,
        app=app,
        tokens=tokens,
        keys=keys,
        store=store,
        engine=engine,
        asynchronous=asynchronous,
        building=building,
        metrics=metrics,
        mcp=mcp,
        audit_file=_audit_file(settings, store, metrics),
    )
    app.state.control_plane = plane
    return plane


def _application(
    settings: Settings,
    store: Database,
    engine: SandboxEngine,
    policy: CreationPolicy,
    keys: ApiKeys,
    namespaces: NamespaceAccess,
    sessions: Sessions,
    metrics: Metrics,
    clock: Clock,
    executions: APIRouter,
    microsandbox: APIRouter,
    building: TemplateBuilding,
    mcp: McpEndpoint,
) -> FastAPI:
    accounts, attempts = Accounts(store, keys, clock=clock), FailedAttempts()
    presentation = Presentation(
        base_url=settings.base_url,
        limits=settings.limits,
        port_origin=settings.port_origin,
        preview_access=settings.preview_access,
    )
    return build_application(
        settings,
        routers=(
            audit_routes(AuditPages(store)),
            operation_routes(
                store,
                engine.pool,
                metrics,
                audit=engine.audit,
                host_answers=lambda: engine.reconciler.host_answers,
                network_totals=engine.lifecycle.network_totals,
            ),
            sandbox_routes(engine.creates, engine.lifecycle, presentation, metrics),
            network_routes(engine.lifecycle, policy),
            preview_routes(engine.previews, presentation),
            secret_routes(engine.secrets),
            lease_routes(engine.leases),
            volume_routes(
                engine.lifecycle, engine.directory, HostDirectories(settings.allowed_volumes), engine.audit, clock=clock
            ),
            build_routes(building.builds, building.shelf, base_url=settings.base_url),
            template_routes(engine.catalog, presentation),
            executions,
            microsandbox,
            account_routes(accounts, keys, sessions, attempts, dev=settings.dev),
            key_routes(accounts, clock=clock),
            usage_routes(
                UsageReport(store, clock=clock, event_days=settings.audit_days), engine.quotas, most=settings.max_limits
            ),
            *_resource_metadata(settings),
        ),
        keys=keys,
        credentials=Credentials(
            keys, engine.delegated_keys, namespaces, foreign=_microsandbox_tokens(settings, clock), clock=clock
        ),
        namespaces=namespaces,
        sessions=sessions,
        resource_server=_resource_server(settings, namespaces),
        attempts=attempts,
        shelf=building.shelf,
        mcp=mcp,
        metrics=metrics,
        audit=engine.audit,
        lifespan=_lifespan,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    plane: ControlPlane = app.state.control_plane
    async with plane.running():
        yield


@asynccontextmanager
async def _following(file: AuditFile) -> AsyncGenerator[None]:
    """Everything that is noted until the end of the block is in the file then."""
    task = asyncio.create_task(file.run(), name="audit file")
    try:
        yield
    finally:
        await _end(task)
        await file.catch_up()
        file.close()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _audit_file(settings: Settings, store: Database, metrics: Metrics) -> AuditFile | None:
    if settings.audit_log is None:
        return None
    return AuditFile(store, metrics, target=settings.audit_log, position=settings.data_dir / "audit" / "position.json")


def _microsandbox_tokens(settings: Settings, clock: Clock) -> MicrosandboxTokens | None:
    secret = settings.microsandbox_server_key
    return None if secret is None else MicrosandboxTokens(secret.get_secret_value(), clock=clock)


def _resource_server(settings: Settings, namespaces: NamespaceAccess) -> ResourceServer | None:
    issuer = settings.oauth_issuer
    if issuer is None:
        return None
    return ResourceServer(
        IssuerKeys(issuer, JsonDocuments().fetch),
        namespaces,
        metadata_url=metadata_url(settings.base_url),
        issuer=issuer,
        audience=settings.oauth_audience or settings.mcp_url,
        namespace_claim=settings.oauth_namespace_claim,
    )


def _resource_metadata(settings: Settings) -> Sequence[APIRouter]:
    issuer = settings.oauth_issuer
    return () if issuer is None else (metadata_routes(resource=settings.mcp_url, issuer=issuer),)


def _policy(settings: Settings) -> CreationPolicy:
    return CreationPolicy(
        isolation=settings.driver,
        default_timeout_seconds=settings.default_timeout_seconds,
        max_sandboxes=settings.max_sandboxes,
        limits=settings.limits,
        max_limits=settings.max_limits,
        must_hold=settings.must_hold,
        create_seconds=settings.create_timeout_seconds,
        network=NetworkPolicy(preset=settings.network),
        registries=lambda: registries_of(settings.package_registries),
        max_network=settings.max_network,
    )
