"""Templates whose programs run as root: everything an installation needs works, and it all stays in the one sandbox."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from tests.contract.driver_fixtures import (
    GvisorSubject,
    Inside,
    NamespaceSubject,
    built_template,
    clean_up,
    host_user,
    need_runsc,
    short_directory,
    spec_of,
)

from cove.drivers.base import RuntimeDriver
from cove.host.identities import FIRST, TEMPLATE_OWNER, own_root
from cove.linux import inside_root
from cove.models.errors import CoveError
from cove.models.hosts import SandboxRecord
from cove.models.templates import TemplateManifest

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("as_root")]

CAPABILITIES = f"{sum(1 << number for number in inside_root.NUMBERS):016x}"
WHEEL = """
import zipfile
with zipfile.ZipFile("/tmp/greet-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greet.py", "def main(): print('greetings from', __file__)")
    wheel.writestr("greet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: greet\\nVersion: 1.0\\n")
    tags = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    wheel.writestr("greet-1.0.dist-info/WHEEL", tags)
    wheel.writestr("greet-1.0.dist-info/entry_points.txt", "[console_scripts]\\ngreet = greet:main\\n")
    wheel.writestr("greet-1.0.dist-info/RECORD", "")
"""
# What a package of a service does when it is installed and started, in the words of the system calls.
SERVICE = """
import os, subprocess, sys
with open("/etc/passwd", "a") as file:
    file.write("service:x:33:33::/srv/service:/bin/sh\\n")
os.makedirs("/srv/service/closed")
os.chown("/srv/service/closed", 33, 33)
os.chmod("/srv/service/closed", 0o700)
open("/srv/service/closed/file", "w").close()  # root is not kept out
os.utime("/srv/service/closed", (1, 1))
become = "import os; os.setgroups([]); os.setgid(33); os.setuid(33); "
look = become + "print(os.getresuid(), [l.split()[1] for l in open('/proc/self/status') if l.startswith('CapPrm')])"
print(subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip())
sleeper = subprocess.Popen([sys.executable, "-c", become + "import time; time.sleep(60)"])
sleeper.kill()
print(sleeper.wait(20))
"""
SET_ID = """
import os, shutil, subprocess, sys
shutil.copy(os.path.realpath(sys.executable), "/usr/local/bin/raised")
os.chmod("/usr/local/bin/raised", 0o6755)
print(oct(os.stat("/usr/local/bin/raised").st_mode & 0o7777))
look = "import os; print(os.getresuid(), os.getresgid())"
def lower(): os.setgroups([]); os.setgid(33); os.setuid(33)
print(subprocess.run(["/usr/local/bin/raised", "-c", look], preexec_fn=lower, capture_output=True, text=True).stdout)
"""
RUIN = """
import os
for top in ("/etc", "/home", "/usr/lib/cove", "/usr"):
    for directory, _, names in os.walk(top):
        for name in names:
            path = f"{directory}/{name}"
            if not os.path.islink(path) and os.path.isfile(path):
                os.chmod(path, 0o777)
                os.truncate(path, 1)
"""


class Ground(NamedTuple):
    """One driver with a template whose programs run as root."""

    subject: NamespaceSubject | GvisorSubject
    driver: RuntimeDriver
    template: TemplateManifest

    @property
    def own_kernel(self) -> bool:
        return self.subject.name == "gvisor"


def as_root_template(base: TemplateManifest) -> TemplateManifest:
    return base.model_copy(update={"run_as_root": True, "digest": base.digest[:-4] + "root"})


@pytest.fixture(scope="module", params=["namespace", "gvisor"])
async def ground(request: pytest.FixtureRequest, built_data_dir: Path) -> AsyncIterator[Ground]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    template = as_root_template(built_template(built_data_dir, "base"))
    with short_directory() as directory:
        if request.param == "gvisor":
            need_runsc()
            subject = GvisorSubject(directory, template, checkpoints=directory / "checkpoints")
        else:
            subject = NamespaceSubject(directory, template)
        driver = subject.open()
        try:
            yield Ground(subject, driver, template)
        finally:
            await driver.close()
            await clean_up(subject)


@pytest.fixture(scope="module")
async def record(ground: Ground) -> AsyncIterator[SandboxRecord]:
    made = await ground.driver.create(spec_of(ground.subject), ground.template)
    yield made
    await ground.driver.destroy(made)


async def test_programs_are_root_inside_with_few_capabilities(record: SandboxRecord) -> None:
    seen = await Inside(record).output("id -u; id -g; echo $HOME $USER; cat /proc/self/status")
    uid, gid, home, *lines = seen.splitlines()
    assert (uid, gid, home) == ("0", "0", "/root root")
    status = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()}
    assert {status[f"Cap{name}"] for name in ("Prm", "Eff", "Bnd")} == {CAPABILITIES}
    assert status["CapInh"] == "0" * 16
    assert status.get("CapAmb", "0" * 16) == "0" * 16
    assert status.get("NoNewPrivs", "1") == "1"


async def test_no_program_has_the_id_that_owns_the_layers(ground: Ground, record: SandboxRecord) -> None:
    if ground.own_kernel:
        pytest.skip("programs are nobody on the host: they run on gVisor's kernel")
    slot = int(record.driver_state["slot"])
    assert own_root(slot) > TEMPLATE_OWNER
    assert host_user(record) == own_root(slot)
    groups = Path(f"/proc/{record.pid}/status").read_text().split("Groups:")[1].splitlines()[0].split()
    assert groups == []
    uid_map = Path(f"/proc/{record.pid}/uid_map").read_text().split()
    assert uid_map == ["0", str(own_root(slot)), "65536"], "TEMPLATE_OWNER is not in it"


async def test_packages_are_installed_into_the_system(record: SandboxRecord) -> None:
    inside = Inside(record)
    await inside.output(WHEEL, language="python")
    install = "pip install -q --no-index --break-system-packages /tmp/greet-1.0-py3-none-any.whl"
    told = await inside.output(f"{install} && cd / && greet && command -v greet")
    place, program = told.splitlines()
    assert place.startswith("greetings from /usr/"), told
    assert program.startswith("/usr/"), told


async def test_a_service_gets_a_user_and_files_of_its_own(record: SandboxRecord) -> None:
    inside = Inside(record)
    said = (await inside.output(SERVICE, language="python")).splitlines()
    assert said == ["(33, 33, 33) ['0000000000000000']", "-9"]
    assert await inside.output("stat -c %u:%g:%a:%Y /srv/service/closed") == "33:33:700:1"


async def test_set_id_bits_stay_without_effect(record: SandboxRecord) -> None:
    mode, ids = (await Inside(record).output(SET_ID, language="python")).splitlines()
    assert mode == "0o6755"
    assert ids == "(33, 33, 33) (33, 33, 33)"


async def test_the_agent_is_out_of_reach_of_root(ground: Ground, record: SandboxRecord) -> None:
    """gVisor lets everybody end the first process, and with it their own sandbox, by other signals."""
    inside = Inside(record)
    signals = "TERM" if ground.own_kernel else "TERM INT HUP KILL STOP"
    said = await inside.output(f"cat /proc/1/mem 2>&1; for s in {signals}; do kill -$s 1; done; echo still")
    assert said == "cat: /proc/1/mem: Permission denied\nstill"
    assert await inside.health() == 200


async def test_what_root_ruins_is_its_own_and_stays_after_a_stop(ground: Ground) -> None:
    """Every file of the system is written over; layers and the next sandbox have nothing of it."""
    before = layer_files(ground.template)
    record = await ground.driver.create(spec_of(ground.subject), ground.template)
    try:
        inside = Inside(record)
        await inside.output("echo kept > /etc/kept; chown 33 /etc/kept")
        stopped = await ground.driver.stop(record)
        record = await ground.driver.start(stopped, ground.template, {})
        inside = Inside(record)
        assert await inside.output("cat /etc/kept; stat -c %u /etc/kept") == "kept\n33"
        await ruin(inside, own_kernel=ground.own_kernel)
    finally:
        await ground.driver.destroy(record)
    assert layer_files(ground.template) == before
    fresh = await ground.driver.create(spec_of(ground.subject), ground.template)
    try:
        assert await Inside(fresh).output("ls /etc/kept 2>/dev/null; python3 -c 'print(6 * 7)'") == "42"
    finally:
        await ground.driver.destroy(fresh)


async def ruin(inside: Inside, *, own_kernel: bool) -> None:
    """The program itself does not survive that; where gVisor maps the agent's file anew, the agent neither."""
    try:
        await inside.run(RUIN, language="python")
    except httpx2.TransportError:
        assert own_kernel
    if not own_kernel:
        root = Path(f"/proc/{inside.record.pid}/root")
        sizes = [(root / name).stat().st_size for name in ("etc/services", "usr/lib/cove/python/cove/agent/main.py")]
        assert sizes == [1, 1], "it could"


def layer_files(template: TemplateManifest) -> dict[str, tuple[int, int, int, int]]:
    """Size, owner, mode and time of everything that the template is made of."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for layer in template.layers:
        for directory, names, files in os.walk(layer):
            for name in (*names, *files):
                status = os.lstat(f"{directory}/{name}")
                found[f"{directory}/{name}"] = (status.st_size, status.st_uid, status.st_mode, status.st_mtime_ns)
    return found


async def test_a_host_that_cannot_map_owners_refuses(ground: Ground, tmp_path: Path) -> None:
    """The lowest layer is on a filesystem that has no such mounts."""
    if ground.own_kernel:
        pytest.skip("gVisor's file server needs no such mounts")
    layers = (*ground.template.layers, "/sys/kernel/mm")
    other = ground.template.model_copy(update={"layers": layers, "digest": ground.template.digest[:-4] + "feed"})
    with pytest.raises(CoveError) as caught:
        await ground.driver.create(spec_of(ground.subject), other)
    assert caught.value.code == "UNSUPPORTED"
    assert "run_as_root" in (caught.value.remedy or "")
    normal = other.model_copy(update={"run_as_root": False, "digest": ground.template.digest[:-4] + "beef"})
    record = await ground.driver.create(spec_of(ground.subject), normal)
    try:
        assert host_user(record) > FIRST, "the control: without root inside the same template works"
    finally:
        await ground.driver.destroy(record)
