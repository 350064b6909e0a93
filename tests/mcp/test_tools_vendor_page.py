"""The examples of the page that many assistants have learned from, through the tools."""

import pytest
from tests.e2e.webhook_receiver import webhook_receiver
from tests.mcp.battery import answer_of
from tests.mcp.conftest import Connect

from cove.mcp.tools.hopx_older_names import current_names, sandbox_id_of

pytestmark = pytest.mark.anyio

SALES = """
import pandas as pd
import numpy as np

sales = [100, 150, 200, 180, 220]
df = pd.DataFrame({'sales': sales})

print(f"Mean: ${df['sales'].mean():.2f}")
print(f"Median: ${df['sales'].median():.2f}")
print(f"Growth: {((sales[-1] - sales[0]) / sales[0] * 100):.1f}%")
"""

FIBONACCI = """
function fibonacci(max) {
  const fib = [0, 1];
  while (true) {
    const next = fib[fib.length - 1] + fib[fib.length - 2];
    if (next > max) break;
    fib.push(next);
  }
  return fib;
}

console.log(fibonacci(100));
"""


async def test_sales_numbers(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(client, "execute_code_isolated", code=SALES)
    assert ran["stdout"] == "Mean: $170.00\nMedian: $180.00\nGrowth: 120.0%\n"


async def test_fibonacci(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(client, "execute_code_isolated", code=FIBONACCI, language="javascript")
    numbers = [int(word) for word in ran["stdout"].replace("[", " ").replace("]", " ").replace(",", " ").split()]
    assert numbers == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]


async def test_hello_world_has_the_fields_of_the_page(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(
            client, "execute_code_isolated", code='print("Hello, World!")', language="python", timeout=30
        )
    assert {"stdout", "stderr", "exit_code", "execution_time", "sandbox_id", "_note"} <= set(ran)
    assert (ran["stdout"], ran["stderr"], ran["exit_code"]) == ("Hello, World!\n", "", 0)


async def test_persistent_flow_with_vm_url_and_token(connect: Connect) -> None:
    async with connect() as client:
        template = await answer_of(client, "get_template", name="code-interpreter")
        sandbox = await answer_of(
            client, "create_sandbox", template_id=template["id"], timeout_seconds=3600, internet_access=False
        )
        there = {"vm_url": sandbox["direct_url"], "auth_token": sandbox["auth_token"]}
        await answer_of(client, "file_write", **there, path="/workspace/data.csv", content="a,b\n1,2\n3,4\n")
        await answer_of(client, "execute_code", **there, code="import pandas as pd")
        await answer_of(client, "execute_code", **there, code='df = pd.read_csv("data.csv")')
        shown = await answer_of(client, "execute_code", **there, code="print(df.head())")
        await answer_of(client, "file_write", **there, path="/workspace/output.txt", content="results")
        content = await answer_of(client, "file_read", **there, path="/workspace/output.txt")
        long = await answer_of(client, "execute_code_background", **there, code="print(1)", timeout=1800)
        gone = await answer_of(client, "delete_sandbox", id=sandbox["id"])
    assert shown["stdout"] == "   a  b\n0  1  2\n1  3  4\n"
    assert (shown["exit_code"], shown["sandbox_id"]) == (0, sandbox["id"])
    assert content["content"] == "results"
    assert long["status"] == "running"
    assert gone["status"] == "deleted"


async def test_secrets_travel_as_variables(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(
            client,
            "execute_code_isolated",
            code='import os; print(os.getenv("API_KEY"))',
            env={"API_KEY": "secret-123"},
        )
    assert ran["stdout"] == "secret-123\n"


@pytest.mark.parametrize(("code", "expected"), [("print('fine')", "fine\n"), ("raise ValueError('no')", "Error: ")])
async def test_always_check_the_exit_code(connect: Connect, code: str, expected: str) -> None:
    async with connect() as client:
        result = await answer_of(client, "execute_code_isolated", code=code)
    text = result["stdout"] if result.get("exit_code") == 0 else f"Error: {result.get('stderr', 'Unknown error')}"
    assert text.startswith(expected)


async def test_the_longest_timeout_of_the_page(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(client, "execute_code_isolated", code="print(1)", timeout=300)
        listed = await answer_of(client, "list_templates", limit=20)
    assert ran["exit_code"] == 0
    assert listed["count"] >= 2


async def test_very_long_tasks_send_their_result(connect: Connect, sandbox_id: str) -> None:
    with webhook_receiver() as receiver:
        async with connect() as client:
            accepted = await answer_of(
                client,
                "execute_code_async",
                sandbox_id=sandbox_id,
                code="print('done')",
                callback_url=f"{receiver.url}/hook",
                callback_headers={"X-Mine": "yes"},
            )
            delivery = receiver.wait(accepted["execution_id"])
    assert accepted["status"] == "queued"
    assert accepted["callback_url"] == f"{receiver.url}/hook"
    assert delivery.body["stdout"] == "done\n"
    assert delivery.headers["x-mine"] == "yes"


async def test_background_programs_are_listed_and_ended(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        code = await answer_of(
            client, "execute_code_background", sandbox_id=sandbox_id, code="import time; time.sleep(600)", name="job"
        )
        command = await answer_of(
            client, "run_command_background", sandbox_id=sandbox_id, command="sleep 600", name="nap"
        )
        listed = await answer_of(client, "execute_list_processes", sandbox_id=sandbox_id)
        for started in (code, command):
            killed = await answer_of(
                client, "execute_kill_process", sandbox_id=sandbox_id, process_id=started["process_id"]
            )
            assert (killed["status"], killed["process_id"]) == ("killed", started["process_id"])
        after = await answer_of(client, "execute_list_processes", sandbox_id=sandbox_id)
    assert code["process_id"].startswith("proc_")
    assert command["process_id"].startswith("cmd_")
    assert [(row["name"], row["status"]) for row in listed["processes"][:2]] == [("nap", "running"), ("job", "running")]
    assert [row["status"] for row in after["processes"][:2]] == ["killed", "killed"]


ID = "1762778786mxaco6r2"


@pytest.mark.parametrize(
    "url",
    [
        ID,
        f"http://127.0.0.1:5555/sandboxes/{ID}",
        f"https://cove.example.com/sandboxes/{ID}/",
        f"127.0.0.1:5555/sandboxes/{ID}",
        f"{ID}.sandboxes.example.com",
        f"https://7777-{ID}.sandboxes.example.com",
    ],
)
def test_addresses_of_sandboxes(url: str) -> None:
    assert sandbox_id_of(url) == ID


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "http://[",
            "http://example.com",
            f"http://h/{ID}",
            f"http://h/x/sandboxes/{ID}",
            f"http://h/sandboxes/{ID}x",
        ),
        *(f"http://h/sandboxes/{ID}/../a", f"http://h/sandboxes/{ID}/ports/80/", f"http://x{ID}.example.com", 5, None),
        *(f"http://h/?/sandboxes/{ID}", f"http://a-7777-{ID}.example.com", f"http://example.com/#{ID}"),
    ],
)
def test_addresses_of_nothing(url: object) -> None:
    with pytest.raises(ValueError, match="sandbox_id"):
        sandbox_id_of(url)


def test_older_names_become_present_ones() -> None:
    given = {"vm_url": f"http://h/sandboxes/{ID}", "auth_token": "t", "workdir": "/tmp", "code": "1"}
    assert current_names(given, sandbox="sandbox_id") == {"sandbox_id": ID, "working_dir": "/tmp", "code": "1"}
    assert current_names({"sandbox_id": ID}, sandbox="id") == {"id": ID}
    assert current_names({"id": ID, "sandbox_id": ID}, sandbox="sandbox_id") == {"sandbox_id": ID}
    assert current_names({"sandbox_id": None, "vm_url": ID}, sandbox="sandbox_id") == {"sandbox_id": ID}
    assert current_names("text", sandbox="id") == "text"


def test_names_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="vm_url and sandbox_id"):
        current_names({"sandbox_id": ID, "vm_url": "1762778786mxaco6r3"}, sandbox="sandbox_id")
    with pytest.raises(ValueError, match="workdir and working_dir"):
        current_names({"workdir": "/a", "working_dir": "/b"}, sandbox="sandbox_id")
