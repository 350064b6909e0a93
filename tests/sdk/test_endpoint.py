import ssl

import pytest

from cove.models.errors import InvalidRequest
from cove.sdk._endpoint import DEFAULT_BASE_URL, Endpoint, resolve_endpoint, tls_context


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COVE_BASE_URL", "COVE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_arguments_win_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_endpoint() == Endpoint(DEFAULT_BASE_URL)
    monkeypatch.setenv("COVE_BASE_URL", "https://cove.example/prefix/")
    monkeypatch.setenv("COVE_API_KEY", "one")
    assert resolve_endpoint() == Endpoint("https://cove.example/prefix", None, "one")
    assert resolve_endpoint(base_url="http://[::1]:1", api_key="two") == Endpoint("http://[::1]:1", None, "two")


def test_empty_variables_are_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", "")
    monkeypatch.setenv("COVE_API_KEY", "")
    assert resolve_endpoint() == Endpoint(DEFAULT_BASE_URL)


@pytest.mark.parametrize("url", ["http+unix:///run/cove/a%20b.sock", "http+unix://%2Frun%2Fcove%2Fa%20b.sock"])
def test_a_unix_socket(url: str) -> None:
    assert resolve_endpoint(base_url=url) == Endpoint("http://localhost", "/run/cove/a b.sock")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:5555",
        "http://",
        "http://h:99999",
        "http://h/?q",
        "http://h#f",
        "http+unix://",
        "http://h h",
        "http://ü",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="COVE_BASE_URL"):
        resolve_endpoint(base_url=url)


def test_a_transport_for_plain_http_trusts_nobody() -> None:
    context = tls_context(secure=False)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509_ca"] == 0


def test_the_namespace_is_sent_along() -> None:
    assert resolve_endpoint(api_key="k", namespace="Team_1").control_headers == (
        ("X-API-Key", "k"),
        ("X-Cove-Namespace", "Team_1"),
    )
    assert resolve_endpoint(namespace="*").control_headers == (("X-Cove-Namespace", "*"),)
    assert resolve_endpoint().control_headers == ()


@pytest.mark.parametrize("namespace", ["", "a b", "-a", "a" * 64, "a\n", "é", "**"])
def test_what_is_no_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve_endpoint(namespace=namespace)
    assert caught.value.details["field"] == "namespace"
