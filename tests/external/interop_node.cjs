// One WebSocket of the npm package `ws` or `undici`: interop.py runs it and judges the JSON it prints.
//     NODE_PATH=…/node_modules node interop_node.cjs ws|undici ws://127.0.0.1:8080/echo
'use strict';
const [, , library, url] = process.argv;
const WebSocket = library === 'ws' ? require('ws') : require('undici').WebSocket;

const socket = new WebSocket(url);
socket.binaryType = 'arraybuffer';
const text = 'compressible '.repeat(2000);
const result = { extensions: '', text: false, binary: false, version: require(`${library}/package.json`).version };
socket.addEventListener('open', () => {
  result.extensions = socket.extensions;
  socket.send(text);
});
socket.addEventListener('message', ({ data }) => {
  if (typeof data === 'string') {
    result.text = data === text;
    socket.send(Buffer.alloc(100000, 7));
  } else {
    result.binary = Buffer.from(data).equals(Buffer.alloc(100000, 7));
    socket.close(4001, 'later');
  }
});
socket.addEventListener('close', ({ code, reason }) => {
  console.log(JSON.stringify({ ...result, code, reason }));
});
socket.addEventListener('error', (event) => { result.error = String(event.message || event.error); });
