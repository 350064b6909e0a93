"""`@hopx-ai/sdk`: sandboxes, code, files, commands, environment."""

import base64

import pytest
from tests.e2e.running_server import RunningServer
from tests.interop.javascript import JavaScript, require_javascript


@pytest.fixture(scope="module")
def node(server: RunningServer) -> JavaScript:
    require_javascript()
    return JavaScript(server.url)


def test_lifecycle(node: JavaScript) -> None:
    seen = node.run("""
        const { Sandbox } = hopx;
        const s = await create({ timeoutSeconds: 90, envVars: { A: '1' } });
        const first = await s.getInfo();
        const variable = await s.env.get('A');
        await s.setTimeout(500);
        const left = await s.getTimeToExpiry();
        const expiry = await s.getExpiryInfo();
        await s.pause(); const paused = (await s.getInfo()).status;
        await s.resume(); const resumed = (await s.getInfo()).status;
        await s.refreshToken();
        const again = await Sandbox.connect(s.sandboxId, there.apiKey, there.baseURL);
        const printed = (await again.runCode('print(1)')).stdout;
        const listed = (await Sandbox.list({ status: 'running', ...there })).map((one) => one.sandboxId);
        const iterated = [];
        for await (const one of Sandbox.iter(there)) iterated.push(one.sandboxId);
        await s.ensureHealthy();
        const healthy = [await s.isHealthy(), (await Sandbox.healthCheck(there.baseURL)).status];
        await s.kill();
        const gone = await refused(() => s.getInfo());
        return { id: s.sandboxId, first, variable, left, expiry, paused, resumed, printed, listed, iterated, healthy,
                 token: (await again.getToken().catch(() => 'none')).length > 0, gone };
    """)
    assert (seen["first"]["status"], seen["variable"], seen["printed"]) == ("running", "1", "1\n")
    assert 480 < seen["left"] <= 500
    assert (seen["paused"], seen["resumed"]) == ("paused", "running")
    assert seen["id"] in seen["listed"]
    assert seen["id"] in seen["iterated"]
    assert seen["healthy"] == [True, "healthy"]
    assert seen["gone"]["class"] == "SandboxExpiredError", seen["gone"]


def test_templates(node: JavaScript) -> None:
    seen = node.run("""
        const names = (await hopx.Sandbox.listTemplates(there)).map((one) => one.name);
        const one = await hopx.Sandbox.getTemplate('code-interpreter', there);
        const byId = await create({ template: undefined, templateId: one.id });
        return { names, one, created: (await byId.getInfo()).templateName ?? (await byId.getInfo()).template_name };
    """)
    assert {"base", "code-interpreter"} <= set(seen["names"])
    assert seen["one"]["name"] == "code-interpreter"
    assert seen["created"] == "code-interpreter"


def test_code(node: JavaScript) -> None:
    seen = node.run(r"""
        const s = await create();
        const plot = await s.runCode('import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()');
        const results = {};
        for (const [language, code] of [['python', 'print(1 + 1)'], ['javascript', 'console.log(1 + 1)'],
                                        ['bash', 'echo $((1 + 1))']])
          results[language] = (await s.runCode(code, { language })).stdout;
        await s.runCode('x = 20');
        const kept = await s.runIpython('print(x + 1)');
        const failed = await s.runCode('import sys; sys.exit(3)');
        const late = await s.runCode('import time; time.sleep(60)', { timeout: 1 });
        const own = await s.runCode('import os; print(os.environ["B"])', { env: { B: '2' } });
        return { png: plot.png, rich: plot.richCount, results, kept: kept.stdout,
                 failed: [failed.exit_code, failed.success], late: [late.exit_code, late.success], own: own.stdout };
    """)
    assert base64.b64decode(seen["png"]).startswith(b"\x89PNG")
    assert seen["rich"] >= 1
    assert seen["results"] == {"python": "2\n", "javascript": "2\n", "bash": "2\n"}
    assert seen["kept"] == "21\n"
    assert seen["failed"] == [3, False]
    assert seen["late"] == [124, False]
    assert seen["own"].split()[0] == "2"


def test_files(node: JavaScript) -> None:
    seen = node.run(r"""
        const fs = load('fs'), os = load('os'), path = load('path');
        const s = await create();
        const odd = '/workspace/a b&c#d+e%f \u{1F600}.txt';
        await s.files.write(odd, 'h\u00e4llo\n');
        await s.files.writeBytes('/workspace/b.bin', Buffer.from([0, 255, 1, 254]));
        await s.files.write('/workspace/canonical.txt', 'test');
        await s.files.mkdir('/workspace/deep/er');
        const local = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'up-')), 'up.bin');
        fs.writeFileSync(local, Buffer.alloc(3000000, 7));
        await s.files.upload(local, '/workspace/deep/er/up.bin');
        fs.rmSync(path.dirname(local), { recursive: true });
        const down = await s.files.download('/workspace/deep/er/up.bin');
        const kinds = (one) => [one.name, one.is_dir ?? one.isDir, typeof one.modified];
        const listed = (await s.files.list('/workspace')).map(kinds);
        const bytes = (await s.files.readBytes('/workspace/b.bin')).toString('hex');
        const seen = { text: await s.files.read(odd), bytes,
                       canonical: (await s.files.readBytes('/workspace/canonical.txt')).toString(), listed,
                       down: [down.length, down.every((byte) => byte === 7)], exists: await s.files.exists(odd) };
        await s.files.remove(odd);
        seen.removed = await s.files.exists(odd);
        seen.missing = await refused(() => s.files.read('/workspace/none'));
        return seen;
    """)
    assert (seen["text"], seen["bytes"], seen["canonical"]) == ("hällo\n", "00ff01fe", "test")
    assert seen["down"] == [3_000_000, True]
    assert (seen["exists"], seen["removed"]) == (True, False)
    assert ["deep", True, "string"] in seen["listed"]
    assert seen["missing"]["class"] == "FileNotFoundError"
    assert seen["missing"]["path"] == "/workspace/none"


def test_commands_and_environment(node: JavaScript) -> None:
    seen = node.run("""
        const s = await create();
        const done = await s.commands.run('echo out; echo err >&2; exit 4', { workingDir: '/tmp', env: { Q: '1' } });
        await s.env.setAll({ A: '1', B: '2' });
        await s.env.set('C', '3');
        await s.env.update({ B: '4' });
        await s.env.delete('A');
        const inside = await s.runCode('import os; print(os.environ["B"], os.environ["C"], "A" in os.environ)');
        const cache = [await s.cache.stats(), await s.cache.clear()];
        return { done, all: await s.env.getAll(), inside: inside.stdout, cache };
    """)
    assert [seen["done"][name] for name in ("stdout", "stderr", "exit_code")] == ["out\n", "err\n", 4]
    assert seen["all"] == {"B": "4", "C": "3"}
    assert seen["inside"] == "4 3 False\n"
    assert seen["cache"][1]["success"] is True


def test_what_the_agent_says(node: JavaScript) -> None:
    seen = node.run("""
        const s = await create();
        await s.runCode('1');
        return { health: await s.getHealth(), info: await s.getAgentInfo(), snapshot: await s.getMetricsSnapshot(),
                 metrics: await s.getAgentMetrics(), system: await s.listSystemProcesses(),
                 kernels: await s.getJupyterSessions() };
    """)
    assert seen["health"]["status"] == "healthy"
    assert seen["info"]["agent"] == "cove-agent"
    assert seen["snapshot"]["total_executions"] >= 1
    assert seen["metrics"]["system"]["cpu"]["cores"] >= 1
    assert seen["system"][0]["pid"] >= 1
    assert len(seen["kernels"]) == 1


def test_background_programs(node: JavaScript) -> None:
    seen = node.run("""
        const s = await create();
        const started = await s.runCodeBackground('import time; time.sleep(600)', { name: 'long' });
        const listed = await s.listProcesses();
        await s.killProcess(started.process_id);
        let after;
        do { after = (await s.listProcesses()).find((one) => one.process_id === started.process_id); }
        while (after.status === 'running');
        const command = await s.commands.runBackground('sleep 600');
        const other = await s.commands.run('sleep 600', { background: true });
        return { started, listed, after, command, other, unknown: await refused(() => s.killProcess('proc_none')) };
    """)
    assert seen["started"]["process_id"].startswith("proc_")
    assert [(one["name"], one["status"]) for one in seen["listed"]] == [("long", "running")]
    assert seen["after"]["status"] == "killed"
    assert "cmd_" in str(seen["command"])
    assert "cmd_" in str(seen["other"])
    assert seen["unknown"]["code"] == "PROCESS_NOT_FOUND"


def test_streams(node: JavaScript) -> None:
    seen = node.run(r"""
        const s = await create();
        const frames = [];
        const code = 'import sys\nfor i in range(40):\n    print(i, flush=True)\nprint("e", file=sys.stderr)';
        for await (const frame of s.runCodeStream(code)) frames.push(frame);
        return frames;
    """)
    assert "".join(one["data"] for one in seen if one["type"] == "stdout") == "".join(f"{i}\n" for i in range(40))
    assert [one["type"] for one in seen][-2:] == ["result", "complete"]
    assert "".join(one["data"] for one in seen if one["type"] == "stderr") == "e\n"


def test_a_terminal(node: JavaScript) -> None:
    seen = node.run(r"""
        const s = await create();
        const socket = await s.terminal.connect();
        const frames = [];
        const ended = new Promise((resolve) => socket.on('message', (data) => {
          const frame = JSON.parse(data.toString());
          frames.push(frame);
          if (frame.type === 'exit') resolve();
        }));
        s.terminal.resize(socket, 100, 31);
        s.terminal.sendInput(socket, 'stty size; exit 7\n');
        await ended;
        return frames;
    """)
    assert "31 100" in "".join(one["data"] for one in seen if one["type"] == "output")
    assert seen[-1] == {"type": "exit", "code": 7}


def test_watching_files(node: JavaScript) -> None:
    seen = node.run("""
        const s = await create();
        const changes = s.watchFiles('/workspace');
        const next = changes.next();
        let found = null;
        const writing = (async () => {
          while (!found) { await s.files.write('/workspace/seen.txt', String(Math.random())); }
        })();
        found = (await next).value;
        await writing;
        return found;
    """)
    assert (seen["type"], seen["path"]) == ("change", "/workspace/seen.txt")


def test_no_desktop(node: JavaScript) -> None:
    seen = node.run("""
        const s = await create();
        return await refused(() => s.desktop.startVnc());
    """)
    assert seen["class"] == "DesktopNotAvailableError"


def test_a_wrong_key(keyed_server: RunningServer) -> None:
    require_javascript()
    seen = JavaScript(keyed_server.url, key="hopx_live_wrong").run("return await refused(() => create());")
    assert seen["class"] == "AuthenticationError"
    assert seen["requestId"]


@pytest.mark.parametrize("call", ["create({ template: 'none-such' })", "hopx.Sandbox.getTemplate('none-such', there)"])
def test_unknown_names(node: JavaScript, call: str) -> None:
    seen = node.run(f"return await refused(() => {call});")
    assert seen["statusCode"] == 404, seen
