"""What no policy opens: the machine, its network, metadata services, other sandboxes; by address and by name."""

from tests.internet_servers import CHANGING, NAMES
from tests.security.attacks import attack
from tests.security.networked import Networked, asked_outside, unhindered
from tests.security.programs import done
from tests.security.test_network_off import listeners

EVERYWHERE = ("*", "0.0.0.0/0", "::/0")
PLACES = (
    *("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "10.0.0.7", "172.16.0.1", "192.168.0.1"),
    *(
        "100.66.0.2",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "203.0.113.5",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.7",
    ),
)
BEYOND = (
    *("0.0.0.0", "127.0.0.1", "127.8.8.8", "255.255.255.255", "224.0.0.1", "240.0.0.1", "::", "::1", "fd00:ec2::254"),
    *("64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254", "fec0::1", "2001:db8:66::1", "2001:db8:66::2"),
    *("::ffff:127.0.0.1", "::ffff:100.66.0.1"),
)
"""Where the test internet has no server, or only the machine itself."""

ADDRESSES = """
together({
    f"{kind} {address} {port}": lambda address=address, kind=kind, port=port:
        forbidden(raw(address, port, get(address.encode())) if kind == "plain"
        else encrypted(address, port, "other.example", get(b"other.example")))
    for address in places for kind, port in (("plain", 80), ("plain", 8080), ("tls", 443), ("tls", 8443))
})
"""
SERVICES = """
def knock(address, port):
    with connected(address, port) as client:
        client.sendall(b"GET /health HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        if not client.recv(100).startswith((b"host", b"HTTP/1.1 ", b"victim")):
            raise OSError(errno.EACCES, "somebody else answers")
together({f"{address} {port}": lambda address=address, port=port: knock(address, port) for address, port in services})
"""
NAMED = """
def by_name(name, kind):
    told = []
    for _ in range(4 if name in changing else 1):
        try:
            for address in records(datagram(nameserver, 53, question(name, kind))):
                told += [one for one in forbidden(raw(address, 80, get(name.encode()))) if one in private]
        except OSError:
            pass
    if not told:
        raise OSError(errno.EACCES, "not reached")
    return told
def forced(name, tls):
    for _ in range(4 if name in changing else 1):
        try:
            request = get(name.encode())
            data = encrypted(allowed, 443, name, request) if tls else raw(allowed, 80, request)
            if set(forbidden(data)) & set(private):
                return "reached"
        except (OSError, ssl.SSLError):
            pass
    raise OSError(errno.EACCES, "not reached")
together({f"by name {name}": lambda name=name: by_name(name, 1) for name in names} |
         {f"by name {name} AAAA": lambda name=name: by_name(name, 28) for name in sixes} |
         {f"forced {name} {tls}": lambda name=name, tls=tls: forced(name, tls)
          for name in (*names, *sixes) for tls in (False, True)})
"""
HOSTILE_NAMES = (
    *("metadata.example", "rebinding.example", "intranet.example", "alias-of-intranet.example"),
    *(*CHANGING, "both.example"),
)
PRIVATE = ("169.254.169.254", "10.0.0.7", "10.1.2.3", "127.0.0.1")


@attack(
    "With everything allowed, also 0.0.0.0/0 and ::/0: metadata services, private, shared, reserved, loopback, "
    "multicast, the gateway, mapped and translated ones; plain and TLS with a public name",
    expected="none answers",
    control="the same program on the machine reaches all that exist",
)
def test_addresses_that_nothing_opens(networked: Networked) -> None:
    networked.allow(*EVERYWHERE)
    places = (*PLACES, "93.184.216.99")
    assert len(done(unhindered(ADDRESSES, places=places))) == 4 * len(places)
    reached = done(networked.try_out(ADDRESSES, places=(*places, *BEYOND)))
    assert {name.split()[1] for name in reached} == {"93.184.216.99"}
    assert {"its address is link-local", "its address is private"} <= set(networked.refusals())


@attack(
    "With everything allowed: the server's port, services on the machine's loopback and address, the victim's services",
    expected="none answers",
    control="the same program on the machine reaches the first two, the victim its own",
)
def test_services_of_the_machine_and_of_other_sandboxes(networked: Networked) -> None:
    networked.allow(*EVERYWHERE)
    serve = (
        "python3 -c \"import socket; listener = socket.create_server(('', 8123))\n"
        "while one := listener.accept()[0]: one.send(b'victim')\""
    )
    started = networked.victim.http.post("/commands/background", json={"command": serve, "timeout": 120})
    assert started.status_code < 300, started.text
    knock = "for n in $(seq 100); do timeout 2 head -c6 </dev/tcp/127.0.0.1/8123 2>/dev/null && break; sleep 0.1; done"
    try:
        assert networked.victim.command(knock)["stdout"] == "victim"
        with listeners() as targets:
            machine = [address for name, _, address in targets if name.startswith("tcp")]
            machine += [("127.0.0.1", int(networked.server.url.rpartition(":")[2]))]
            assert len(done(unhindered(SERVICES, services=machine))) == len(machine) >= 4
            hosts = ("127.0.0.1", "127.0.0.2", "100.66.0.1", "100.66.0.2", "::1", "::ffff:100.66.0.1", "2001:db8:66::1")
            ports = {port for _, port in machine} | {8123}
            tried = [*machine, *((host, port) for host in hosts for port in ports)]
            assert done(networked.try_out(SERVICES, services=tried)) == {}
    finally:
        networked.victim.http.post(f"/execute/kill/{started.json()['process_id']}")


@attack(
    "Public names that lead to private addresses: at once, by an alias, in turns (rebinding), beside a public one, as "
    "a mapped or translated IPv6 address; looked up, and said in Host and SNI on a connection to a public address",
    expected="no private address answers, none is told by the resolver",
    control="on the machine the names that have an IPv4 address lead there",
)
def test_names_that_lead_inside(networked: Networked) -> None:
    networked.allow(*EVERYWHERE, *HOSTILE_NAMES)
    sixes = ("mapped.example", "translated.example")
    values = {"names": HOSTILE_NAMES, "sixes": sixes, "private": PRIVATE, "changing": tuple(CHANGING)}
    led = {name.split()[2] for name in done(unhindered(NAMED, **values))}
    assert led >= {
        "metadata.example",
        "rebinding.example",
        "alias-of-intranet.example",
        "flipping.example",
        "both.example",
    }
    assert done(networked.try_out(NAMED, **values)) == {}
    assert {"flipping.example", "both.example", "mapped.example"} <= set(asked_outside())
    assert NAMES["intranet.example"] in PRIVATE
