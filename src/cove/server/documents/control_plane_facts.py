"""What the routes of the control plane do not say of themselves: an example of each, and which errors it answers."""

from typing import Any, Final, NamedTuple

_REQUEST: Final = {"request_id": "req_5w1kxs0y2mz0q8d3b7ha"}
_SANDBOX_ID: Final = "1763382095i648uu1o"
_TIME: Final = "2026-01-17T12:21:35Z"
_LATER: Final = "2026-01-17T13:21:35Z"
_EXECUTION_ID: Final = "exec_8c1d0f3b7a2e4956"
_TOKEN: Final = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxNzYzMzgyMDk1aTY0OHV1MW8ifQ.c2lnbmF0dXJl"  # noqa: S105
_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_DELEGATED: Final = "cove_delegated_5b0c.example"
_KEY_ID: Final = "3f9c2a7be01d"
_MEMBER_ID: Final = "7d20c4a1be93"

_CHANGES: Final = ("SANDBOX_NOT_FOUND", "INVALID_STATE")
_STATES: Final = (*_CHANGES, "UNSUPPORTED")


class Facts(NamedTuple):
    """Of one operation.

    Attributes:
        answer: example of a success; text where the answer is not JSON.
        kind: media type of such a text.
        body: example of a request's body.
        errors: codes beyond those that every operation of its kind has.
    """

    answer: Any
    body: Any = None
    errors: tuple[str, ...] = ()
    kind: str = "text/plain"


def _status(status: str) -> dict[str, Any]:
    return {"id": _SANDBOX_ID, "status": status, **_REQUEST}


_LIMITS: Final = {"vcpu": 2, "memory_mb": 1024, "disk_mb": 2048, "pids": 512, "open_files": 4096, "cpu_share": 100}
_SANDBOX: Final[dict[str, Any]] = {
    "object": "sandbox",
    "id": _SANDBOX_ID,
    "name": "analysis",
    "namespace": "default",
    "status": "running",
    "template_id": "1",
    "template_name": "code-interpreter",
    "organization_id": 1,
    "node_id": "host-1",
    "region": "local",
    "public_host": f"http://127.0.0.1:8080/sandboxes/{_SANDBOX_ID}",
    "direct_url": f"http://127.0.0.1:8080/sandboxes/{_SANDBOX_ID}",
    "preview_url": f"http://127.0.0.1:8080/sandboxes/{_SANDBOX_ID}/ports/{{port}}/",
    "preview_access": "public",
    "resources": {"vcpu": 2, "memory_mb": 1024, "disk_mb": 2048},
    "internet_access": False,
    "network": None,
    "secrets": {},
    "live_mode": True,
    "timeout_seconds": 3600,
    "expires_at": _LATER,
    "created_at": _TIME,
    "isolation": "namespace",
    "isolation_summary": "shared kernel: namespaces, seccomp allow-list, no capabilities, cgroup limits",
    "limits": _LIMITS,
    "limits_not_enforced": [],
}
_SECRET_USE: Final[dict[str, Any]] = {
    "id": _SANDBOX_ID,
    "name": "OPENAI_API_KEY",
    "hosts": ["api.openai.com"],
    "places": ["headers"],
    "from_vault": None,
    "withdrawn": False,
}
_SECRET: Final[dict[str, Any]] = {
    "object": "secret",
    "name": "openai",
    "hosts": ["api.openai.com"],
    "places": ["headers"],
    "created_at": _TIME,
    "updated_at": _TIME,
    "sandboxes": 1,
}
_POLICY: Final[dict[str, Any]] = {"allow": ["api.example.com", "*.example.org:443"], "deny": [], "internal": []}
_TEMPLATE: Final[dict[str, Any]] = {
    "object": "template",
    "id": "1",
    "name": "code-interpreter",
    "display_name": "Code interpreter",
    "description": "Python with the usual packages, JavaScript, Bash, Go.",
    "category": "development",
    "language": "python",
    "features": ["python", "javascript", "bash", "go"],
    "tags": [],
    "is_active": True,
    "is_public": True,
    "status": "active",
    "build_id": "1",
    "default_resources": {"vcpu": 2, "memory_mb": 1024, "disk_gb": 2},
    "created_at": _TIME,
    "updated_at": _TIME,
}
_EXECUTION: Final[dict[str, Any]] = {
    "object": "execution",
    "execution_id": _EXECUTION_ID,
    "sandbox_id": _SANDBOX_ID,
    "status": "completed",
    "language": "python",
    "timeout": 1800.0,
    "callback_url": "https://example.com/results",
    "created_at": _TIME,
    "started_at": _TIME,
    "ended_at": _TIME,
    "exit_code": 0,
    "delivery": {"state": "delivered", "attempts": 1, "delivered_at": _TIME},
}
_KEY: Final[dict[str, Any]] = {
    "id": _KEY_ID,
    "key_id": _KEY_ID,
    "name": "continuous integration",
    "prefix": f"hopx_live_{_KEY_ID}",
    "masked_key": f"hopx_live_{_KEY_ID}.***",
    "scopes": ["admin", "exec", "read"],
    "status": "active",
    "created_at": _TIME,
    "expires_at": None,
    "last_used_at": None,
}
_ORGANIZATION: Final[dict[str, Any]] = {
    "success": True,
    "id": 1,
    "name": "Research",
    "slug": "research",
    "plan_id": "self-hosted",
    "created_at": _TIME,
    **_REQUEST,
}
_SESSION: Final[dict[str, Any]] = {
    "access_token": "ses_example",
    "refresh_token": "ref_example",
    "expires_at": 1768656095,
    **_REQUEST,
}
_DONE: Final[dict[str, Any]] = {"success": True, "message": "ok", **_REQUEST}
_TOTALS: Final[dict[str, Any]] = {
    "max_concurrent_sandboxes": 100,
    "max_total_vcpu": 200,
    "max_total_memory_mb": 102400,
}

_SANDBOXES: Final[dict[str, Facts]] = {
    "create_sandbox": Facts(
        {**_SANDBOX, **_REQUEST, "auth_token": _TOKEN, "token_expires_at": _LATER},
        {
            "template_name": "code-interpreter",
            "timeout_seconds": 3600,
            "env_vars": {"LANG": "C.UTF-8"},
            "resources": {"vcpu": 2, "memory_mb": 1024},
        },
        (
            "TEMPLATE_NOT_FOUND",
            "TEMPLATE_NOT_BUILT",
            "RESOURCE_LIMIT_EXCEEDED",
            "ISOLATION_UNAVAILABLE",
            "LIMIT_NOT_ENFORCEABLE",
            "UNSUPPORTED",
            "CONFLICT",
            "SANDBOX_START_FAILED",
            "AGENT_UNREACHABLE",
        ),
    ),
    "open_client_lease": Facts(
        f'{{"type":"lease","id":"lease_7f1e9a","api_key":"{_DELEGATED}"}}\n{{"type":"alive"}}\n',
        errors=("RESOURCE_LIMIT_EXCEEDED",),
        kind="application/x-ndjson",
    ),
    "list_sandboxes": Facts(
        {"object": "list", "data": [_SANDBOX], "has_more": False, "url": "/v1/sandboxes", **_REQUEST}
    ),
    "get_sandbox": Facts({**_SANDBOX, **_REQUEST}, errors=("SANDBOX_NOT_FOUND",)),
    "get_sandbox_usage": Facts(
        {
            "id": _SANDBOX_ID,
            "status": "running",
            "memory_bytes": {"used": 48234496, "limit": 1073741824, "peak": 60817408},
            "cpu_seconds": {"used": 1.42, "limit": 2},
            "pids": {"used": 4, "limit": 512},
            "disk_bytes": {"used": 1069056, "limit": 2147483648},
            "inodes": {"used": 31, "limit": 131072},
            "oom_kills": 0,
            "limits": _LIMITS,
            "limits_not_enforced": [],
            **_REQUEST,
        },
        errors=("SANDBOX_NOT_FOUND", "HOST_UNAVAILABLE"),
    ),
    "get_network": Facts(
        {
            "id": _SANDBOX_ID,
            "policy": _POLICY,
            "totals": {
                "sent_bytes": 517,
                "received_bytes": 4096,
                "open_connections": 0,
                "connections": 1,
                "lookups": 1,
                "refused": 0,
            },
            "entries": [
                {
                    "sequence": 1,
                    "time": 1767225600.0,
                    "kind": "tls",
                    "name": "api.example.com",
                    "address": "93.184.216.34",
                    "port": 443,
                    "allowed": True,
                    "reason": "",
                    "sent_bytes": 517,
                    "received_bytes": 4096,
                    "seconds": 0.21,
                }
            ],
            "forgotten": 0,
            **_REQUEST,
        },
        errors=("SANDBOX_NOT_FOUND", "HOST_UNAVAILABLE"),
    ),
    "set_network": Facts(
        {
            "id": _SANDBOX_ID,
            "policy": _POLICY,
            "totals": dict.fromkeys(
                ("sent_bytes", "received_bytes", "open_connections", "connections", "lookups", "refused"), 0
            ),
            "entries": [],
            "forgotten": 0,
            **_REQUEST,
        },
        {"allow": ["api.example.com", "*.example.org:443"]},
        (*_CHANGES, "UNSUPPORTED"),
    ),
    "create_preview_link": Facts(
        {
            "id": _SANDBOX_ID,
            "port": 3000,
            "url": f"http://127.0.0.1:8080/sandboxes/{_SANDBOX_ID}/ports/3000/?cove_preview_token={_TOKEN}",
            "token": _TOKEN,
            "expires_at": _LATER,
            "access": "token",
            **_REQUEST,
        },
        {"port": 3000, "expires_in_seconds": 3600},
        _CHANGES,
    ),
    "set_preview_access": Facts({"id": _SANDBOX_ID, "access": "token", **_REQUEST}, {"access": "token"}, _CHANGES),
    "set_sandbox_secret": Facts({**_SECRET_USE, **_REQUEST}, {"value": "sk-example-0001"}, (*_CHANGES, "CONFLICT")),
    "withdraw_sandbox_secret": Facts({**_SECRET_USE, "withdrawn": True, **_REQUEST}, errors=_CHANGES),
    "revoke_preview_links": Facts({"id": _SANDBOX_ID, "access": "token", **_REQUEST}, errors=_CHANGES),
    "delete_sandbox": Facts(_status("deleted"), errors=("SANDBOX_NOT_FOUND",)),
    "set_timeout": Facts(
        {"id": _SANDBOX_ID, "timeout_seconds": 3600, "expires_at": _LATER, **_REQUEST},
        {"timeout_seconds": 3600},
        _CHANGES,
    ),
    "refresh_token": Facts({"auth_token": _TOKEN, "token_expires_at": _LATER}, errors=_CHANGES),
    "copy_volume": Facts(
        {"id": _SANDBOX_ID, "path": "/workspace/project", "entries": 3, "bytes": 4096, **_REQUEST},
        {"host_path": "/srv/projects/one", "path": "/workspace/project"},
        (
            *_CHANGES,
            *("PATH_NOT_ALLOWED", "DIRECTORY_NOT_FOUND", "INVALID_PATH", "AGENT_UNREACHABLE", "REQUEST_TOO_LARGE"),
        ),
    ),
    "pause_sandbox": Facts(_status("paused"), errors=_STATES),
    "resume_sandbox": Facts(_status("running"), errors=_STATES),
    "stop_sandbox": Facts(_status("stopped"), errors=_STATES),
    "start_sandbox": Facts(
        _status("running"),
        errors=(*_STATES, "TEMPLATE_NOT_BUILT", "SANDBOX_START_FAILED", "AGENT_UNREACHABLE", "RESOURCE_LIMIT_EXCEEDED"),
    ),
}

_TEMPLATES: Final[dict[str, Facts]] = {
    "list_templates": Facts(
        {"object": "list", "data": [_TEMPLATE], "has_more": False, "url": "/v1/templates", **_REQUEST}
    ),
    "get_template": Facts({**_TEMPLATE, **_REQUEST}, errors=("TEMPLATE_NOT_FOUND",)),
    "delete_template": Facts(
        {"id": "7", "name": "mine", "deleted": True, "status": "deleted", **_REQUEST},
        errors=("TEMPLATE_NOT_FOUND", "CONFLICT"),
    ),
    "upload_link": Facts(
        {
            "present": False,
            "upload_url": "http://127.0.0.1:8080/v1/templates/uploads/" + _TOKEN,
            "expires_at": _LATER,
            "files_hash": _HASH,
            **_REQUEST,
        },
        {"files_hash": _HASH, "content_length": 20480},
        ("RESOURCE_LIMIT_EXCEEDED",),
    ),
    "upload_archive": Facts(
        {"success": True, "files_hash": _HASH, **_REQUEST}, errors=("RESOURCE_LIMIT_EXCEEDED", "CONFLICT")
    ),
    "build_template": Facts(
        {
            "build_id": "7",
            "template_id": "7",
            "status": "building",
            "logs_url": "http://127.0.0.1:8080/v1/templates/build/7/logs",
            **_REQUEST,
        },
        {
            "name": "mine",
            "from_image": "python:3.11",
            "steps": [
                {"type": "ENV", "args": ["GREETING", "hello"]},
                {"type": "RUN", "args": ["pip install requests"]},
                {"type": "COPY", "args": ["app/,", "/workspace/app"], "filesHash": _HASH},
            ],
            "startCmd": "python /workspace/app/main.py",
            "readyCmd": {"type": "port", "port": 8000},
            "cpu": 2,
            "memory": 2048,
            "diskGB": 10,
        },
        ("TEMPLATE_NOT_FOUND", "TEMPLATE_NOT_BUILT", "RESOURCE_LIMIT_EXCEEDED", "UNSUPPORTED", "CONFLICT"),
    ),
    "build_status": Facts(
        {
            "build_id": "7",
            "template_id": "7",
            "status": "building",
            "progress": 40,
            "started_at": _TIME,
            "current_step": "RUN pip install requests",
            **_REQUEST,
        },
        errors=("RESOURCE_NOT_FOUND",),
    ),
    "build_logs": Facts(
        {"logs": "Step 1 of 3: ENV GREETING\n", "offset": 26, "status": "building", "complete": False, **_REQUEST},
        errors=("RESOURCE_NOT_FOUND",),
    ),
}

_EXECUTIONS: Final[dict[str, Facts]] = {
    "list_executions": Facts(
        {"object": "list", "data": [_EXECUTION], "has_more": False, "url": "/v1/executions", **_REQUEST}
    ),
    "get_execution": Facts({**_EXECUTION, **_REQUEST}, errors=("EXECUTION_NOT_FOUND",)),
    "redeliver_execution": Facts({**_EXECUTION, **_REQUEST}, errors=("EXECUTION_NOT_FOUND", "INVALID_STATE")),
}

_AUDIT: Final[dict[str, Facts]] = {
    "list_audit_entries": Facts(
        {
            "object": "list",
            "data": [
                {
                    "object": "audit_entry",
                    "id": 41,
                    "at": _TIME,
                    "namespace": "default",
                    "actor": _KEY_ID,
                    "action": "code.run",
                    "subject": _SANDBOX_ID,
                    "outcome": "ok",
                    "request_id": "req_0z9y8x7w6v5u4t3s2r1q",
                    "address": "192.0.2.7",
                    "details": {"route": "POST /execute", "bytes": 57},
                }
            ],
            "has_more": False,
            "next_cursor": None,
            "url": "/v1/audit",
            **_REQUEST,
        }
    )
}

_ACCOUNT: Final[dict[str, Facts]] = {
    "log_in": Facts(_SESSION, {"code": "hopx_live_3f9c2a7be01d.the-secret-of-the-key"}),
    "refresh_session": Facts(_SESSION, {"refresh_token": "ref_example"}),
    "get_profile": Facts(
        {
            "user_id": _KEY_ID,
            "email": f"{_KEY_ID}@research.invalid",
            "first_name": "continuous",
            "last_name": "integration",
            "role": "admin",
            "organization_id": 1,
            **_REQUEST,
        }
    ),
    "update_profile": Facts(_DONE, {"first_name": "continuous"}, ("UNSUPPORTED", "RESOURCE_NOT_FOUND")),
    "get_organization": Facts(_ORGANIZATION),
    "rename_organization": Facts(_ORGANIZATION, {"name": "Research"}),
    "list_organizations": Facts({"data": [{"id": 1, "name": "Research", "role": "admin"}], **_REQUEST}),
    "switch_organization": Facts(_DONE, {"organization_id": 1}, ("RESOURCE_NOT_FOUND",)),
    "list_members": Facts(
        {
            "data": [
                {
                    "id": _KEY_ID,
                    "email": f"{_KEY_ID}@research.invalid",
                    "first_name": "continuous",
                    "last_name": "integration",
                    "role": "admin",
                    "status": "active",
                }
            ],
            **_REQUEST,
        }
    ),
    "invite_member": Facts(
        {
            "success": False,
            "message": "This server sends no mail, so nobody can be invited.",
            "code": "UNSUPPORTED",
            **_REQUEST,
        },
        {"email": "someone@example.com"},
        ("UNSUPPORTED",),
    ),
    "remove_member": Facts(_DONE, errors=("RESOURCE_NOT_FOUND", "CONFLICT")),
    "get_balance": Facts({"balance_usd": "$0.00", "balance_cents": 0, "currency": "usd"}),
    "list_transactions": Facts({"transactions": []}),
    "list_invoices": Facts({"invoices": []}),
    "get_auto_recharge": Facts(
        {
            "enabled": False,
            "threshold_cents": 0,
            "recharge_to_cents": 0,
            "monthly_limit_cents": 0,
            "current_month_recharged_cents": 0,
        }
    ),
    "list_keys": Facts({"success": True, "api_keys": [_KEY], "count": 1, **_REQUEST}),
    "create_key": Facts(
        {
            "success": True,
            "message": "The key was made. Keep it: it is not shown again.",
            "api_key": _KEY,
            "full_key": f"hopx_live_{_KEY_ID}.the-secret-of-the-key",
            **_REQUEST,
        },
        {"name": "continuous integration", "expires_in": "1year"},
        ("RESOURCE_LIMIT_EXCEEDED",),
    ),
    "get_key": Facts({"success": True, "message": "ok", "api_key": _KEY, **_REQUEST}, errors=("RESOURCE_NOT_FOUND",)),
    "revoke_key": Facts(
        {
            "success": True,
            "message": "The key was revoked.",
            "api_key": {**_KEY, "status": "revoked"},
            **_REQUEST,
        },
        errors=("RESOURCE_NOT_FOUND", "CONFLICT"),
    ),
    "get_usage": Facts(
        {
            "plan": {"id": "self-hosted", "name": "self-hosted"},
            "limits": {
                **_TOTALS,
                "max_total_disk_gb": 200.0,
                "max_vcpu_per_sandbox": 4,
                "max_memory_mb_per_sandbox": 4096,
                "max_disk_gb_per_sandbox": 10.0,
            },
            "current_usage": {
                "active_sandboxes": 1,
                "total_vcpu": 2,
                "total_memory_mb": 1024,
                "total_disk_gb": 2.0,
            },
            **_REQUEST,
        }
    ),
    "list_plans": Facts(
        {
            "plans": [{"id": "self-hosted", "name": "self-hosted", "is_current": True, **_TOTALS}],
            "total_spent": 0,
            **_REQUEST,
        }
    ),
    "sandbox_history": Facts({"data": [{"date": "2026-01-17", "active_vms": 3}], **_REQUEST}),
    "cost_history": Facts({"data": [{"date": "2026-01-17", "cost_usd": 0.0}], **_REQUEST}),
    "resource_history": Facts({"data": [{"date": "2026-01-17", "total_usage": 12.5}], **_REQUEST}),
}

_SECRETS: Final[dict[str, Facts]] = {
    "list_secrets": Facts({"object": "list", "data": [_SECRET], **_REQUEST}),
    "set_secret": Facts(
        {**_SECRET, "behind": 0, "deleted": False, **_REQUEST},
        {"value": "sk-example-0001", "hosts": ["api.openai.com"]},
        ("RESOURCE_LIMIT_EXCEEDED", "CONFLICT"),
    ),
    "delete_secret": Facts({**_SECRET, "behind": 0, "deleted": True, **_REQUEST}, errors=("CONFLICT",)),
}

_OPERATIONS: Final[dict[str, Facts]] = {
    "health": Facts({"status": "healthy", "message": "Cove is ready.", "version": "0.1.0", **_REQUEST}),
    "prometheus": Facts('# TYPE cove_sandboxes gauge\ncove_sandboxes{status="running"} 1.0\n'),
}

FACTS: Final[dict[str, Facts]] = {
    **_SANDBOXES,
    **_SECRETS,
    **_TEMPLATES,
    **_EXECUTIONS,
    **_AUDIT,
    **_ACCOUNT,
    **_OPERATIONS,
}
"""By operation id."""

PARAMETERS: Final[dict[str, str]] = {
    "sandbox_id": _SANDBOX_ID,
    "secret": "openai",
    "variable": "OPENAI_API_KEY",
    "reference": "code-interpreter",
    "build_id": "7",
    "token": _TOKEN,
    "execution_id": _EXECUTION_ID,
    "key_id": _KEY_ID,
    "member_id": _MEMBER_ID,
}
"""Examples of what paths name."""
