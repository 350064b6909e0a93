// The JavaScript interpreter of a sandbox. It takes calls over descriptor 3 (frames of a 4-byte big-endian length and
// a JSON object, see frames.py) and runs them one after the other in this one process.
//
// Code is evaluated as the consoles of browsers do it (Runtime.evaluate with replMode): top-level await works, and
// variables, constants and classes survive and may be declared again. A call ends when nothing is left that would keep
// `node script.js` alive, except listening servers, which go on in the background. A call that is marked as a script has
// the process for itself and lasts as long as `node script.js` would.
'use strict';

const inspector = require('node:inspector');
const { createRequire } = require('node:module');
const net = require('node:net');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const util = require('node:util');

const IMPORT_NAME = '__cove_import__';
const RESULT_NAME = '__cove_result__';
const POLL_MILLISECONDS = [1, 1, 2, 2, 5, 5, 10];
// Resources that do not keep a call open.
const BACKGROUND = new Set(['TCPServerWrap', 'PipeServerWrap', 'SignalWrap']);
const OWN_FILE = __filename;

const control = new net.Socket({ fd: 3, readable: true, writable: true });
const session = new inspector.Session();
session.connect();

let call = null;
let count = 0;
let applied = { ...process.env };
let pending = Buffer.alloc(0);

function send(message) {
  const body = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  control.write(Buffer.concat([head, body]));
}

control.on('data', (chunk) => {
  pending = pending.length ? Buffer.concat([pending, chunk]) : chunk;
  while (pending.length >= 4) {
    const end = 4 + pending.readUInt32BE(0);
    if (pending.length < end) return;
    const request = JSON.parse(pending.subarray(4, end).toString());
    pending = pending.subarray(end);
    run(request);
  }
});
control.on('end', () => process.reallyExit(0));
control.on('error', () => process.reallyExit(0));

// The environment ----------------------------------------------------------------------------------------------------

function updateEnvironment(variables) {
  for (const [name, value] of Object.entries(variables)) {
    if (applied[name] !== value) process.env[name] = value;
  }
  for (const name of Object.keys(applied)) {
    if (!(name in variables)) delete process.env[name];
  }
  applied = { ...variables };
}

function overlay(variables) {
  const before = Object.keys(variables).map((name) => [name, process.env[name]]);
  Object.assign(process.env, variables);
  return () => {
    for (const [name, value] of before) {
      if (process.env[name] !== variables[name]) continue;
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  };
}

function enter(workdir) {
  if (!workdir) return () => {};
  const before = process.cwd();
  process.chdir(workdir);
  return () => {
    try {
      process.chdir(before);
    } catch {
      process.chdir('/');
    }
  };
}

// Calls --------------------------------------------------------------------------------------------------------------

function run(request) {
  const current = { exitCode: 0, result: null, settled: false, over: false, undo: [], limit: request.result_limit };
  call = current;
  count += 1;
  try {
    if (request.environment) updateEnvironment(request.environment);
    current.undo.push(overlay(request.variables), enter(request.workdir));
  } catch (problem) {
    fail(current, problem);
    finish(current);
    return;
  }
  if (request.script) endWithProcess(current);
  evaluate(request.code, `cell-${count}.js`, current);
}

// The end of a script is when Node.js itself finds nothing left to wait for.
function endWithProcess(current) {
  current.script = true;
  control.unref();
  process.on('beforeExit', () => {
    if (!current.settled && !current.over) {
      current.exitCode = 13; // as Node.js does (https://nodejs.org/api/process.html#exit-codes)
      process.stderr.write('Warning: Detected unsettled top-level await\n');
    }
    finish(current);
  });
}

function evaluate(code, name, current) {
  const prepared = redirectImports(code);
  post(prepared, name, (answer) => {
    if (isImportStatementError(answer)) {
      post(redirectImports(rewriteImportStatements(code)), name, (second) => settle(second, current));
    } else {
      settle(answer, current);
    }
  });
  if (!current.script) watch(current, 0);
}

function post(code, name, done) {
  const parameters = { expression: `${code}\n//# sourceURL=${name}`, replMode: true, awaitPromise: true };
  session.post('Runtime.evaluate', parameters, (problem, answer) => done(problem ? { problem } : answer));
}

function isImportStatementError(answer) {
  const thrown = answer.exceptionDetails?.exception?.description ?? '';
  return thrown.startsWith('SyntaxError: Cannot use import statement outside a module');
}

function settle(answer, current) {
  current.settled = true;
  if (current.over) return;
  if (answer.problem) fail(current, new Error(answer.problem.message));
  else if (answer.exceptionDetails) fail(current, valueOf(answer.exceptionDetails.exception), answer.exceptionDetails);
  else keepResult(valueOf(answer.result), current);
  if (current.script && current.exitCode !== 0) finish(current);
}

function keepResult(value, current) {
  if (util.types.isPromise(value)) {
    // The value of `main()` is what it comes to; a promise that is never kept does not hold the call open.
    current.result = 'Promise { <pending> }';
    value.then(
      (kept) => keepResult(kept, current),
      (problem) => {
        current.result = null;
        if (!current.over) fail(current, problem);
      },
    );
    return;
  }
  const isTimer = /^(Timeout|Immediate)$/.test(value?.constructor?.name ?? '');
  current.result = isTimer ? null : describe(value, current.limit);
}

// The object itself behind the inspector's description of it.
function valueOf(remote) {
  if (!remote || remote.type === 'undefined') return undefined;
  if (remote.objectId === undefined && remote.unserializableValue === undefined) {
    return remote.subtype === 'null' ? null : remote.value;
  }
  if (remote.objectId === undefined) {
    return remote.type === 'bigint' ? BigInt(remote.unserializableValue.slice(0, -1)) : Number(remote.unserializableValue);
  }
  session.post('Runtime.callFunctionOn', {
    objectId: remote.objectId,
    functionDeclaration: `function () { globalThis.${RESULT_NAME}(this); }`,
  });
  session.post('Runtime.releaseObject', { objectId: remote.objectId });
  const value = stashed;
  stashed = undefined;
  return value;
}

let stashed;

function describe(value, limit) {
  if (value === undefined) return null;
  try {
    const text = typeof value === 'string' ? value : util.inspect(value, { depth: 4, maxArrayLength: 200 });
    return text.slice(0, limit);
  } catch (problem) {
    return `[cannot be shown: ${problem}]`;
  }
}

function fail(current, problem, details) {
  current.exitCode = 1;
  process.stderr.write(errorText(problem, details) + '\n');
}

function errorText(problem, details) {
  if (!util.types.isNativeError(problem)) return `Uncaught ${util.inspect(problem)}`;
  const place = details?.scriptId && problem instanceof SyntaxError ? `cell-${count}.js:${details.lineNumber + 1}\n` : '';
  return place + stackText(problem, 0);
}

function stackText(problem, depth) {
  const lines = String(problem.stack ?? problem).split('\n');
  let text = lines.filter((line) => !/^\s+at /.test(line) || isUsers(line)).join('\n');
  const { stack: _, cause: __, ...properties } = problem;
  if (Object.keys(properties).length) text += ` ${util.inspect(properties)}`;
  if (problem.cause === undefined || depth > 5) return text;
  const cause = util.types.isNativeError(problem.cause) ? stackText(problem.cause, depth + 1) : util.inspect(problem.cause);
  return `${text}\n[cause]: ${cause}`;
}

function isUsers(line) {
  return !line.includes(OWN_FILE) && !/\(?node:/.test(line) && !/at <anonymous>$/.test(line);
}

// A call is over when its code has ended and nothing of it is left to wait for.
function watch(current, attempt) {
  if (current.over) return;
  if (current.settled && (current.exitCode !== 0 || isIdle())) {
    finish(current);
    return;
  }
  const pause = POLL_MILLISECONDS[Math.min(attempt, POLL_MILLISECONDS.length - 1)];
  const again = () => watch(current, attempt + 1);
  if (attempt === 0) setImmediate(again).unref();
  else setTimeout(again, pause).unref();
}

function isIdle() {
  let streams = 0;
  for (const kind of process.getActiveResourcesInfo()) {
    if (kind === 'PipeWrap' || kind === 'TCPSocketWrap') streams += 1;
    else if (!BACKGROUND.has(kind)) return false;
  }
  return streams <= process._getActiveHandles().filter(isBackgroundStream).length;
}

// The control channel, the standard streams, and connections that a server in the background has accepted.
function isBackgroundStream(handle) {
  if (!(handle instanceof net.Socket)) return false;
  return handle === control || handle === process.stdout || handle === process.stderr || Boolean(handle.server);
}

function finish(current) {
  if (current.over) return;
  current.over = true;
  for (const undo of current.undo.reverse()) undo();
  if (call === current) call = null;
  send({ kind: 'finished', exit_code: current.exitCode, result: current.result });
}

// An error that nobody catches ends the call, as it would end `node script.js`; the interpreter stays.
function onUncaught(problem) {
  if (call === null) return;
  fail(call, problem);
  call.settled = true;
  finish(call);
}
process.on('uncaughtException', onUncaught);
process.on('unhandledRejection', onUncaught);

// Imports ------------------------------------------------------------------------------------------------------------

// Evaluated text has no module of its own, so `import(...)` is turned into a call of ours, outside of strings,
// comments and templates' text.
function redirectImports(code) {
  if (!code.includes('import')) return code;
  const token =
    /\/\/[^\n]*|\/\*[^]*?\*\/|'(?:\\[^]|[^'\\\n])*'|"(?:\\[^]|[^"\\\n])*"|`(?:\\[^]|[^`\\])*`|(?<![\w$.])import(?=\s*\()/g;
  return code.replace(token, (match) => (match === 'import' ? IMPORT_NAME : match));
}

// `import a, { b as c } from 'd'` as `const`, for code that was written as a module.
function rewriteImportStatements(code) {
  const statement = /^([ \t]*)import\s+(?:([\w$*{}\s,]+?)\s+from\s+)?(['"])([^'"\n]+)\3[ \t]*;?/gm;
  return code
    .replace(statement, (_, indent, clause, __, name) => `${indent}${importStatement(clause, JSON.stringify(name))}`)
    .replace(/^export\s+default\s+/gm, '')
    .replace(/^export\s+(?=(?:const|let|var|function|class|async)\b)/gm, '');
}

function importStatement(clause, name) {
  if (clause === undefined) return `await import(${name});`;
  const module = `(await import(${name}))`;
  const parts = [];
  const named = clause.match(/\{([^]*)\}/);
  const rest = clause.replace(/\{[^]*\}/, '').split(',').map((part) => part.trim()).filter(Boolean);
  for (const part of rest) {
    if (part.startsWith('*')) parts.push(`${part.replace(/^\*\s*as\s+/, '')} = ${module}`);
    else parts.push(`${part} = ${module}.default`);
  }
  if (named) parts.push(`{${named[1].replace(/([\w$]+)\s+as\s+/g, '$1: ')}} = ${module}`);
  return `var ${parts.join(', ')};`;
}

function resolveFrom(directory, specifier) {
  if (/^\.{0,2}\//.test(specifier)) return pathToFileURL(path.resolve(directory, specifier)).href;
  if (/^[a-z]+:/.test(specifier)) return specifier;
  try {
    const found = createRequire(path.join(directory, 'cell.js')).resolve(specifier);
    return path.isAbsolute(found) ? pathToFileURL(found).href : found;
  } catch {
    return specifier; // a package that only has exports for `import`
  }
}

function hide(name, value) {
  Object.defineProperty(globalThis, name, { value, enumerable: false, configurable: true, writable: true });
}

hide(IMPORT_NAME, (specifier, options) => import(resolveFrom(process.cwd(), String(specifier)), options));
hide(RESULT_NAME, (value) => {
  stashed = value;
});
const requireHere = createRequire(path.join(process.cwd(), 'cell.js'));
hide('require', requireHere);
hide('module', { exports: {} });
hide('exports', {});
hide('__dirname', process.cwd());
hide('__filename', path.join(process.cwd(), 'cell.js'));
