"""Options about networks that several commands have, and how policies are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cove.models.network import EgressPolicy, NetworkPolicy

Allowed = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="RULE",
        help="What it may reach and nothing else, e.g. api.example.com, *.example.com, 192.0.2.0/24:5432; may be"
        " repeated.",
        show_default=False,
    ),
]
Denied = Annotated[
    list[str] | None,
    typer.Option(
        "--deny",
        metavar="RULE",
        help="What it may not reach although it is allowed; may be repeated.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="PRESET",
        help="What it may reach: none, public or package-registries; --allow adds to it.",
        show_default=False,
    ),
]
Internet = Annotated[bool, typer.Option("--internet", help="As --network public.")]

NOTHING = "closed: nothing but loopback"


def policy_asked(
    allow: list[str] | None, deny: list[str] | None, preset: str | None, *, internet: bool = False
) -> NetworkPolicy | None:
    """What the options ask for; None when they ask for nothing.

    Raises:
        CoveError: INVALID_REQUEST: there can be no such policy.
    """
    from cove.models.errors import error

    if internet and preset not in (None, "public"):
        raise error("INVALID_REQUEST", f"--internet and --network {preset} contradict each other: give one of them.")
    given = {"allow": allow, "deny": deny, "preset": "public" if internet else preset}
    policy = {name: value for name, value in given.items() if value}
    if not policy:
        return None
    from pydantic import ValidationError

    from cove.models.network import NetworkPolicy

    try:
        return NetworkPolicy.model_validate(policy)
    except ValidationError as problem:
        first = problem.errors()[0]
        option = str(first["loc"][0]) if first["loc"] else ""
        option = {"allow": "--allow: ", "deny": "--deny: ", "preset": f"{preset!r}: "}.get(option, "")
        remedy = "`cove sandboxes net --help` shows what rules look like; several are given as several options."
        raise error(
            "INVALID_REQUEST", f"{option}{first['msg'].removeprefix('Value error, ')}.", remedy=remedy
        ) from None


def shown(policy: EgressPolicy | None) -> str:
    """A policy in a few words."""
    if policy is None or policy.is_closed:
        return NOTHING
    allowed = "the public internet" if policy.is_public else ", ".join(policy.allow)
    return f"{allowed}; but not {', '.join(policy.deny)}" if policy.deny else allowed
