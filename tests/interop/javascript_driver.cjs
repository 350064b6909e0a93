// Runs one test program for a JavaScript client: an async function body, read from standard input. What it returns is
// printed as one line of JSON on the descriptor ANSWER, so that what the client prints disturbs nothing.
const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');

const load = createRequire(path.join(process.env.CLIENTS, 'package.json'));
const AsyncFunction = (async () => {}).constructor;

function plain(value) {
  if (value === undefined) return null;
  return JSON.parse(JSON.stringify(value, (_, item) => (item && item.type === 'Buffer' ? { base64: Buffer.from(item.data).toString('base64') } : item)));
}

async function refused(call) {
  try {
    await call();
  } catch (error) {
    const { name, message, code, statusCode, requestId, path: file } = error;
    return { class: error.constructor.name, name, message, code, statusCode, requestId, path: file };
  }
  throw new Error('the call was not refused');
}

async function main() {
  const hopx = load('@hopx-ai/sdk');
  const there = { apiKey: process.env.KEY, baseURL: process.env.BASE_URL };
  const started = [];
  const create = async (options = {}) => {
    const sandbox = await hopx.Sandbox.create({ template: 'code-interpreter', timeoutSeconds: 120, ...there, ...options });
    started.push(sandbox);
    return sandbox;
  };
  const body = new AsyncFunction('hopx', 'there', 'create', 'refused', 'load', fs.readFileSync(0, 'utf8'));
  try {
    const value = await body(hopx, there, create, refused, load);
    fs.writeSync(Number(process.env.ANSWER), JSON.stringify({ value: plain(value) }) + '\n');
  } catch (error) {
    fs.writeSync(Number(process.env.ANSWER), JSON.stringify({ thrown: String(error.stack || error), code: error.code }) + '\n');
  } finally {
    for (const sandbox of started) await sandbox.kill().catch(() => {});
  }
  process.exit(0); // an agent of the client keeps its connections
}

main();
