"""Chromium for a check: Debian's, driven by playwright-core from npm through `browser.cjs`.

It reads a page by JavaScript expressions and uses mouse and keyboard; it knows nothing of wspulse.
"""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import harness
import tools

CHROMIUM = "/usr/bin/chromium"
ANSWER_BYTES_MAX = 16 << 20


def install():
    """Chromium from apt, playwright-core and axe-core from npm; returns the folder that holds `node_modules`."""
    if shutil.which(CHROMIUM) is None:
        tools.carry_out(["apt-get", "update"])
        tools.carry_out(["apt-get", "install", "--yes", "--no-install-recommends", "chromium"])
    return tools.npm(["playwright-core@1", "axe-core@4"], "browser")


class Browser:
    """One Chromium; commands may overlap, and answers are matched to them by id."""

    def __init__(self, modules):
        self.modules, self.numbers, self.waiting = modules, itertools.count(), {}

    async def __aenter__(self):
        self.process = harness.launch(
            ["node", Path(__file__).with_name("browser.cjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"NODE_PATH": str(self.modules / "node_modules")})
        reader = asyncio.StreamReader(limit=ANSWER_BYTES_MAX)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self.process.stdout)
        self.listener = asyncio.create_task(self._listen(reader))
        self.version = await self.ask("launch", path=CHROMIUM)
        return self

    async def __aexit__(self, *_):
        self.process.stdin.close()
        await asyncio.to_thread(self.process.wait, 10)
        self.listener.cancel()

    async def _listen(self, reader):
        while line := await reader.readline():
            answer = json.loads(line)
            asked = self.waiting.pop(answer["id"])
            if asked.cancelled():
                continue
            if "error" in answer:
                asked.set_exception(RuntimeError(answer["error"]))
            else:
                asked.set_result(answer.get("value"))
        for asked in self.waiting.values():
            asked.cancel()

    async def ask(self, do, **words):
        number = next(self.numbers)
        self.waiting[number] = answer = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps({"id": number, "do": do, **words}).encode() + b"\n")
        self.process.stdin.flush()
        return await answer

    async def open(self, url, **how):
        return Page(self, await self.ask("open", url=url, **how))


class Page:
    """One tab with its own profile."""

    def __init__(self, browser, number):
        self.browser, self.number = browser, number

    def ask(self, do, **words):
        return self.browser.ask(do, page=self.number, **words)

    def run(self, script):
        """The value of a JavaScript expression."""
        return self.ask("run", script=script)

    def until(self, script, budget_s=5):
        """Whether the expression became true in time."""
        return self.ask("until", script=script, ms=budget_s * 1000)

    def text(self, name):
        """The text of the element with this id."""
        return self.run(f"document.getElementById('{name}').textContent")

    def click(self, selector):
        return self.ask("click", selector=selector)

    def fill(self, selector, value):
        return self.ask("fill", selector=selector, value=value)

    async def press(self, *keys):
        for key in keys:
            await self.ask("press", keys=key)

    async def shot(self, path, full=True):
        return await self.ask("shot", path=str(path), full=full)

    async def close(self):
        await self.ask("close")
