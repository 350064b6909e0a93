"""Secrets on a host with real sandboxes: used without being seen, whatever dies, and nowhere readable on its disk."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import Inside
from tests.hostd.hostd_program import Program, on_own_directory
from tests.internet import Internet
from tests.internet_servers import NAMESERVER

from cove.hostd.assembly import build_host
from cove.hostd.secrets import SandboxSecrets
from cove.models.errors import CoveError
from cove.models.hosts import SandboxRecord
from cove.models.identifiers import new_sandbox_id
from cove.models.network import EgressPolicy
from cove.models.secrets import MAX_SECRETS, EgressSecret, SecretPlace, new_placeholder
from cove.models.trust import AUTHORITY, TRUST_VARIABLES

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("as_root")]

VALUE, NEXT = "sk-live-2f6c1e0b9a", "sk-next-71d0c4b8e3"
_TRUSTS = f"""
import pathlib, ssl
own = ssl.PEM_cert_to_DER_cert(pathlib.Path({AUTHORITY!r}).read_text())
trusted = ssl.create_default_context().get_ca_certs(binary_form=True)
print(own in trusted, len(trusted) > 10)
"""
_KEPT = ("--keep-sandboxes", "--nameserver", NAMESERVER)


def secret(name: str = "API_KEY", value: str = VALUE) -> EgressSecret:
    return EgressSecret(
        name=name,
        placeholder=new_placeholder(),
        value=value,
        hosts=("allowed.example",),
        places=frozenset({SecretPlace.HEADERS}),
    )


@pytest.fixture
async def program(internet: Internet, built_data_dir: Path) -> AsyncIterator[Program]:
    with internet.on_machine():
        async with on_own_directory(built_data_dir) as program:
            try:
                yield program
            finally:
                for record in await program.remote.list():
                    await program.remote.destroy(record.sandbox_id)


async def _asks(record: SandboxRecord, given: EgressSecret) -> str:
    """What the server told that was asked with the placeholder; or why there was no answer."""
    header = f"authorization: Bearer {given.placeholder}"
    result = await Inside(record).run(f"curl -sS -m 15 -H '{header}' https://allowed.example/ 2>&1")
    return str(result["stdout"])


def _kill_egress(program: Program) -> None:
    """As a kernel out of memory would."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"cove.egress" in words and any(bytes(program.data_dir) in word for word in words):
                os.kill(int(path.parent.name), signal.SIGKILL)


def _readable(directory: Path, value: str) -> list[str]:
    """Files in which the value is."""
    found: list[str] = []
    for path in directory.rglob("*"):
        if not path.is_symlink() and path.is_file() and value.encode() in path.read_bytes():
            found.append(str(path))
    return found


async def test_they_outlive_whatever_dies_and_are_readable_nowhere(program: Program, internet: Internet) -> None:
    started = (*_KEPT, "--egress-trust", str(internet.certificate.authority))
    await program.start(*started)
    given = secret()
    policy = EgressPolicy(allow=("allowed.example",))
    variables = {"API_KEY": given.placeholder, **TRUST_VARIABLES}
    record = await program.create(network=policy, secrets=(given,), env_vars=variables)

    async def reaches(value: str) -> None:
        """The server sees it, and tells it backwards too, where nobody looks for it."""
        told = await _asks(record, given)
        assert value[::-1] in told, told
        assert value not in told

    await reaches(VALUE)
    assert await Inside(record).output(_TRUSTS, "python") == "True True"
    seen = await Inside(record).output("env; tr '\\0' '\\n' </proc/1/environ; cat /proc/self/mountinfo")
    assert given.placeholder in seen
    assert VALUE not in seen

    _kill_egress(program)
    await program.remote.network(record.sandbox_id, 0)
    await reaches(VALUE)
    await program.end(signal.SIGKILL)
    await program.start(*started)
    await reaches(VALUE)
    await program.remote.set_secrets(record.sandbox_id, (given.model_copy(update={"value": NEXT}),), ())
    await reaches(NEXT)
    await program.remote.stop(record.sandbox_id, {})
    await program.end(signal.SIGKILL)
    _kill_egress(program)
    await program.start(*started)
    record = await program.remote.start(record.sandbox_id)
    await reaches(NEXT)

    shown = "".join(one.model_dump_json() for one in (*await program.remote.list(), record))
    assert "allowed.example" in shown
    assert given.placeholder not in shown
    assert _readable(program.data_dir, record.sandbox_id)
    assert not _readable(program.data_dir, VALUE)
    assert not _readable(program.data_dir, NEXT)
    private = program.data_dir / "authority"
    assert [private.stat().st_mode & 0o777, *{path.stat().st_mode & 0o777 for path in private.iterdir()}] == [
        0o700,
        0o600,
    ]

    await program.remote.set_secrets(record.sandbox_id, (), (given.name,))
    assert NEXT[::-1] not in await _asks(record, given)
    await program.remote.destroy(record.sandbox_id)
    assert not list((program.data_dir / "run/secrets").iterdir())


async def test_kept_secrets_open_with_their_key_and_for_their_sandbox_only(tmp_path: Path) -> None:
    one, other = new_sandbox_id(), new_sandbox_id()
    directory, key = tmp_path / "secrets", tmp_path / "authority/secrets.key"
    first = SandboxSecrets(directory, key=key)
    first.keep(one, [secret("A"), secret("B")])
    first.merge(one, [secret("B", NEXT), secret("C")], ["A"])
    kept = first.of(one)
    assert [(held.name, held.value) for held in kept] == [("B", NEXT), ("C", VALUE)]
    assert not _readable(tmp_path, VALUE)
    assert "C" in repr(kept)
    assert VALUE not in repr(kept)

    moved = directory / f"{other}.sealed"
    moved.write_bytes((directory / f"{one}.sealed").read_bytes())
    (directory / "gone.new").write_bytes(b"")
    second = SandboxSecrets(directory, key=key)
    second.load({one, other})
    assert second.of(one) == kept
    assert second.of(other) == ()
    foreign = SandboxSecrets(directory, key=tmp_path / "another/secrets.key")
    foreign.load({one})
    assert foreign.of(one) == ()
    assert [path.name for path in directory.iterdir()] == [f"{one}.sealed"]
    with pytest.raises(CoveError, match=f"at most {MAX_SECRETS} secrets"):
        second.keep(one, [secret(f"A{number}") for number in range(MAX_SECRETS + 1)])
    assert second.of(one) == kept
    second.forget(one)
    second.forget(one)
    assert not list(directory.iterdir())


def test_authorities_that_cannot_be_read_are_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "trusted.pem"
    for content in (None, b"", b"\xff", b"-----BEGIN PRIVATE KEY-----"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(CoveError, match=r"trusted.pem of trusted authorities cannot be used: \S+"):
            build_host(tmp_path / "data", egress_trust=file)
