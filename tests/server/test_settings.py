"""Settings: closed by default, read once, refused when they contradict each other."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.server.settings import Settings, default_data_dir


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"COVE_{name.upper()}", raising=False)


def test_defaults_are_closed() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.dev) == ("127.0.0.1", 5555, False)
    assert settings.base_url == "http://127.0.0.1:5555"
    assert settings.driver is None
    assert settings.default_timeout_seconds == 3600


def test_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COVE_PORT", "8080")
    monkeypatch.setenv("COVE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COVE_ISOLATION", "gvisor")
    monkeypatch.setenv("COVE_POOL_TEMPLATES", '["base"]')
    settings = Settings()
    assert (settings.port, settings.data_dir, settings.driver) == (8080, tmp_path, Isolation.GVISOR)
    assert settings.pool_templates == ("base",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_dev_on_loopback(host: str) -> None:
    assert Settings(host=host, dev=True).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "localhost.example.com"])
def test_dev_elsewhere_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="cove keys create"):
        Settings(host=host, dev=True)
    assert not Settings(host=host).is_loopback


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"public_url": "https://s.example.com/cove/"}, "https://s.example.com/cove"),
        ({"host": "0.0.0.0", "port": 1}, "http://127.0.0.1:1"),
        ({"host": "::", "port": 1}, "http://[::1]:1"),
        ({"host": "::1", "port": 1}, "http://[::1]:1"),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:5555"),
    ],
)
def test_addresses(fields: dict[str, object], url: str) -> None:
    assert Settings.model_validate(fields).base_url == url


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({}, None),
        ({"domain": "Boxes.Test."}, "http://{port}-{id}.boxes.test:5555"),
        ({"domain": "boxes.test", "port": 80}, "http://{port}-{id}.boxes.test"),
        ({"domain": "boxes.test", "tls_cert": "/c", "tls_key": "/k"}, "https://{port}-{id}.boxes.test:5555"),
        ({"domain": "boxes.test", "tls_cert": "/c", "tls_key": "/k", "port": 443}, "https://{port}-{id}.boxes.test"),
        ({"domain": "b.test", "public_url": "https://s.example.com/x"}, "https://{port}-{id}.b.test"),
        (
            {"domain": "b.test", "public_url": "http://s:8080", "tls_cert": "/c", "tls_key": "/k"},
            "http://{port}-{id}.b.test:8080",
        ),
    ],
)
def test_addresses_of_ports(fields: dict[str, object], origin: str | None) -> None:
    assert Settings.model_validate(fields).port_origin == origin


@pytest.mark.parametrize(
    ("fields", "hosts"),
    [
        ({}, {"127.0.0.1"}),
        ({"domain": "b.test"}, {"127.0.0.1", "b.test", "api.b.test"}),
        ({"allowed_hosts": ["API.hopx.dev."]}, {"127.0.0.1", "api.hopx.dev"}),
        ({"public_url": "https://S.example.com"}, None),
        ({"public_url": "https://S.example.com", "allowed_hosts": ["x"]}, {"127.0.0.1", "x", "s.example.com"}),
        ({"host": "0.0.0.0"}, None),
        ({"host": "0.0.0.0", "domain": "b.test"}, None),
        ({"host": "10.0.0.7", "allowed_hosts": ["x"]}, {"10.0.0.7", "x"}),
    ],
)
def test_names_that_are_served(fields: dict[str, object], hosts: set[str] | None) -> None:
    assert Settings.model_validate(fields).served_hosts == hosts


@pytest.mark.parametrize(
    "fields",
    [
        {"domain": "*.example.com"},
        {"domain": "https://example.com"},
        {"domain": "example.com:5555"},
        {"domain": "10.0.0.1"},
        {"domain": "-x.example"},
        {"domain": "a..b"},
        {"domain": ""},
        {"domain": "x." * 120 + "x"},
        {"tls_cert": "/c"},
        {"tls_key": "/k"},
        {"allowed_hosts": ["http://x"]},
        {"allowed_hosts": ["x:80"]},
        {"preview_access": "nobody"},
        {"max_network": ["public"]},
        {"max_network": ["*.*"]},
        {"public_url": "example.com"},
        {"public_url": "ftp://example.com"},
        {"public_url": "https://"},
        {"public_url": "https://a/?b"},
        {"isolation": "fake"},
        {"isolation": "none"},
        {"port": 70000},
        {"default_timeout_seconds": -1},
        {"create_timeout_seconds": float("nan")},
        {"max_sandboxes": 0},
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(fields)


def test_the_data_directory_of_ordinary_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_data_dir() == Path("/home/me/.local/share/cove")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "cove"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_data_dir() == Path("/home/me/.local/share/cove")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/cove")


def test_every_setting_is_documented() -> None:
    text = Settings.__doc__ or ""
    for name in Settings.model_fields:
        assert name in text or name.removeprefix("max_") in Limits.model_fields, name


@pytest.mark.parametrize("text", ["memory_mb,vcpu", " memory_mb , vcpu ", '["memory_mb", "vcpu"]'])
def test_limits_that_may_be_missing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert Settings().must_hold == {"vcpu", "memory_mb", "disk_mb", "pids", "open_files"}
    monkeypatch.setenv("COVE_ALLOW_UNENFORCED", text)
    assert Settings().must_hold == {"disk_mb", "pids", "open_files"}
    assert Settings(dev=True).must_hold == frozenset()


@pytest.mark.parametrize("text", ["memory", "inodes", "[1", "memory_mb;vcpu"])
def test_what_may_not_be_missing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("COVE_ALLOW_UNENFORCED", text)
    with pytest.raises(ValidationError):
        Settings()


def test_a_bound_of_executions_is_default_and_maximum() -> None:
    settings = Settings(max_execution_seconds=30, max_output_bytes=4096)
    for limits in (settings.limits, settings.max_limits):
        assert (limits.max_execution_seconds, limits.max_output_bytes) == (30, 4096)


@pytest.mark.parametrize("text", ["a.example.com,10.1.0.0/16:5432", '["A.example.com", "10.1.0.0/16:5432"]'])
def test_rules_of_networks(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("COVE_ALLOW_INTERNAL", text)
    monkeypatch.setenv("COVE_PACKAGE_REGISTRIES", text)
    monkeypatch.setenv("COVE_MAX_NETWORK", text)
    monkeypatch.setenv("COVE_NAMESERVERS", "192.0.2.1, [2001:db8::1]:5353")
    settings = Settings()
    rules = ("a.example.com", "10.1.0.0/16:5432")
    assert settings.allow_internal == settings.package_registries == settings.max_network == rules
    assert settings.nameservers == ("192.0.2.1", "[2001:db8::1]:5353")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("ALLOW_INTERNAL", text) for text in ("*.*", "a b", "a.example.com:80,443", "[", '["a.example.com", 1]')),
        ("NAMESERVERS", "dns.example.com"),
        ("NETWORK", "everything"),
    ],
)
def test_networks_that_cannot_be(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"COVE_{name}", text)
    with pytest.raises(ValueError, match=name.lower()):
        Settings()
