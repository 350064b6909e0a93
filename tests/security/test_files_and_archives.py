"""Files and archives: names and links that lead out, races, devices without end, archives that write elsewhere."""

import io
import os
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from tests.security.attacks import attack
from tests.security.ground import HOST_SECRET, Ground, Inside, markers, resident_bytes

MIB = 1024 * 1024


def reads(inside: Inside, path: str) -> str:
    """What every way to read gives for a path."""
    said: list[str] = []
    for route in ("/files/read", "/files/download", "/files/list", "/files/archive", "/files/exists"):
        answer = inside.http.get(route, params={"path": path})
        assert answer.status_code in (200, 400, 403, 404, 409, 413, 422), (route, answer.text)
        said.append(answer.content.decode("latin-1"))
    return "\n".join(said)


@attack(
    "Reading the host's files through names and links: absolute, dots, encoded, by way of /proc, link to link",
    expected="nothing of the host, on any route",
    control="the host reads its secret under the same name",
)
def test_names_and_links_that_lead_out(ground: Ground) -> None:
    secret = markers(ground.server)[0]
    assert secret.read_text() == HOST_SECRET
    attacker = ground.attacker
    attacker.command(
        f"mkdir -p /tmp/lead; cd /tmp/lead; ln -sfn {secret} one; ln -sfn {secret.parent} two; ln -sfn one three; "
        f"ln -sfn / four; ln -sfn /proc/1/root five; ln -sfn ../../../../../..{secret} six; "
        "ln -sfn /proc/self/cwd seven"
    )
    paths = [str(secret), f"/workspace/../../../..{secret}", f"/proc/1/root{secret}", f"/proc/self/root{secret}"]
    paths += [f"/tmp/lead/{name}" for name in ("one", "two/secret", "three", f"four{secret}", f"five{secret}", "six")]
    paths += [f"/tmp/lead/seven/../..{secret}", f"%2e%2e/%2e%2e{secret}", f"..{secret}", "/tmp/lead/two"]
    for path in paths:
        assert HOST_SECRET not in reads(attacker, path), path
    archive = attacker.http.get("/files/archive", params={"path": "/tmp/lead"})
    assert HOST_SECRET.encode() not in archive.content


@attack(
    "Writing the host's files through links: write, upload, mkdir, remove, archives, modes",
    expected="the host's files are as they were",
    control="root on the host writes through the same link",
)
def test_writing_through_links(ground: Ground) -> None:
    with tempfile.TemporaryDirectory(prefix="cove-control-", dir="/tmp") as place:
        target, link = Path(place, "target"), Path(place, "link")
        link.symlink_to(target)
        link.write_text("through")
        assert target.read_text() == "through"
    directory = markers(ground.server)[0].parent
    before = {path: path.read_bytes() for path in directory.iterdir()}
    attacker = ground.attacker
    attacker.command(f"rm -rf /workspace/w; mkdir /workspace/w; ln -sfn {directory} /workspace/w/d")
    for path in ("/workspace/w/d/secret", "/workspace/w/d/new", f"{directory}/new", f"/proc/1/root{directory}/new"):
        attacker.http.post("/files/write", json={"path": path, "content": "x", "mode": "0777"})
        attacker.http.post("/files/mkdir", json={"path": path + "-directory"})
        attacker.http.post("/files/upload", data={"path": path}, files={"file": ("x", b"x")})
        attacker.http.delete("/files/remove", params={"path": path})
    assert {path: path.read_bytes() for path in directory.iterdir()} == before
    assert not (directory / "new").exists()


@attack(
    "A race: a directory is exchanged for a link again and again while the API writes, lists, reads and packs below it",
    expected="nothing outside of the sandbox is read or written; system files inside neither",
    control="the exchange is seen by a program inside: both states occur",
)
def test_a_directory_that_is_exchanged_for_a_link(ground: Ground) -> None:
    attacker, secret = ground.attacker, markers(ground.server)[0]
    race = f"""
import os, time
os.makedirs("/workspace/race/real", exist_ok=True)
os.chdir("/workspace/race")
end = time.monotonic() + 15
count = 0
while time.monotonic() < end and not os.path.exists("stop"):
    for target in ("/etc", "{secret.parent}", "/proc/1/root"):
        os.symlink(target, "next")
        os.rename("next", "link")
        count += 1
        os.symlink("real", "next")
        os.rename("next", "link")
print(count)
"""
    attacker.write("/tmp/race.py", race)
    attacker.command("rm -rf /workspace/race; mkdir -p /workspace/race/real; ln -s real /workspace/race/link")
    attacker.write("/workspace/race/real/secret", "fine")
    started = attacker.http.post("/commands/background", json={"command": "python3 /tmp/race.py", "timeout": 20})
    process = started.json()["process_id"]
    kinds: set[str] = set()
    end = time.monotonic() + 10
    for turn in range(400):
        if (len(kinds) == 2 and turn >= 20) or time.monotonic() > end:
            break
        attacker.http.post("/files/write", json={"path": "/workspace/race/link/new", "content": "attack"})
        read = attacker.http.get("/files/read", params={"path": "/workspace/race/link/secret"})
        listed = attacker.http.get("/files/list", params={"path": "/workspace/race/link"})
        packed = attacker.http.get("/files/archive", params={"path": "/workspace/race"})
        kinds.add("real" if "fine" in read.text else "link" if read.status_code != 200 else "other")
        for answer in (read, listed, packed):
            assert HOST_SECRET.encode() not in answer.content
    attacker.command("touch /workspace/race/stop")
    ended = attacker.http.get(f"/execute/processes/{process}", params={"wait": 10})
    assert kinds >= {"real", "link"}, ended.text
    assert not (secret.parent / "new").exists()
    assert attacker.command("test -e /etc/new || echo none")["stdout"] == "none\n"


@attack(
    "Files without end: /dev/zero, FIFOs, a sparse terabyte, a loop of links, a deep tree, long names",
    expected="refused or cut off at once; the server's memory does not grow",
    control="the sparse file says that it is a terabyte",
)
def test_files_without_end(ground: Ground) -> None:
    attacker, pid = ground.attacker, ground.server.pid
    made = attacker.command(
        "mkdir -p /tmp/endless; cd /tmp/endless; truncate -s 1T sparse || truncate -s 15T sparse; mkfifo pipe; "
        "ln -sfn loop loop; ln -sfn a b; ln -sfn b a; ln -sfn . self; stat -c %s sparse"
    )
    assert int(made["stdout"]) >= 2**40
    deep = "import os\nfor _ in range(600):\n    os.makedirs('d' * 50, exist_ok=True)\n    os.chdir('d' * 50)\n"
    attacker.write("/tmp/endless/deep.py", deep)
    attacker.command("cd /tmp/endless; python3 deep.py")
    before = resident_bytes(pid)
    for path in ("pipe", "loop", "a", "self/self/self/self/pipe", "x" * 300, "y/" * 3000, "sparse"):
        answer = attacker.http.get("/files/read", params={"path": f"/tmp/endless/{path}"})
        assert 400 <= answer.status_code < 500, (path[:20], answer.text[:200])
    for path in ("/dev/zero", "/dev/random", "/proc/kmsg", "/dev/tty"):
        assert attacker.http.get("/files/read", params={"path": path}).status_code >= 400, path
        assert attacker.http.get("/files/download", params={"path": path}).status_code >= 400, path
    with attacker.http.stream("GET", "/files/download", params={"path": "/tmp/endless/sparse"}) as answer:
        assert answer.status_code in (200, 413)
        if answer.status_code == 200:
            received = 0
            for part in answer.iter_raw():
                received += len(part)
                if received > 16 * MIB:
                    break
    with attacker.http.stream("GET", "/files/archive", params={"path": "/tmp/endless"}) as packed:
        received = 0
        for part in packed.iter_raw():
            received += len(part)
            if received > 16 * MIB:
                break
    assert resident_bytes(pid) - before < 32 * MIB
    attacker.command("rm -rf /tmp/endless")


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.size = kind, link, mode, 6 if kind == tarfile.REGTYPE else 0
    return made


def archive_of(*members: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for one in members:
            packed.addfile(one, io.BytesIO(b"attack") if one.isreg() else None)
    return stream.getvalue()


@attack(
    "Archives that write elsewhere: `..`, absolute names, files through links, hard links, devices",
    expected="refused or kept inside; the host and system files are as they were",
    control="a naive unpacker writes outside with the same archive",
)
def test_archives_that_write_elsewhere(ground: Ground) -> None:
    place = markers(ground.server)[0].parent
    with tempfile.TemporaryDirectory(prefix="cove-control-", dir="/tmp") as top:
        inner = Path(top, "inner")
        inner.mkdir()
        archive = archive_of(member("lead", tarfile.SYMTYPE, link=top), member("lead/out"), member("../dots"))
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(inner, filter="fully_trusted")
        assert Path(top, "out").read_bytes() == Path(top, "dots").read_bytes() == b"attack"
    hostile = [
        archive_of(member("lead", tarfile.SYMTYPE, link=str(place)), member("lead/out")),
        archive_of(member("lead", tarfile.SYMTYPE, link="/etc"), member("lead/out")),
        archive_of(member("lead", tarfile.SYMTYPE, link="../../../../etc"), member("lead/out")),
        archive_of(member("../../../etc/out")),
        archive_of(member("/etc/out")),
        archive_of(member(f"{place}/out")),
        archive_of(member("hard", tarfile.LNKTYPE, link="/etc/passwd"), member("hard")),
        archive_of(member("hard", tarfile.LNKTYPE, link=f"../../../..{place}/secret"), member("hard")),
        archive_of(
            member("disk", tarfile.BLKTYPE), member("memory", tarfile.CHRTYPE), member("pipe", tarfile.FIFOTYPE)
        ),
        archive_of(member("x\0y")),
        archive_of(member("/".join(["d" * 200] * 40))),
    ]
    attacker = ground.attacker
    attacker.command("rm -rf /workspace/in; mkdir /workspace/in")
    for archive in hostile:
        answer = attacker.http.put("/files/archive", params={"path": "/workspace/in"}, content=archive)
        assert answer.status_code < 500, answer.text
    look = "ls /etc/out 2>/dev/null; find /workspace/in -type b -o -type c -o -type p -o -perm /6000; "
    look += "grep -c attack /etc/passwd"
    assert attacker.command(look)["stdout"].split() == ["0"]
    assert not (place / "out").exists()
    suid = archive_of(member("program", mode=0o6777))
    assert attacker.http.put("/files/archive", params={"path": "/workspace/in"}, content=suid).status_code < 300
    assert attacker.command("find /workspace/in -perm /6000")["stdout"] == ""


@attack(
    "Archives that are bombs: a gibibyte of zeros in a few kilobytes, a million names, sparse headers",
    expected="refused or bounded by the disk; the server's memory does not grow",
    control="unpacked the archive is a thousand times its size",
)
def test_archives_that_are_bombs(ground: Ground) -> None:
    import gzip

    size = 300 * MIB
    head = tarfile.TarInfo("zeros")
    head.size = size
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as stream:
        stream.write(head.tobuf())
        for _ in range(size // MIB):
            stream.write(bytes(MIB))
        stream.write(bytes(1024))
    assert len(packed.getvalue()) * 500 < size
    small = ground.make(resources={"disk_mb": 64})
    try:
        before = resident_bytes(ground.server.pid)
        answer = small.http.put("/files/archive", params={"path": "/workspace"}, content=packed.getvalue())
        assert answer.status_code >= 400, answer.text
        assert resident_bytes(ground.server.pid) - before < 32 * MIB
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("zeros", bytes(8 * MIB))
        assert (
            small.http.put("/files/archive", params={"path": "/workspace"}, content=zipped.getvalue()).status_code
            >= 400
        )
        assert small.command("echo alive")["stdout"] == "alive\n"
        assert small.command("rm -rf /workspace/*; echo x > /workspace/y && cat /workspace/y")["stdout"] == "x\n"
    finally:
        small.kill()


@attack(
    "Gaining the next sandbox: start-up files, `sitecustomize`, PYTHONPATH, the agent's own files",
    expected="the agent's files cannot be written; a new sandbox has nothing of it",
    control="in the attacker's own sandbox the start-up file runs",
)
def test_start_up_files_reach_no_other_sandbox(ground: Ground) -> None:
    first = ground.make()
    try:
        planted = first.command(
            "cd; echo 'echo planted-55e1' | tee .bashrc .profile .bash_profile > /dev/null; "
            "mkdir -p $(python3 -m site --user-site); "
            "echo \"print('planted-55e1')\" > $(python3 -m site --user-site)/sitecustomize.py; "
            "bash -ic true; python3 -c ''"
        )
        assert planted["stdout"].count("planted-55e1") >= 2
        writable = """
import os, sys, site
roots = {path for path in sys.path if os.path.isdir(path) and not path.startswith(("/home/user", "/workspace", "/tmp"))}
agent = os.popen("find / -xdev -type d -path '*cove*' -not -path '/proc/*' 2>/dev/null").read().split()
found = [path for path in {*roots, *agent, "/usr/bin", "/usr/lib", "/etc", "/lib"} if os.access(path, os.W_OK)]
print(len(agent), [path for path in found if not path.startswith(("/home/user", "/workspace", "/tmp"))])
"""
        first.write("/tmp/writable.py", writable)
        count, _, found = first.command("python3 /tmp/writable.py | tail -1")["stdout"].partition(" ")
        assert int(count) > 0
        assert found.strip() == "[]"
    finally:
        first.kill()
    second = ground.make()
    try:
        said = second.command("bash -lic true; python3 -c 'print(1)'; cat /home/user/.profile")
        assert "planted-55e1" not in said["stdout"] + said["stderr"]
        assert "planted-55e1" not in str(second.execute("print(1)"))
    finally:
        second.kill()


@attack(
    "The layers of the template, as the host has them: what sandboxes write reaches none of them",
    expected="no file of a layer has changed since the sandboxes run",
    control="the sandbox sees what it has written",
)
def test_layers_are_not_written(ground: Ground) -> None:
    manifest = ground.server.data_dir / "templates" / "base.json"
    if not manifest.exists():
        pytest.skip("the template base is not built: run `make setup`")
    said = ground.attacker.command(
        "echo mine > /home/user/mark-8c2f; cat /home/user/mark-8c2f; rm -rf /usr/bin/* 2>/dev/null"
    )
    assert said["stdout"] == "mine\n"
    layers = ground.server.data_dir / "layers"
    for layer in layers.iterdir():
        assert not (layer / "home" / "user" / "mark-8c2f").exists()
        assert not os.path.lexists(layer / "etc" / "new")
    assert ground.victim.command("ls /home/user; test -x /usr/bin/env && echo fine")["stdout"].endswith("fine\n")
