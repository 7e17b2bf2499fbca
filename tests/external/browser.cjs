// Runs Chromium for browser.py, which writes one JSON line per command and reads one per answer.
//     NODE_PATH=…/node_modules node browser.cjs
'use strict';
const fs = require('fs');
const readline = require('readline');
const { chromium } = require('playwright-core');

const ARGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  // Several pages are open at once, and background pages must not be throttled.
  '--disable-renderer-backgrounding', '--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows'];
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const pages = new Map();
let browser;

// Records errors, console output, requests and dialogs of a page; the test checks them at its end.
function watch(page) {
  const seen = { errors: [], console: [], requests: [], dialogs: 0 };
  page.on('pageerror', (error) => seen.errors.push(String(error.stack || error)));
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) seen.console.push(message.text()); });
  page.on('request', (request) => seen.requests.push(request.url()));
  page.on('websocket', (socket) => seen.requests.push(socket.url()));
  page.on('dialog', (dialog) => { seen.dialogs++; dialog.dismiss(); });
  return seen;
}

async function open({ url, width = 1280, height = 900, dark = false, still = false, clock = false, init }) {
  const context = await browser.newContext({
    viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', reducedMotion: still ? 'reduce' : 'no-preference',
    deviceScaleFactor: width < 500 ? 2 : 1, hasTouch: width < 500, ignoreHTTPSErrors: true, acceptDownloads: true,
    permissions: ['clipboard-read', 'clipboard-write'],
  });
  const page = await context.newPage();
  page.setDefaultTimeout(10000);
  const seen = watch(page);
  if (clock) await page.clock.install();
  if (init) await page.addInitScript(init);
  const name = pages.size;
  pages.set(name, { page, seen });
  await page.goto(url);
  return name;
}

const COMMANDS = {
  run: (page, { script }) => page.evaluate(script),
  // Polls from here: playwright's own wait runs code that the page's policy forbids.
  async until(page, { script, ms }) {
    const end = performance.now() + ms;
    while (performance.now() < end) {
      if (await page.evaluate(`Boolean(${script})`)) return true;
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
    return false;
  },
  click: (page, { selector }) => page.click(selector),
  fill: (page, { selector, value }) => page.fill(selector, value),
  press: (page, { keys }) => page.keyboard.press(keys),
  type: (page, { text }) => page.keyboard.type(text),
  file: (page, { selector, bytes }) => page.setInputFiles(selector, {
    name: 'bytes.bin', mimeType: 'application/octet-stream', buffer: Buffer.from(bytes, 'hex') }),
  forward: (page, { ms }) => page.clock.fastForward(ms),
  shot: (page, { path, full }) => page.screenshot({ path, fullPage: full }).then(() => path),
  async download(page, { selector }) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.click(selector)]);
    return { name: download.suggestedFilename(), text: fs.readFileSync(await download.path(), 'utf8') };
  },
  async axe(page) {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate('axe.run()');
    return violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.map((node) => node.html.slice(0, 120)) }));
  },
};

async function carryOut(order) {
  if (order.do === 'launch') {
    browser = await chromium.launch({ executablePath: order.path, args: ARGS });
    return browser.version();
  }
  if (order.do === 'open') return open(order);
  const { page, seen } = pages.get(order.page);
  if (order.do === 'seen') return seen;
  if (order.do === 'close') return page.context().close();
  return COMMANDS[order.do](page, order);
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const order = JSON.parse(line);
  const answer = await carryOut(order).then((value) => ({ value }), (error) => ({ error: error.message.split('\n')[0] }));
  process.stdout.write(JSON.stringify({ id: order.id, ...answer }) + '\n');
}).on('close', () => (browser ? browser.close() : Promise.resolve()).finally(() => process.exit(0)));
