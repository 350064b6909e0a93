"""Sending webhooks to receivers on loopback, honest and hostile ones, plain and with TLS."""

import asyncio
import datetime
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cove.core.webhook_targets import AllowList, WebhookTargets
from cove.core.webhooks import WebhookMessage, WebhookOutcome
from cove.models.errors import CoveError
from cove.server import name_resolution
from cove.server.name_resolution import SystemResolver
from cove.server.webhook_delivery import HttpWebhookSender

pytestmark = pytest.mark.anyio

NAME = "hooks.test"
BODY = b'{"execution_id":"exec_1"}'
Answerer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Names:
    """Every name leads to these addresses, and each lookup is noted."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses or ("127.0.0.1",)
        self.asked: list[str] = []

    async def resolve(self, host: str, *, owner: str) -> tuple[str, ...]:
        self.asked.append(host)
        return self.addresses


class Receiver:
    """A real HTTP server for one test. Without an `answer` of its own it notes the request and says 200."""

    def __init__(self, answer: Answerer | None) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.requests.append(head + await reader.readexactly(length))
            if self._answer is not None:
                await self._answer(reader, writer)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (OSError, EOFError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiver(answer: Answerer | None = None, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Receiver]:
    made = Receiver(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def says(answer: bytes) -> Answerer:
    """Answers with these bytes, and closes."""

    async def write(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return write


async def send(url: str, names: Names | None = None, **options: object) -> WebhookOutcome:
    """One attempt; loopback is allowed under this one name only."""
    targets = WebhookTargets(names or Names(), AllowList.of([NAME, "127.0.0.1"]))
    sender = HttpWebhookSender(targets, **{"seconds": 2.0, **options})  # pyright: ignore[reportArgumentType]
    message = WebhookMessage(url=url, owner="default", headers={"X-A": "b", "Content-Type": "x/y"}, body=BODY)
    async with asyncio.timeout(10):
        return await sender.send(message)


async def test_what_is_sent() -> None:
    names = Names()
    async with receiver() as there:
        outcome = await send(f"http://{NAME.upper()}.:{there.port}/a?b=c#d", names)
    assert outcome == WebhookOutcome(200, None)
    assert there.requests == [
        b"POST /a?b=c HTTP/1.1\r\nHost: %b:%d\r\nConnection: close\r\nX-A: b\r\nContent-Type: x/y\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (NAME.encode(), there.port, len(BODY), BODY)
    ]
    assert names.asked == [NAME], "the name is looked up once, and the connection goes to what was found"


@pytest.mark.parametrize("status", [201, 204, 299])
async def test_every_2xx_counts(status: int) -> None:
    async with receiver(says(b"HTTP/1.1 %d\r\n\r\n" % status)) as there:
        assert (await send(f"http://127.0.0.1:{there.port}/")).delivered


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"HTTP/1.1 500 Oh no\r\n\r\n", 500, "answered 500"),
        (b"HTTP/1.1 410 Gone\r\n\r\n", 410, "answered 410"),
        (b"HTTP/1.1 302 Go\r\nLocation: http://169.254.169.254/\r\n\r\n", 302, "redirects are not followed"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", 101, "answered 101"),
        (b"", None, "closed before an answer came"),
        (b"HTTP/1.1 200 OK\r\nX: y", None, "closed before an answer came"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", None, "not HTTP"),
        (b"HTTP/1.1 000 OK\r\n\r\n", None, "not HTTP"),
        (b"SSH-2.0-x\r\n\r\n", None, "not HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", None, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, None, "too long"),
        (b"\0" * 1_000_000, None, "too long"),
        (b"HTTP/1.1 103 Early\r\n\r\n" * 10, None, "too many interim"),
        (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 503 Later\r\n\r\n", 503, "answered 503"),
    ],
)
async def test_anything_else_is_a_failure_in_words(answer: bytes, status: int | None, said: str) -> None:
    async with receiver(says(answer)) as there:
        outcome = await send(f"http://127.0.0.1:{there.port}/")
    assert (outcome.status, outcome.delivered) == (status, False)
    assert said in (outcome.failure or "")
    assert len(there.requests) == 1


async def test_a_receiver_that_never_answers_costs_its_time_and_no_more() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with receiver(silent) as there:
        began = time.monotonic()
        outcome = await send(f"http://127.0.0.1:{there.port}/", seconds=0.3)
    assert outcome == WebhookOutcome(None, "There was no answer within 0.3 s.")
    assert time.monotonic() - began < 5


async def test_an_answer_without_end_is_cut_off_and_its_status_counts() -> None:
    sent = 0

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with receiver(endless) as there:
        assert (await send(f"http://127.0.0.1:{there.port}/")).delivered
    assert sent < 32 * 1024 * 1024


async def test_nobody_is_there() -> None:
    async with receiver() as there:
        pass
    assert "The connection failed" in ((await send(f"http://127.0.0.1:{there.port}/")).failure or "")


async def test_the_next_address_is_tried() -> None:
    # 127.0.0.2 refuses: the receiver listens on one address only.
    async with receiver() as there:
        assert (await send(f"http://{NAME}:{there.port}/", Names("127.0.0.2", "127.0.0.1"))).delivered


async def test_a_name_that_leads_inside_now_gets_nothing() -> None:
    async with receiver() as there:
        outcome = await send(f"http://other.test:{there.port}/", Names("127.0.0.9"))
    assert "loopback" in (outcome.failure or "")
    assert there.requests == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Authority"]:
    yield Authority(tmp_path_factory.mktemp("ca"))


class Authority:
    """A certificate authority that only these tests trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self._root = self._certificate(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self._root.public_bytes(Encoding.PEM).decode())

    def server(self, *names: str, **changes: int) -> ssl.SSLContext:
        """For a server of these names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        alternatives = x509.SubjectAlternativeName([_general(name) for name in names])
        certificate = self._certificate(subject, key, alternatives, **changes)
        path = self._directory / f"{names[0]}.{len(list(self._directory.iterdir()))}.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, *, days: int = 1
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        end = now + datetime.timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - datetime.timedelta(days=1))
            .not_valid_after(end)
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _general(name: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)


async def test_tls_is_for_the_name_of_the_url(authority: Authority) -> None:
    asked: list[str | None] = []
    tls = authority.server(NAME)
    tls.set_servername_callback(lambda _connection, name, _context: asked.append(name))
    async with receiver(tls=tls) as there:
        assert (await send(f"https://{NAME}:{there.port}/", tls=authority.trust)).delivered
    assert asked == [NAME]


async def test_tls_for_an_address(authority: Authority) -> None:
    async with receiver(tls=authority.server("127.0.0.1")) as there:
        assert (await send(f"https://127.0.0.1:{there.port}/", tls=authority.trust)).delivered


async def test_certificates_that_are_not_good_enough(authority: Authority) -> None:
    cases = (
        (authority.server("other.test"), authority.trust, "Hostname mismatch"),
        (authority.server(NAME, days=-1), authority.trust, "expired"),
        (authority.server(NAME), ssl.create_default_context, "unable to get local issuer"),
    )
    for tls, trust, said in cases:
        async with receiver(tls=tls) as there:
            outcome = await send(f"https://{NAME}:{there.port}/", tls=trust)
        assert said in (outcome.failure or ""), outcome
        assert there.requests == []


async def test_https_to_a_receiver_without_tls(authority: Authority) -> None:
    async with receiver() as there:
        outcome = await send(f"https://{NAME}:{there.port}/", tls=authority.trust, seconds=1.0)
    assert not outcome.delivered
    assert there.requests == []


async def test_the_system_resolver() -> None:
    resolver = SystemResolver()
    try:
        assert "127.0.0.1" in await resolver.resolve("localhost", owner="a")
        with pytest.raises(CoveError) as caught:
            await resolver.resolve("x" * 70 + ".invalid", owner="a")
        assert caught.value.code in {"INVALID_REQUEST", "NETWORK_ERROR"}
    finally:
        resolver.close()


async def test_one_tenants_slow_names_leave_threads_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def look_up(host: str) -> tuple[str, ...]:
        if host == "slow.test":
            release.wait(20)
        return ("127.0.0.1",)

    monkeypatch.setattr(name_resolution, "_look_up", look_up)
    resolver = SystemResolver(seconds=0.1)
    try:
        for said in ("within 0.1 s",) * 4 + ("too many lookups",) * 2:
            with pytest.raises(CoveError, match=said) as caught:
                await resolver.resolve("slow.test", owner="mallory")
            assert caught.value.code == "NETWORK_ERROR"
        assert await resolver.resolve("quick.test", owner="alice") == ("127.0.0.1",)
    finally:
        release.set()
        resolver.close()
