#!/usr/bin/env -S python3 -B
"""The page in Chromium: each of its parts, and its behaviour when servers go away.

    tests/external/page.py

Debian's chromium, driven by playwright-core; axe-core checks its accessibility. Screenshots go
to a temporary folder or to $WSPULSE_SHOTS, to be reviewed by hand.
"""

import asyncio
import os
import tempfile
import traceback
from pathlib import Path

import browser as chromium
import tools

MODULES = chromium.install()
tools.install_only()

import harness
import page_check
import page_faults
import page_feed
import page_gateway
import page_looks
import page_parts
from harness import Server, check, equal

IDENTITY = {"POD_NAME": "pod-7", "NODE_NAME": "node-3", "ZONE": "zone-b", "POD_NAMESPACE": "demo"}


async def group(run, *args):
    """One group of checks. The browser can be slow on a busy machine, so a group that fails is run once
    more. An exception is one failed check, and the other groups still run."""
    with harness.FirstTry() as first:
        await asyncio.wait_for(run(*args), 60)
    if first.held:
        return
    try:
        await asyncio.wait_for(run(*args), 60)
    except Exception as error:  # any error: the other groups still run
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if "page_" in frame.filename]
        check(f"{run.__name__} runs to its end", False, f"{type(error).__name__}: {error} (lines {lines})")


async def everything(shots):
    async with chromium.Browser(MODULES) as browser:
        print(f"# Chromium {browser.version}", flush=True)
        with Server(env=IDENTITY) as server:
            await group(page_looks.burst, browser, server)
            # In parallel, since these groups mostly wait.
            await asyncio.gather(
                group(page_faults.drained, browser, shots), group(page_faults.restarted, browser),
                group(page_faults.refused, browser),
                group(page_faults.two_pods, browser, shots), group(page_parts.round_trip, browser, server))
            await asyncio.gather(
                group(page_check.cut, browser, server, shots), group(page_check.hole, browser, server),
                group(page_check.old, browser, server), group(page_check.stopped, browser, server),
                group(page_check.refused, browser), group(page_check.spoiled, browser, server, shots))
            await asyncio.gather(
                group(page_parts.connection, browser, server), group(page_parts.log, browser, server),
                group(page_parts.sending, browser, server), group(page_faults.patient, browser), group(page_faults.hops, browser))
            await asyncio.gather(
                group(page_faults.hostile, browser), group(page_looks.prefixes, browser),
                group(page_looks.behind_https, browser, server), group(page_looks.keyboard, browser, server))
            # The clipboard is shared: only one group at a time may copy.
            await asyncio.gather(group(page_parts.many, browser, server), group(page_looks.motion, browser, server),
                                 group(page_parts.commands, browser, server))
            await asyncio.gather(group(page_feed.deployments, browser, shots), group(page_feed.stale, browser, shots),
                                 group(page_feed.unavailable, browser), group(page_feed.kinds, browser, shots))
            await asyncio.gather(group(page_gateway.gateway, browser, shots), group(page_gateway.none, browser, server))
            await group(page_check.sound, browser, server, shots)
            await group(page_looks.views, browser, server, shots)
            equal("the server is still up", server.process.poll(), None)


def main():
    harness.require_binary()
    shots = Path(os.environ.get("WSPULSE_SHOTS") or tempfile.mkdtemp(prefix="wspulse-page-"))
    shots.mkdir(parents=True, exist_ok=True)
    asyncio.run(everything(shots))
    print(f"# screenshots: {shots}", flush=True)
    harness.finish()


main()
