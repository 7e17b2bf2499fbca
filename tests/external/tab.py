"""The page of wspulse in a tab: how checks read it, and what must hold for every tab."""

import json
import re
from urllib.parse import urlsplit

from harness import check

ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NETWORK = re.compile(r"WebSocket connection to .* failed|Failed to load resource|closed before the connection")
# Makes the page's waits as long as possible, so that checks can read what it shows between attempts.
PATIENT = "Math.random = () => 0.999;"


class Tab:
    """One tab with the page; `page` is its `browser.Page`."""

    def __init__(self, page, url):
        self.page, self.hosts = page, {urlsplit(url).netloc}

    @classmethod
    async def open(cls, browser, url, **how):
        return cls(await browser.open(url, **how), url)

    def __getattr__(self, name):
        return getattr(self.page, name)

    def phase(self, phase, budget_s=5):
        """Whether the connection's state becomes this one in time."""
        return self.until(f"$('hero').dataset.phase === '{phase}'", budget_s)

    def shows(self, name, text, budget_s=5):
        """Whether the element with this id contains the text in time."""
        return self.until(f"$('{name}').textContent.includes({json.dumps(text)})", budget_s)

    async def served(self, budget_s=5):
        """Whether it is connected and shows the pod that serves it."""
        return await self.until("link.phase === 'open' && link.served && link.served.pod === "
                                "document.querySelector('#trail li:last-child .chip')?.textContent", budget_s)

    def rows(self):
        """The log's lines as they are shown."""
        return self.run("[...document.querySelectorAll('#log > div:not([hidden])')].map((row) => row.textContent)")

    async def texts(self):
        """The log's lines without times."""
        return [re.sub(f"^{ISO} ", "", row) for row in await self.rows()]

    async def says(self, text, budget_s=5):
        """Whether the log gets a line that ends with the text in time."""
        return await self.until("[...document.querySelectorAll('#log > div')].some((row) => "
                                f"row.textContent.endsWith({json.dumps(text)}))", budget_s)

    def went(self, pattern, budget_s=15):
        """Whether the trail matches the pattern in time."""
        return self.until(f"/^{pattern}$/.test($('trail').textContent)", budget_s)

    async def send(self, text):
        await self.fill("#message", text)
        await self.click("#send button.primary")

    async def connect(self, path):
        await self.fill("#path", path)
        await self.click("#target button.primary")

    async def behaved(self, what, may_fail=False):
        """No error, no console output except network errors if `may_fail`, no request to another host."""
        seen = await self.ask("seen")
        check(f"{what}: no script error, no dialog", not seen["errors"] and not seen["dialogs"], seen["errors"] or "a dialog")
        lines = [line for line in seen["console"] if not (may_fail and NETWORK.search(line))]
        check(f"{what}: nothing on the console", not lines, lines)
        foreign = [url for url in seen["requests"]
                   if not url.startswith(("data:", "blob:")) and urlsplit(url).netloc not in self.hosts]
        check(f"{what}: no request to another host", not foreign and seen["requests"], foreign)
        await self.close()
