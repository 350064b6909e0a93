"""Where webhooks may go: nothing that is not public, in no notation, by no name, at no later moment."""

from collections.abc import Mapping

import pytest

from cove.core.webhook_targets import AllowList, WebhookTargets, parse
from cove.models.errors import CoveError, error

pytestmark = pytest.mark.anyio


class Names:
    """A resolver that tests fill; names that it does not know do not exist."""

    def __init__(self, names: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.names = dict(names or {})
        self.asked: list[str] = []

    async def resolve(self, host: str, *, owner: str) -> tuple[str, ...]:
        self.asked.append(host)
        if host == "slow.example":
            raise error("NETWORK_ERROR", "not now")
        if host not in self.names:
            raise error("INVALID_REQUEST", f"callback_url: there is no host {host}.")
        return self.names[host]


PUBLIC = {"hooks.example.com": ("93.184.216.34", "2606:2800:220:1::1")}

NOT_PUBLIC = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
)


async def reason(url: str, targets: WebhookTargets | None = None) -> str:
    """Why a URL is refused."""
    with pytest.raises(CoveError) as caught:
        await (targets or WebhookTargets(Names(PUBLIC), AllowList())).admit(url, owner="default")
    assert caught.value.code == "INVALID_REQUEST"
    return str(caught.value)


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_addresses_that_are_not_public_are_refused_however_one_gets_there(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    assert "COVE_WEBHOOK_ALLOW" in await reason(f"http://{host}/")
    names = Names({"inside.example": ("93.184.216.34", address)})
    told = await reason("https://inside.example/hook", WebhookTargets(names, AllowList()))
    assert "COVE_WEBHOOK_ALLOW" in told
    assert address not in told, "what names resolve to inside is nothing to tell"


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://0/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://[]/",
        "http:///path",
        "http://",
        "http:/hooks.example.com/",
        "hooks.example.com",
        "//hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "javascript:alert(1)",
        "unix:///run/x.sock",
        "http://user@hooks.example.com/",
        "http://user:secret@hooks.example.com/",
        "http://hooks.example.com@127.0.0.1/",
        "http://127.0.0.1\\@hooks.example.com/",
        "http://127.0.0.1#@hooks.example.com/",
        "http://hooks.example.com:0/",
        "http://hooks.example.com:65536/",
        "http://hooks.example.com:-1/",
        "http://hooks.example.com:80x/",
        "http://hooks.example.com /",
        "http://hooks.example.com/a b",
        "http://hooks.example.com/\r\nX: y",
        "http://hooks.example.com/\x00",
        "http://hooks\t.example.com/",
        "http://höoks.example.com/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://hooks.example.com/ü",
        "http://%31%32%37.0.0.1/",
        "http://hooks..example.com/",
        "http://-hooks.example.com/",
        "http://hooks.example.com../",
        f"http://{'a' * 64}.example.com/",
        f"http://{'a.' * 127}com/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://nosuch.example/",
    ],
)
async def test_forms_that_are_refused(url: str) -> None:
    names = Names({**PUBLIC, "localhost": ("127.0.0.1", "::1")})
    await reason(url, WebhookTargets(names, AllowList()))


@pytest.mark.parametrize(
    ("url", "authority", "port", "path"),
    [
        ("http://hooks.example.com", "hooks.example.com", 80, "/"),
        ("https://HOOKS.Example.com./a/b?c=d&e#f", "hooks.example.com", 443, "/a/b?c=d&e"),
        ("https://hooks.example.com:8443/?x=//y@z", "hooks.example.com:8443", 8443, "/?x=//y@z"),
        ("http://hooks.example.com:/x", "hooks.example.com", 80, "/x"),
        ("http://93.184.216.34:81/", "93.184.216.34:81", 81, "/"),
        ("http://[2606:2800:0220:1:0::1]:81/", "[2606:2800:220:1::1]:81", 81, "/"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80, "/"),
    ],
)
def test_forms_that_are_taken(url: str, authority: str, port: int, path: str) -> None:
    target = parse(url)
    assert (target.authority, target.port, target.path) == (authority, port, path)


async def test_a_name_is_resolved_once_and_all_of_its_addresses_are_given() -> None:
    names = Names(PUBLIC)
    found = await WebhookTargets(names, AllowList()).locate(parse("https://hooks.example.com/"), owner="default")
    assert tuple(map(str, found)) == PUBLIC["hooks.example.com"]
    assert names.asked == ["hooks.example.com"]


async def test_a_name_that_changes_is_refused_later() -> None:
    names = Names(PUBLIC)
    targets = WebhookTargets(names, AllowList())
    await targets.admit("http://hooks.example.com/", owner="default")
    names.names["hooks.example.com"] = ("169.254.169.254",)
    with pytest.raises(CoveError, match="link-local"):
        await targets.locate(parse("http://hooks.example.com/"), owner="default")


async def test_a_name_that_cannot_be_looked_up_now_is_looked_up_later() -> None:
    targets = WebhookTargets(Names(), AllowList())
    await targets.admit("http://slow.example/", owner="default")
    with pytest.raises(CoveError) as caught:
        await targets.locate(parse("http://slow.example/"), owner="default")
    assert caught.value.code == "NETWORK_ERROR"


async def test_what_the_operator_allows() -> None:
    names = Names(
        {
            "ci.internal": ("10.9.9.9",),
            "other.internal": ("10.9.9.9",),
            "ten.internal": ("10.1.2.3",),
            "mixed.internal": ("10.1.2.3", "10.2.0.1"),
        }
    )
    allow = AllowList.of(["CI.internal.", "10.1.0.0/16", "::1", "192.168.7.7"])
    targets = WebhookTargets(names, allow)
    for url in (
        "http://ci.internal/",
        "http://CI.INTERNAL.:99/",
        "http://ten.internal/",
        "http://10.1.255.255/",
        "http://[::ffff:10.1.0.1]/",
        "http://[::1]:8080/",
        "http://192.168.7.7/",
    ):
        await targets.admit(url, owner="default")
    for url in (
        "http://other.internal/",
        "http://mixed.internal/",
        "http://sub.ci.internal/",
        "http://10.9.9.9/",
        "http://10.2.0.1/",
        "http://192.168.7.8/",
        "http://127.0.0.1/",
    ):
        await reason(url, targets)


@pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "300.1.1.1", "http://ci.internal", "a b", "ci.internal:80", "*.x"])
def test_what_is_no_entry_of_the_allow_list(entry: str) -> None:
    with pytest.raises(ValueError):
        AllowList.of([entry])
