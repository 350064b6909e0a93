"""Networks of real sandboxes on a real server, whose only way out leads to the test internet."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, data_directory, running_server
from tests.internet import MACHINE_ADDRESS, Internet
from tests.internet_servers import NAMES, NAMESERVER

Api = Callable[..., httpx2.Response]
_SECONDS = 30.0


@pytest.fixture(scope="module")
def egress_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "egress.jsonl"


@pytest.fixture(scope="module")
def server(internet: Internet, built_data_dir: Path, egress_log: Path) -> Iterator[RunningServer]:
    variables = {
        "COVE_EGRESS_LOG": str(egress_log),
        "COVE_NAMESERVERS": json.dumps([NAMESERVER]),
        "COVE_ALLOW_INTERNAL": json.dumps(["intranet.example"]),
        "COVE_PACKAGE_REGISTRIES": json.dumps(["*.allowed.example"]),
    }
    with (
        internet.on_machine(),
        data_directory(built_data_dir) as data_dir,
        running_server(data_dir, "--dev", **variables) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=_SECONDS) as http:
        yield http


class Sandbox:
    """One sandbox, through the API."""

    def __init__(self, http: httpx2.Client, **asked: Any) -> None:
        self._http = http
        made = http.post("/v1/sandboxes", json={"template_name": "base", **asked})
        if made.status_code != 201 and made.json()["code"] == "ISOLATION_UNAVAILABLE":
            pytest.skip(made.json()["message"])
        assert made.status_code == 201, made.text
        self.info: dict[str, Any] = made.json()
        self.id = str(self.info["id"])

    def sh(self, code: str) -> str:
        """What a shell program prints, errors included."""
        headers = {"Authorization": f"Bearer {self.info['auth_token']}"}
        body = {"code": code, "language": "bash", "timeout": 20}
        answer = self._http.post(f"/sandboxes/{self.id}/execute", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return f"{answer.json()['stdout']}{answer.json()['stderr']}"

    def reaches(self, url: str) -> bool:
        """Whether curl gets an answer there."""
        return self.sh(f"curl --insecure -sS -m 15 -o /dev/null -w '%{{http_code}}' {url}").startswith("200")

    def put(self, policy: dict[str, Any]) -> httpx2.Response:
        """Change its network."""
        return self._http.put(f"/v1/sandboxes/{self.id}/network", json=policy)

    def report(self, after: int = 0) -> dict[str, Any]:
        """What it did."""
        answer = self._http.get(f"/v1/sandboxes/{self.id}/network", params={"after": after})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def shown(self) -> dict[str, Any]:
        """As the control plane tells it."""
        return self._http.get(f"/v1/sandboxes/{self.id}").json()


@pytest.fixture
def sandbox(http: httpx2.Client) -> Iterator[Callable[..., Sandbox]]:
    made: list[Sandbox] = []

    def make(**asked: Any) -> Sandbox:
        made.append(Sandbox(http, **asked))
        return made[-1]

    yield make
    for one in made:
        http.delete(f"/v1/sandboxes/{one.id}")


Make = Callable[..., Sandbox]


@pytest.fixture(params=["namespace", "gvisor"])
def either(request: pytest.FixtureRequest, sandbox: Make) -> Make:
    """Makes sandboxes of one driver, then of the other."""
    return partial(sandbox, isolation=request.param)


PUBLIC = (f"http://{NAMES['other.example']}/", "http://other.example/", "https://other.example/")


@pytest.mark.parametrize("asked", [{}, {"internet_access": False}, {"network": {"preset": "none"}}])
def test_without_a_network_nothing_is_reachable(either: Make, asked: dict[str, Any]) -> None:
    closed = either(**asked)
    assert closed.info["internet_access"] is False
    assert closed.info["network"] is None
    for url in (*PUBLIC, f"http://{MACHINE_ADDRESS}/", "http://169.254.169.254/", "http://[2a00::1]/"):
        assert not closed.reaches(url), url
    assert "ok" in closed.sh(
        "python3 -m http.server 8000 >/dev/null 2>&1 &"
        "curl -s --retry 50 --retry-connrefused --retry-delay 1 127.0.0.1:8000 >/dev/null && echo ok"
    )


def test_the_public_internet_and_nothing_else(either: Make, server: RunningServer) -> None:
    public = either(internet_access=True)
    assert public.info["internet_access"] is True
    assert public.info["network"] == {"allow": ["*"], "deny": [], "internal": []}
    for url in PUBLIC:
        assert public.reaches(url), url
    port = server.url.rpartition(":")[2]
    for address in (MACHINE_ADDRESS, "127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "[fd00::1]"):
        assert not public.reaches(f"http://{address}:{port}/health"), address
    for name in ("rebinding.example", "metadata.example"):
        assert not public.reaches(f"http://{name}/"), name


def test_a_policy_is_in_force_shown_and_told(either: Make) -> None:
    policed = either(network={"allow": ["Allowed.Example"], "deny": []})
    assert policed.info["network"]["allow"] == ["allowed.example"]
    assert policed.info["internet_access"] is False
    assert policed.reaches("https://allowed.example/")
    assert not policed.reaches("https://other.example/")
    assert "may not do that: no rule allows it" in policed.sh(
        "curl -sS -H 'Host: other.example' http://allowed.example/"
    )
    report = policed.report()
    refused = [entry for entry in report["entries"] if not entry["allowed"]]
    assert {(entry["kind"], entry["name"]) for entry in refused} >= {("dns", "other.example")}
    assert report["totals"]["refused"] >= 2
    later = policed.report(after=report["entries"][-1]["sequence"])
    assert later["entries"] == []


def test_it_changes_while_the_sandbox_runs(either: Make) -> None:
    changing = either()
    assert not changing.reaches("https://allowed.example/")
    assert changing.put({"allow": ["allowed.example"]}).status_code == 200
    assert changing.reaches("https://allowed.example/")
    assert changing.shown()["network"]["allow"] == ["allowed.example"]
    changing.sh("curl -sN http://allowed.example/bytes/1000000000 --limit-rate 10k -o /dev/null & echo $! > /tmp/pid")
    assert changing.put({"preset": "none"}).status_code == 200
    assert "ended" in changing.sh(
        "for i in $(seq 100); do kill -0 $(cat /tmp/pid) || { echo ended; break; }; sleep 0.1; done"
    )
    assert not changing.reaches("https://allowed.example/")
    assert changing.shown()["network"] is None


def test_presets_and_what_the_operator_opened(sandbox: Make) -> None:
    packages = sandbox(network={"preset": "package-registries"})
    assert packages.reaches("https://www.allowed.example/")
    assert not packages.reaches("https://other.example/")
    intranet = sandbox(network={"allow": ["intranet.example", "rebinding.example"]})
    assert intranet.reaches("http://intranet.example/")
    assert not intranet.reaches("http://rebinding.example/")
    assert not sandbox(network={"allow": ["other.example"]}).reaches("http://intranet.example/")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"network": {"allow": ["*.*"]}}, "is not a host name"),
        ({"network": {"allow": ["0x7f.1"]}}, "not an address in its usual form"),
        ({"network": {"allow": ["http://a.example"]}}, "leave the scheme out"),
        ({"network": {"preset": "everything"}}, "preset"),
        ({"network": {"alow": []}}, "alow"),
        ({"network": {"allow": ["a.example"]}, "internet_access": True}, "say the same in two ways"),
    ],
)
def test_policies_that_are_refused(http: httpx2.Client, asked: dict[str, Any], said: str) -> None:
    refused = http.post("/v1/sandboxes", json={"template_name": "base", **asked})
    assert refused.status_code == 400, refused.text
    assert said in refused.text


def test_stopped_and_started_it_has_its_network_again(http: httpx2.Client, either: Make) -> None:
    kept = either(network={"allow": ["allowed.example"]})
    assert http.post(f"/v1/sandboxes/{kept.id}/stop").status_code == 200
    assert http.post(f"/v1/sandboxes/{kept.id}/start").status_code == 200
    assert kept.reaches("https://allowed.example/")
    assert not kept.reaches("https://other.example/")


def test_bandwidth_and_what_is_told_of_it(http: httpx2.Client, either: Make, egress_log: Path) -> None:
    limited = either(network={"allow": ["allowed.example"]}, resources={"network_mbps": 8})
    size = 600_000
    least = (size - 2 * 0.1 * 1e6) / 1e6  # at 1 MB/s, of which a tenth of a second may come at once
    for scheme in ("http", "https"):
        curl = "curl --insecure -sS -m 20 -o /dev/null -w '%{size_download} %{time_total}'"
        got, seconds = limited.sh(f"{curl} {scheme}://allowed.example/bytes/{size}").split()
        assert (got, float(seconds) > least) == (str(size), True), (scheme, seconds)
    usage = http.get(f"/v1/sandboxes/{limited.id}/usage").json()
    assert usage["limits"]["network_mbps"] == 8
    assert usage["network"]["received_bytes"] > 2 * size
    assert usage["network"]["connections"] == 2
    figures = http.get("/metrics").text.splitlines()
    (received,) = [line.split()[1] for line in figures if line.startswith('cove_egress_bytes_total{direction="rec')]
    assert float(received) > 2 * size
    logged = [entry for line in egress_log.read_bytes().splitlines() if (entry := json.loads(line))]
    mine = {entry["kind"]: entry for entry in logged if entry["sandbox_id"] == limited.id}
    assert mine.keys() >= {"dns", "http"}
    assert mine["http"]["received_bytes"] > size
