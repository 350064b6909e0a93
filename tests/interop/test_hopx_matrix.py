"""Rows of the matrix of calls (contract, section 11) that the other modules here do not drive."""

import asyncio
import time
from contextlib import aclosing
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer
from tests.e2e.webhook_receiver import WebhookReceiver
from tests.interop import hopx
from tests.interop.fixed_host import FixedHost
from tests.interop.javascript import JavaScript, require_javascript
from tests.interop.names import DOMAIN, FIXED_HOST

from cove.core.tokens import LIFETIME_SECONDS, AgentTokens
from cove.models.callbacks import sign

Sandbox, AsyncSandbox, errors = hopx.client.Sandbox, hopx.client.AsyncSandbox, hopx.errors
There = dict[str, Any]

SECONDS = 30.0
CONTROL_PLANE_READS = ["/health", "/v1/sandboxes", "/v1/templates", "/v1/templates/base", "/v1/executions", "/auth/me"]
AGENT_READS = [
    *("/health", "/info", "/ping", "/system", "/", "/env", "/processes", "/execute/processes", "/jupyter/sessions"),
    *("/cache/stats", "/metrics", "/metrics/snapshot", "/files/list?path=/", "/files/exists?path=/tmp"),
]
AGENT_CALLS: list[tuple[str, There]] = [
    ("/execute", {"code": "1 / 0"}),
    ("/execute/rich", {"code": "1", "working_dir": "/tmp", "capture_rich": True}),
    ("/execute/ipython", {"code": "1"}),
    ("/execute", {"code": "1", "workdir": None}),
    ("/execute/background", {"code": "1", "name": "one"}),
    ("/commands/run", {"command": "exit 3", "working_dir": "/tmp"}),
    ("/commands/run", {"command": "bash", "args": ["-c", "true"], "workdir": None}),
    ("/commands/background", {"command": "true"}),
    ("/files/write", {"path": "/workspace/w", "content": ""}),
    ("/files/mkdir", {"path": "/workspace/m"}),
    ("/cache/clear", {}),
]
APPEND = "open('/workspace/runs', 'a').write('x')"
SERVE = r"""
    await s.commands.run('mkdir -p /workspace/www && echo found > /workspace/www/found.txt');
    await s.commands.runBackground('cd /workspace/www && exec python3 -m http.server 3000');
    const asked = 'curl -fs http://127.0.0.1:3000/found.txt && break; sleep 0.02';
    await s.commands.run(`for i in $(seq 500); do ${asked}; done`);
"""


@pytest.fixture(scope="module")
def server(allowing: RunningServer) -> RunningServer:
    return allowing


@pytest.fixture(scope="module")
def there(server: RunningServer) -> There:
    return {"base_url": server.url, "api_key": hopx.KEY}


@pytest.fixture(scope="module")
def node(server: RunningServer) -> JavaScript:
    require_javascript()
    return JavaScript(server.url)


def expired_token(server: RunningServer, sandbox_id: str) -> str:
    """What the server issued so long ago that it is not valid any more."""
    key = server.data_dir / "keys" / "agent-tokens.pem"
    return AgentTokens.load(key, clock=lambda: time.time() - LIFETIME_SECONDS - 1).issue(sandbox_id).auth_token


def refreshes(server: RunningServer) -> int:
    return server.log.read_text().count("/token/refresh")


# hopx-ai, synchronous


def test_a_template_by_its_number(there: There) -> None:
    number = int(Sandbox.get_template("base", **there).id)
    with Sandbox.create(template_id=number, timeout_seconds=60, **there) as made:
        assert made.get_info().template_name == "base"


def test_expiry(sandbox: Any) -> None:
    expiry = sandbox.get_expiry_info()
    assert (expiry.has_timeout, expiry.is_expired, expiry.is_expiring_soon) == (True, False, True)
    assert 0 < expiry.time_to_expiry <= 300


def test_previews_need_a_domain(sandbox: Any) -> None:
    """The client makes them from names alone, and an address has none (contract, section 3.2)."""
    with pytest.raises(errors.HopxError, match="preview URL"):
        sandbox.get_preview_url(3000)
    with pytest.raises(errors.HopxError, match="preview URL"):
        _ = sandbox.agent_url


def test_templates_that_cannot_be_deleted(there: There) -> None:
    with pytest.raises(errors.NotFoundError):
        Sandbox.delete_template("999999", **there)
    with pytest.raises(errors.APIError, match="belongs to the server"):
        Sandbox.delete_template(Sandbox.get_template("base", **there).id, **there)


def test_an_expired_token_is_refreshed_once_and_the_code_runs_once(sandbox: Any, server: RunningServer) -> None:
    assert sandbox.run_code("print(1)").stdout == "1\n"
    sandbox._agent_client.update_jwt_token(expired_token(server, sandbox.sandbox_id))
    before = refreshes(server)
    assert sandbox.run_code(f"{APPEND}; print(2)").stdout == "2\n"
    assert sandbox.files.read("/workspace/runs") == "x"
    assert refreshes(server) == before + 1


# hopx-ai, asynchronous


@pytest.mark.anyio
async def test_an_expired_token_of_the_asynchronous_client(async_sandbox: Any, server: RunningServer) -> None:
    assert (await async_sandbox.run_code("print(1)")).stdout == "1\n"
    async_sandbox._agent_client.update_jwt_token(expired_token(server, async_sandbox.sandbox_id))
    before = refreshes(server)
    assert (await async_sandbox.run_code(f"{APPEND}; print(2)")).stdout == "2\n"
    assert await async_sandbox.files.read("/workspace/runs") == "x"
    assert refreshes(server) == before + 1


@pytest.mark.anyio
async def test_expiry_and_addresses_of_the_asynchronous_client(async_sandbox: Any) -> None:
    expiry = await async_sandbox.get_expiry_info()
    assert (expiry.has_timeout, expiry.is_expired) == (True, False)
    assert 0 < expiry.time_to_expiry <= 300
    assert await async_sandbox.is_expiring_soon()
    assert not await async_sandbox.is_expiring_soon(threshold_seconds=10)
    with pytest.raises(errors.HopxError, match="preview URL"):
        await async_sandbox.get_preview_url(3000)


@pytest.mark.anyio
async def test_the_asynchronous_client_watches_files(async_sandbox: Any) -> None:
    async def write() -> None:
        for number in range(1000):
            await async_sandbox.files.write(f"/workspace/{number}.txt", "")

    async with asyncio.timeout(SECONDS), aclosing(async_sandbox.files.watch("/workspace")) as changes:
        writing = asyncio.create_task(write())
        try:
            change = await anext(changes)
        finally:
            writing.cancel()
    assert (change["type"], change["event"]) == ("change", "created")
    assert change["path"].endswith(".txt")


@pytest.mark.anyio
async def test_kill_and_templates_of_the_asynchronous_client(there: There) -> None:
    made = await AsyncSandbox.create("base", timeout_seconds=60, **there)
    again = await AsyncSandbox.connect(made.sandbox_id, **there)
    await again.kill()
    with pytest.raises(errors.NotFoundError, match="killed"):
        await made.get_info()
    with pytest.raises(errors.NotFoundError):
        await AsyncSandbox.delete_template("999999", **there)


@pytest.mark.anyio
async def test_base64_in_files_of_the_asynchronous_client(async_sandbox: Any) -> None:
    for text in ("test", "dGVzdA==", ""):
        await async_sandbox.files.write("/workspace/text", text)
        assert await async_sandbox.files.read_bytes("/workspace/text") == text.encode()


# @hopx-ai/sdk


def test_javascript_executes_asynchronously(node: JavaScript, receiver: WebhookReceiver) -> None:
    program = """
        const s = await create();
        const answer = await s.runCodeAsync('import os; print(os.environ["A"])', {
          callbackUrl: 'URL', callbackHeaders: { 'X-Mine': 'yes' }, callbackSignatureSecret: 'hush',
          env: { A: 'one' } });
        do { await new Promise((resolve) => setTimeout(resolve, 20)); } while (!await arrived(answer.execution_id));
        return answer;
    """
    asking = """
        const fetched = async (id) => (await fetch(`${there.baseURL}/v1/executions/${id}`)).json();
        const arrived = async (id) => (await fetched(id)).status === 'completed';
    """
    answer = node.run(asking + program.replace("URL", receiver.url))
    assert (answer["status"], answer["callback_url"]) == ("queued", receiver.url)
    delivery = receiver.wait(answer["execution_id"])
    assert (delivery.body["status"], delivery.body["stdout"]) == ("completed", "one\n")
    assert delivery.headers["x-mine"] == "yes"
    assert delivery.headers["x-hopx-signature"] == sign("hush", delivery.headers["x-hopx-timestamp"], delivery.raw)


def test_javascript_refreshes_an_expired_token_once(sandbox: Any, server: RunningServer) -> None:
    require_javascript()
    expired = expired_token(server, sandbox.sandbox_id)
    before = refreshes(server)
    seen = JavaScript(server.url, ID=sandbox.sandbox_id, EXPIRED=expired).run("""
        const s = await hopx.Sandbox.connect(process.env.ID, there.apiKey, there.baseURL);
        await s.runCode('1');
        s.agentClient.updateJwtToken(process.env.EXPIRED);
        const done = await s.runCode("open('/workspace/once', 'a').write('x'); print(2)");
        const socket = new hopx.WSClient((await s.getInfo()).publicHost, process.env.EXPIRED);
        return { stdout: done.stdout, runs: await s.files.read('/workspace/once'),
                 socket: (await refused(() => socket.connect('/terminal'))).message };
    """)
    assert (seen["stdout"], seen["runs"]) == ("2\n", "x")
    assert "401" in seen["socket"]
    assert refreshes(server) == before + 2, "one by connect(), one for the token that had expired"


def test_javascript_builds_templates(node: JavaScript) -> None:
    seen = node.run(r"""
        const fs = load('fs'), os = load('os'), path = load('path');
        const context = fs.mkdtempSync(path.join(os.tmpdir(), 'context-'));
        try {
          fs.mkdirSync(path.join(context, 'app'));
          fs.writeFileSync(path.join(context, 'app', 'main.py'), "print('from the template')\n");
          const recipe = hopx.createTemplate().fromPythonImage('3.11').copy('app/', '/app/').setEnv('GREETING', 'hello')
            .setWorkdir('/app').runCmd('python3 main.py > out.txt');
          const said = [];
          const built = await hopx.Template.build(recipe, { name: 'of-javascript', contextPath: context, cpu: 1,
            memory: 512, diskGB: 1, onLog: (entry) => said.push(entry.message), ...there });
          const vm = await built.createVM({ envVars: { A: '1' } });
          const s = await hopx.Sandbox.connect(vm.vmID, there.apiKey, there.baseURL);
          const done = await s.commands.run('cat /app/out.txt; echo $GREETING $A');
          await vm.delete();
          const logs = await built.getLogs();
          const deleted = await hopx.Sandbox.deleteTemplate(built.templateID, there);
          const gone = await refused(() => hopx.Sandbox.getTemplate('of-javascript', there));
          return { said: said.join('\n'), logs, stdout: done.stdout, deleted, gone: gone.statusCode };
        } finally { fs.rmSync(context, { recursive: true }); }
    """)
    assert seen["stdout"] == "from the template\nhello 1\n"
    assert "COPY" in seen["said"]
    assert "RUN" in str(seen["logs"])
    assert seen["deleted"]
    assert seen["gone"] == 404


@pytest.fixture(scope="module")
def named(fixed_host: FixedHost) -> JavaScript:
    """Node where names below the domain lead to a server with a certificate."""
    require_javascript()
    authority = str(fixed_host.certificates.authority)
    return JavaScript(f"https://{FIXED_HOST}", fixed_host.key, NODE_EXTRA_CA_CERTS=authority)


def test_javascript_previews(named: JavaScript, fixed_host: FixedHost) -> None:
    seen = named.run(
        f"""
        const s = await create();
        {SERVE}
        const url = await s.getPreviewUrl(3000), agent = await s.agentUrl;
        const frames = [];
        for await (const frame of s.runCodeStream('print(6 * 7)')) frames.push(frame);
        return {{ id: s.sandboxId, url, agent, found: await (await fetch(new URL('found.txt', url))).text(),
                 closed: (await fetch(new URL('health', agent))).status, frames }};
        """,
        prefix=fixed_host.enter,
    )
    assert seen["url"].startswith(f"https://3000-{seen['id']}.{DOMAIN}")
    assert seen["agent"].startswith(f"https://7777-{seen['id']}.{DOMAIN}")
    assert (seen["found"], seen["closed"]) == ("found\n", 401)
    assert "".join(frame.get("data", "") for frame in seen["frames"]) == "42\n"


# @computesdk/hopx


def test_computesdk(named: JavaScript, fixed_host: FixedHost) -> None:
    seen = named.run(
        f"""
        const provider = load('@computesdk/hopx').hopx({{ ...there, timeout: 120000 }});
        const made = await provider.sandbox.create({{ envs: {{ A: 'one' }} }});
        const s = made.getInstance();
        try {{
          {SERVE}
          const options = {{ env: {{ B: 'two' }}, cwd: '/tmp' }};
          const done = await made.runCommand('printenv B; echo $A; pwd; exit 3', options);
          await made.filesystem.mkdir('/workspace/c');
          await made.filesystem.writeFile('/workspace/c/a b.txt', 'text');
          const files = [await made.filesystem.readFile('/workspace/c/a b.txt'),
                         (await made.filesystem.readdir('/workspace/c')).map((one) => one.name)];
          await made.filesystem.remove('/workspace/c');
          files.push(await made.filesystem.exists('/workspace/c'));
          const url = await made.getUrl({{ port: 3000 }});
          const found = await (await fetch(new URL('found.txt', url))).text();
          const again = await provider.sandbox.getById(made.sandboxId);
          const listed = (await provider.sandbox.list()).map((one) => one.sandboxId);
          const info = await made.getInfo();
          return {{ id: made.sandboxId, info, again: again.sandboxId, listed, done, files, found }};
        }} finally {{ await made.destroy(); }}
        """,
        prefix=fixed_host.enter,
    )
    assert (seen["done"]["stdout"], seen["done"]["exitCode"]) == ("two\none\n/tmp\n", 3)
    assert seen["files"] == ["text", ["a b.txt"], False]
    assert seen["found"] == "found\n"
    assert (seen["again"], seen["info"]["status"]) == (seen["id"], "running")
    assert seen["id"] in seen["listed"]


# what all of them take for a failure


def test_no_answer_of_a_call_that_succeeded_looks_like_an_error(sandbox: Any, there: There) -> None:
    """Clients read `error` and `status_code` at the top of a body as a failure (contract, section 9, row 38)."""
    info = sandbox.get_info()
    agent = {"Authorization": f"Bearer {sandbox.get_token()}"}
    with httpx2.Client(timeout=30, trust_env=False, verify=False) as client:
        answers = [
            *(client.get(f"{there['base_url']}{path}") for path in CONTROL_PLANE_READS),
            client.get(f"{there['base_url']}/v1/sandboxes/{sandbox.sandbox_id}"),
            *(client.get(f"{info.public_host}{path}", headers=agent) for path in AGENT_READS),
            *(client.post(f"{info.public_host}{path}", json=body, headers=agent) for path, body in AGENT_CALLS),
        ]
    for answer in answers:
        assert answer.status_code == 200, answer.url
        assert not {"error", "status_code"} & answer.json().keys(), answer.url
        assert answer.headers["X-Request-ID"], answer.url
