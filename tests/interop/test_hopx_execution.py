"""`hopx_ai.Sandbox.run_code` and `commands.run`: a failing program is a result, and it ran once."""

import base64
import time
from typing import Any

import pytest
from tests.interop import hopx

errors = hopx.errors

GO = 'package main\nimport ("fmt"; "os")\nfunc main() { fmt.Println("go", os.Getenv("WHO")) }'


@pytest.mark.parametrize(
    ("language", "code", "printed"),
    [
        ("python", "import os; print('python', os.environ['WHO'])", "python me\n"),
        ("javascript", "console.log('javascript', process.env.WHO)", "javascript me\n"),
        ("bash", "echo bash $WHO", "bash me\n"),
        ("go", GO, "go me\n"),
    ],
)
def test_four_languages_with_variables(sandbox: Any, language: str, code: str, printed: str) -> None:
    result = sandbox.run_code(code, language=language, env={"WHO": "me"})
    assert (result.stdout, result.stderr, result.exit_code, result.success) == (printed, "", 0, True)
    assert result.execution_time > 0


def test_python_remembers(sandbox: Any) -> None:
    assert sandbox.run_code("import math\nvalues = [1, 2, 3]").success
    assert sandbox.run_code("print(sum(values), math.pi > 3)").stdout == "6 True\n"
    assert sandbox.run_code("values[-1]").stdout.strip() == "3"


def test_javascript_remembers(sandbox: Any) -> None:
    assert sandbox.run_code("let seen = [1, 2]", language="javascript").success
    assert sandbox.run_code("console.log(seen.length)", language="javascript").stdout == "2\n"


def test_variables_of_a_call_end_with_it(sandbox: Any) -> None:
    sandbox.run_code("pass", env={"ONLY_NOW": "1"})
    assert sandbox.run_code("import os; print(os.environ.get('ONLY_NOW'))").stdout == "None\n"


def test_working_directory(sandbox: Any) -> None:
    assert sandbox.run_code("pwd", language="bash").stdout == "/workspace\n"
    assert sandbox.run_code("pwd", language="bash", working_dir="/tmp").stdout == "/tmp\n"


@pytest.mark.parametrize(
    ("language", "code", "exit_code", "said"),
    [
        ("python", "1 / 0", 1, "ZeroDivisionError"),
        ("python", "import sys; sys.exit(7)", 7, ""),
        ("javascript", "throw new Error('thrown')", 1, "thrown"),
        ("bash", "echo lost >&2; exit 3", 3, "lost"),
        ("go", "package main\nfunc main() { panic(1) }", 2, "panic"),
        ("go", "this is not go", 1, ""),
    ],
)
def test_a_failing_program_is_a_result_and_ran_once(
    sandbox: Any, language: str, code: str, exit_code: int, said: str
) -> None:
    before = sandbox.get_agent_metrics()["total_executions"]
    result = sandbox.run_code(code, language=language)
    assert (result.exit_code, result.success) == (exit_code, False)
    assert said in result.stderr
    assert sandbox.get_agent_metrics()["total_executions"] == before + 1


def test_a_timeout_ends_the_program_and_keeps_what_it_printed(sandbox: Any) -> None:
    began = time.monotonic()
    code = "open('/tmp/runs', 'a').write('x'); print('so far', flush=True); import time; time.sleep(600)"
    result = sandbox.run_code(code, timeout=1)
    assert time.monotonic() - began < 2.5
    assert (result.stdout, result.success) == ("so far\n", False)
    assert result.exit_code == 124
    assert sandbox.files.read("/tmp/runs") == "x"
    assert "sleep(600)" not in str(sandbox.list_system_processes())


def test_a_language_that_it_does_not_have(sandbox: Any) -> None:
    with pytest.raises(errors.AgentError) as raised:
        sandbox.run_code("puts 1", language="ruby")
    assert (raised.value.code, raised.value.status_code) == ("UNSUPPORTED_LANGUAGE", 400)


def test_an_empty_program(sandbox: Any) -> None:
    result = sandbox.run_code("")
    assert (result.stdout, result.exit_code, result.success) == ("", 0, True)


def test_preflight(sandbox: Any) -> None:
    assert sandbox.run_code("print(1)", preflight=True).stdout == "1\n"


def rich(result: Any) -> dict[str, Any]:
    """MIME type -> content of what the client found."""
    assert result.success, result.stderr
    return {kind: content for output in result.rich_outputs for kind, content in output.data.items()}


def test_a_plot_is_a_png(sandbox: Any) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.title('squares')\nplt.show()"
    found = rich(sandbox.run_code(code))
    assert base64.b64decode(found["image/png"]).startswith(b"\x89PNG\r\n\x1a\n")


def test_html_is_html(sandbox: Any) -> None:
    code = "from IPython.display import HTML\nHTML('<b>bold</b>')"
    assert rich(sandbox.run_code(code))["text/html"] == "<b>bold</b>"


def test_a_table_is_html_and_data(sandbox: Any) -> None:
    found = rich(sandbox.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})"))
    assert "<table" in found["text/html"]
    assert "'x'" in str(found["application/vnd.dataframe+json"])


def test_json_is_an_object(sandbox: Any) -> None:
    code = "from IPython.display import JSON\nJSON({'answer': 42})"
    assert rich(sandbox.run_code(code))["application/json"] == {"answer": 42}


def test_commands(sandbox: Any) -> None:
    result = sandbox.commands.run("echo out $A; echo err >&2; pwd; exit 4", env={"A": "1"}, working_dir="/tmp")
    assert (result.stdout, result.stderr, result.exit_code) == ("out 1\n/tmp\n", "err\n", 4)
    assert not result.is_success
    assert sandbox.commands.run("seq 3 | tail -1").stdout == "3\n"


def test_a_command_that_takes_too_long(sandbox: Any) -> None:
    began = time.monotonic()
    result = sandbox.commands.run("echo begun; sleep 600", timeout=1)
    assert time.monotonic() - began < 2.5
    assert (result.stdout, result.exit_code) == ("begun\n", 124)


def test_facts_about_the_sandbox(sandbox: Any) -> None:
    info = sandbox.get_agent_info()
    assert info["vm_id"] == sandbox.sandbox_id
    assert info["features"]
    processes = sandbox.list_system_processes()
    assert processes[0]["pid"] == 1
    assert all(isinstance(process["memory_mb"], float | int) for process in processes)
    assert sandbox.get_jupyter_sessions()[0]["kernel_id"]
    for metrics in (sandbox.get_agent_metrics(), sandbox.get_metrics_snapshot()):
        assert metrics["uptime_seconds"] > 0
        assert metrics["system"]["memory"]["total_mb"] > 0
        assert metrics["process"]["count"] >= 1


def test_the_cache_that_it_does_not_have(sandbox: Any) -> None:
    assert sandbox.cache.stats()["hits"] == 0
    assert sandbox.cache.clear()["success"] is True


def test_the_desktop_that_it_does_not_have(sandbox: Any) -> None:
    with pytest.raises(errors.DesktopNotAvailableError):
        sandbox.desktop.screenshot()
