// The npm package `ws` against one server: clients.py runs it and judges the JSON it prints.
//     NODE_PATH=…/node_modules node npm_ws.cjs ws://127.0.0.1:8080
'use strict';
const WebSocket = require('ws');
const base = process.argv[2];

const open = (path, protocols, options) => new Promise((resolve, reject) => {
  const socket = new WebSocket(base + path, protocols, options);
  socket.arrived = [];
  socket.on('message', (data, binary) => socket.arrived.push({ data, binary }));
  socket.on('open', () => resolve(socket));
  socket.on('error', reject);
});

// A message may arrive together with the 101, so `arrived` collects from the start.
async function next(socket) {
  while (socket.arrived.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  return socket.arrived.shift();
}

async function ask(socket, data) {
  socket.send(data);
  return next(socket);
}

// The time from close() to the `close` event, and the code and reason of that event.
const hangUp = (socket, code, reason) => new Promise((resolve) => {
  const since = performance.now();
  socket.on('close', (gotCode, gotReason) => resolve({
    ms: performance.now() - since, code: gotCode, reason: gotReason.toString() }));
  socket.close(code, reason);
});

const rows = {
  'text echo': async (s) => { const m = await ask(s, 'grüß 😀'); return m.data.toString() + m.binary; },
  'binary echo': async (s) => { const m = await ask(s, Buffer.from([0, 255, 10])); return m.data.toString('hex') + m.binary; },
  'empty text': async (s) => { const m = await ask(s, ''); return m.data.length + String(m.binary); },
  'empty binary': async (s) => { const m = await ask(s, Buffer.alloc(0)); return m.data.length + String(m.binary); },
  'fragmented text': async (s) => {
    s.send('one ', { fin: false }); s.send('two ', { fin: false }); s.send('three');
    const m = await next(s); return m.data.toString() + m.binary;
  },
  'ping and pong': (s) => new Promise((resolve) => {
    s.once('pong', (data) => resolve(data.toString())); s.ping('are you there');
  }),
  'a message of 1 MiB': async (s) => { const m = await ask(s, Buffer.alloc(1 << 20, 7)); return m.data.length + String(m.binary); },
};

// Each of these opens its own connection.
const connections = {
  'the first of two subprotocols': async () => {
    const s = await open('/echo', ['superchat', 'chat']); await hangUp(s); return s.protocol;
  },
  'without compression': async () => {
    const s = await open('/echo', [], { perMessageDeflate: false });
    const m = await ask(s, 'plain'); await hangUp(s); return m.data.toString();
  },
  'foreign Origin': () => open('/echo', [], { origin: 'https://evil.example' }).then(() => '101', (e) => e.message),
  'own Origin': () => open('/echo', [], { origin: base.replace('ws', 'http') })
    .then(async (s) => { await hangUp(s); return '101'; }, (e) => e.message),
  'unknown path': () => open('/nope').then(() => '101', (e) => e.message),
  'over 1 MiB': async () => {
    const s = await open('/echo', [], { perMessageDeflate: false });
    return new Promise((resolve) => { s.on('close', (code) => resolve(String(code))); s.on('error', () => {}); s.send(Buffer.alloc((1 << 20) + 1)); });
  },
  'close 1000': async () => hangUp(await open('/echo'), 1000, 'bye'),
  'close 4999': async () => hangUp(await open('/echo'), 4999, ''),
  'close without a code': async () => hangUp(await open('/echo')),
};

(async () => {
  const results = {};
  const guard = (work) => Promise.race([work, new Promise((resolve) => setTimeout(resolve, 5000, 'nothing within 5 s'))])
    .catch((error) => `failed: ${error.message}`);
  const socket = await open('/echo');
  for (const [name, row] of Object.entries(rows)) results[name] = await guard(row(socket));
  socket.terminate();
  for (const [name, row] of Object.entries(connections)) results[name] = await guard(row());
  process.stdout.write(JSON.stringify(results), () => process.exit(0));
})().catch((error) => { console.error(error.message); process.exit(1); });
