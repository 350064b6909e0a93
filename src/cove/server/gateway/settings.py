"""What the gateway may be told: every bound it enforces, with its unit."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MAX_HEAD_BYTES = 64 * KIB
"""Request line or status line with all header fields; longer heads are refused with 431."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Bounds and names; the defaults suit a server bound to loopback.

    Attributes:
        allowed_hosts: names (lower case, no port) that `Host` may carry besides loopback names and `{port}-{id}.`
            forms. None allows every name: only for a server that is meant to be reached from elsewhere, because
            the check is what stops DNS rebinding.
        domain: names `{port}-{id}.<domain>` are addresses of sandboxes' ports. None: there are none, but for the
            agents' own port, which a token protects under any name.
        previews_need_token: programs of sandboxes whose terms leave it open answer only those who have a link or the
            sandbox's token.
        public_scheme: what clients speak to this port; sent to the control plane as `X-Forwarded-Proto`.
        max_connections: client connections; one more is answered 503 and closed.
        max_agent_body_bytes: request body towards an agent; programs get bodies of any size.
        max_control_body_bytes: request body towards the control plane.
        max_code_body_bytes: of a tool call, or of another that carries code.
        max_upload_body_bytes: archives for builds of templates, which the control plane writes to disk as they come.
        max_drained_body_bytes: a refused request's body up to this size is read and dropped so that the connection
            can be kept; with a larger one the connection is closed.
        head_seconds: from the first byte of a request head to its last.
        idle_seconds: between two requests of one connection.
        connect_seconds: to reach an upstream.
        body_seconds: without a byte of a request body; for the control plane: for the whole body.
        stall_seconds: without the client taking any byte of a response that waits for it.
        response_seconds: without a byte of response; longer than any execution may take.
        splice_idle_seconds: without a byte in either direction of a WebSocket.
        handshake_seconds: from the acceptance of a connection to the end of its TLS handshake.
        linger_seconds: for the last bytes of a connection that is being closed.
        upstream_reuse_seconds: how long an idle upstream connection is used again; below the keep-alive time of the
            upstreams (uvicorn: 5 s), so that a request never meets a connection that is being closed.
    """

    allowed_hosts: frozenset[str] | None = frozenset()
    domain: str | None = None
    previews_need_token: bool = False
    public_scheme: str = "http"
    max_connections: int = 4096
    max_agent_body_bytes: int = 64 * GIB
    max_control_body_bytes: int = MIB
    max_code_body_bytes: int = 16 * MIB
    max_upload_body_bytes: int = GIB
    max_drained_body_bytes: int = 256 * KIB
    head_seconds: float = 30.0
    idle_seconds: float = 120.0
    connect_seconds: float = 5.0
    body_seconds: float = 60.0
    stall_seconds: float = 300.0
    response_seconds: float = 25 * 3600.0
    splice_idle_seconds: float = 3600.0
    handshake_seconds: float = 10.0
    linger_seconds: float = 2.0
    upstream_reuse_seconds: float = 4.0
