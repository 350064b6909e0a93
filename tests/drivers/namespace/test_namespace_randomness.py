"""Two sandboxes that are forked from the same warm process draw different random numbers."""

import json
from typing import Any

import pytest
from tests.contract.driver_fixtures import Inside
from tests.drivers.namespace.conftest import Maker

pytestmark = pytest.mark.anyio

DRAW = """
import json, os, random, secrets, ssl, subprocess, sys, tempfile, uuid
fresh = [sys.executable, "-c", "print(hash('text'))"]
drawn = {
    "random": random.random(),
    "SystemRandom": random.SystemRandom().random(),
    "secrets": secrets.token_hex(),
    "urandom": os.urandom(8).hex(),
    "ssl": ssl.RAND_bytes(8).hex(),
    "uuid1": str(uuid.uuid1()),
    "uuid4": str(uuid.uuid4()),
    "tempfile": tempfile.mktemp(),
    "hash of a new process": subprocess.run(fresh, capture_output=True, check=True).stdout.decode(),
}
try:
    import numpy
    drawn["numpy"] = numpy.random.random()
    drawn["numpy generator"] = numpy.random.default_rng().random()
except ImportError:
    pass
print(json.dumps(drawn))
"""
CODE_INTERPRETER = pytest.mark.parametrize("ground", ["code-interpreter"], indirect=True)


async def drawn(inside: Inside) -> dict[str, Any]:
    return json.loads(await inside.output(DRAW, "python"))


@CODE_INTERPRETER
async def test_two_sandboxes_draw_different_numbers(pair: tuple[Inside, Inside]) -> None:
    first, second = await drawn(pair[0]), await drawn(pair[1])
    assert first.keys() == second.keys()
    assert "numpy" in first
    assert [name for name in first if first[name] == second[name]] == []


@CODE_INTERPRETER
async def test_an_interpreter_after_a_crash_draws_different_numbers(make: Maker) -> None:
    inside = Inside(await make())
    first = await drawn(inside)
    assert (await inside.run("import os; os._exit(3)", "python"))["kernel_restarted"]
    second = await drawn(inside)
    assert [name for name in first if first[name] == second[name]] == []
