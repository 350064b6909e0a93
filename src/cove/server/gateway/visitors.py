"""Who may see a program in a sandbox, where that is not everybody.

A link has a token in its query. A browser that opens it is sent on to the same address without it, and keeps it as a
cookie for that one port of that one sandbox; other clients are answered at once, or send the token in a field of its
own. None of this ever reaches a program, whoever may see it.
"""

import re
from collections.abc import Iterator
from email.utils import formatdate
from typing import Final, NamedTuple, Protocol

from cove.core.tokens import AgentClaims, PreviewClaims
from cove.models.errors import CoveError, error
from cove.models.previews import PREVIEW_HEADER, PREVIEW_PARAMETER, PreviewTerms
from cove.server.gateway.heads import RequestHead

_PARAMETER: Final = PREVIEW_PARAMETER.encode("ascii")
_FIELD: Final = PREVIEW_HEADER.lower().encode("ascii")
_COOKIE: Final = b"cove-preview"
_COOKIES: Final = frozenset({_COOKIE, b"__Host-" + _COOKIE, b"__Secure-" + _COOKIE})
_SETS_COOKIE: Final = re.compile(rb"[\s=]*(?:__Host-|__Secure-)?cove-preview\s*(?:=|;|\Z)", re.IGNORECASE)
_MAX_COOKIES: Final = 8
_READING: Final = (b"GET", b"HEAD")
_OWN_SITES: Final = (b"same-origin", b"none")
_NOTHING: Final = frozenset[bytes]()

HOW_TO_GET_IN: Final = (
    "Open a link to it, which `cove sandboxes preview ID PORT` or POST /v1/sandboxes/{id}/previews makes. Programs send"
    f" the link's token as {PREVIEW_HEADER}, or the sandbox's own as Authorization: Bearer."
)


class TokenVerifier(Protocol):
    """Knows the tokens of sandboxes."""

    def claims(self, token: str) -> AgentClaims:
        """Which sandbox's agent `token` opens, and who has it.

        Raises:
            CoveError: TOKEN_EXPIRED, UNAUTHORIZED.
        """
        ...

    def preview_claims(self, token: str) -> PreviewClaims:
        """Which port of which sandbox a link's `token` opens.

        Raises:
            CoveError: TOKEN_EXPIRED, UNAUTHORIZED.
        """
        ...


class LetIn(NamedTuple):
    """A link's token that is valid.

    Attributes:
        expires_at: unix seconds.
        by_target: it is part of the request's target.
    """

    token: bytes
    expires_at: int
    by_target: bool


class Visitor:
    """Whoever sent a request to a program.

    Attributes:
        target: of the request, without a link's token.
        withheld: names of fields that are not for the program.
        added: field lines that it gets instead.
    """

    def __init__(self, head: RequestHead, target: bytes, tokens: TokenVerifier) -> None:
        self.target, self._in_target = without_token(target)
        self.withheld = _NOTHING
        self.added: tuple[bytes, ...] = ()
        self._head = head
        self._tokens = tokens
        self._in_field = head.values.get(_FIELD, [])[:1]
        self._in_cookies: list[bytes] = []
        if self._in_field:
            self.withheld = frozenset({_FIELD})
        cookies = head.values.get(b"cookie", ())
        if any(_COOKIE in value for value in cookies):
            kept, self._in_cookies = without_tokens(cookies)
            self.withheld |= {b"cookie"}
            self.added = (b"Cookie: " + kept,) if kept else ()
        if any(_PARAMETER in value for value in head.values.get(b"referer", ())):
            self.withheld |= {b"referer"}

    @property
    def opens_link(self) -> bool:
        """Whether a person opens a link: the next request can do without the token in the target."""
        head = self._head
        return bool(self._in_target) and head.method in _READING and head.takes_pages and head.upgrade is None

    def look(self, sandbox_id: str, port: int, terms: PreviewTerms | None) -> LetIn | CoveError | None:
        """What lets the visitor in; why nothing does; None for one who brings no link's token.

        Args:
            terms: of the sandbox; None where there is no such sandbox (any more).
        """
        problem: CoveError | None = None
        for token in self._candidates():
            found = self._check(token, sandbox_id, port, terms)
            if isinstance(found, LetIn):
                return found
            problem = problem or found
        if self._in_cookies and not self._own_page:
            return problem or error(
                "FORBIDDEN",
                "The request comes from a page of another origin, for which this visitor's link does not count.",
                remedy="Open the preview itself, or send the token with the request.",
            )
        return problem

    def _candidates(self) -> Iterator[bytes]:
        yield from self._in_field
        yield from self._in_target[:1]
        if self._own_page:
            yield from self._in_cookies[:_MAX_COOKIES]

    def _check(self, token: bytes, sandbox_id: str, port: int, terms: PreviewTerms | None) -> LetIn | CoveError:
        try:
            found = self._tokens.preview_claims(token.decode("ascii", "replace"))
        except CoveError as failure:
            return error(failure.code, failure.message, remedy=HOW_TO_GET_IN)
        if (found.sandbox_id, found.port) != (sandbox_id, port):
            return error("FORBIDDEN", "The link is for another port or another sandbox.", remedy=HOW_TO_GET_IN)
        if terms is not None and found.epoch != terms.epoch:
            return error("TOKEN_EXPIRED", "The link was revoked.", remedy=HOW_TO_GET_IN)
        return LetIn(token, found.expires_at, by_target=token in self._in_target)

    @property
    def _own_page(self) -> bool:
        """Whether no page but the program's own made the browser send its cookies along. (`SameSite` keeps those of
        other sites out, but other programs of the domain are of the same site.)"""
        head = self._head
        own = (b"http://" + head.host.lower(), b"https://" + head.host.lower())
        if any(origin.lower() not in own for origin in head.values.get(b"origin", ())):
            return False
        site = head.first(b"sec-fetch-site")
        if site is None or site in _OWN_SITES:
            return True
        return head.method in _READING and head.first(b"sec-fetch-mode") == b"navigate"


def without_token(target: bytes) -> tuple[bytes, list[bytes]]:
    """A request target without tokens of links, and those."""
    if _PARAMETER not in target:
        return target, []
    path, _, query = target.partition(b"?")
    kept: list[bytes] = []
    found: list[bytes] = []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name == _PARAMETER:
            found.append(value)
        else:
            kept.append(part)
    return (path + b"?" + b"&".join(kept) if kept else path), found


def without_tokens(cookies: list[bytes] | tuple[bytes, ...]) -> tuple[bytes, list[bytes]]:
    """Values of Cookie as one (RFC 6265 §4.2.1) without tokens of links, and those."""
    kept: list[bytes] = []
    found: list[bytes] = []
    for pair in b";".join(cookies).split(b";"):
        name, _, value = pair.strip(b" \t").partition(b"=")
        if name.strip(b" \t") in _COOKIES:
            found.append(value.strip(b" \t"))
        elif pair.strip(b" \t"):
            kept.append(pair.strip(b" \t"))
    return b"; ".join(kept), found


def sets_token(cookie: bytes) -> bool:
    """Whether a Set-Cookie value would put something in the place of a link's token."""
    return _SETS_COOKIE.match(cookie) is not None


def cookie_for(found: LetIn, *, prefix: bytes, secure: bool) -> bytes:
    """The Set-Cookie value that keeps a link's token. With TLS its name says that only this very host set it
    (RFC 6265bis §4.1.3).

    Args:
        prefix: the path that is the address of the port; nothing where that is a host name.
    """
    name = _COOKIE
    if secure:
        name = (b"__Secure-" if prefix else b"__Host-") + name
    expires = formatdate(found.expires_at, usegmt=True).encode("ascii")
    ends = b"; Secure" if secure else b""
    return b"%b=%b; Path=%b; Expires=%b; HttpOnly; SameSite=Lax%b" % (name, found.token, prefix or b"/", expires, ends)
