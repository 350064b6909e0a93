"""Programs that attack: the same text is run in a sandbox and, as control, by root in throwaway namespaces."""

import json
import subprocess
import sys
from typing import Any

PRELUDE = """
import ctypes, errno, json, os, select, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
said = {}

def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def attempt(name, action, seconds=5):
    # In a child: one attempt must not change what the next one finds.
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        signal.alarm(seconds)
        try:
            answer = "done", str(action())
        except OSError as problem:
            answer = "refused", errno.errorcode.get(problem.errno, str(problem))
        except BaseException as problem:
            answer = "failed", repr(problem)
        os.write(writer, json.dumps(answer).encode()[:4096])
        os._exit(0)
    os.close(writer)
    answer = b""
    while part := os.read(reader, 4096):
        answer += part
    os.close(reader)
    _, status = os.waitpid(child, 0)
    said[name] = json.loads(answer) if answer else ["killed", str(os.WTERMSIG(status))]
"""

EPILOGUE = "\nprint(json.dumps(said))\n"

Answers = dict[str, tuple[str, str]]
"""What became of each attempt (`done`, `refused`, `failed`, `killed`), and the value or the reason."""


def program(text: str, **values: Any) -> str:
    """A whole program; `values` are its variables."""
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return PRELUDE + given + text + EPILOGUE


def answers_of(output: str) -> Answers:
    """What it printed."""
    return {name: (how, detail) for name, (how, detail) in json.loads(output.strip().splitlines()[-1]).items()}


def control(source: str, *, namespaces: str = "-m -n -i -u -p -f", seconds: float = 30.0) -> Answers:
    """The same program outside of any sandbox: as root, with everything that it changes thrown away (unshare(1))."""
    command = ["unshare", *namespaces.split(), sys.executable, "-"] if namespaces else [sys.executable, "-"]
    ran = subprocess.run(command, input=source, capture_output=True, text=True, timeout=seconds, cwd="/")
    assert ran.returncode == 0, ran.stderr
    return answers_of(ran.stdout)


def done(answers: Answers) -> dict[str, str]:
    """The attempts that worked, with what they gave."""
    return {name: detail for name, (how, detail) in answers.items() if how == "done"}
