"""The page's card "Check this path": a path without faults, and faults that it must name."""

import asyncio
import json
import re
import shlex

from forwarder import Forwarder
from harness import SCRATCH, Server, check, equal, wspulse
from page_looks import OVERFLOW
from tab import Tab

PHONE = {"width": 390, "height": 844}
ROWS = "[...document.querySelectorAll('#checks li')].map((row) => [...row.children].map((cell) => cell.textContent))"
IDS = "check.found.map(({ id }) => id)"
GOOD = [["upgrade", "ok", "a wspulse answers"], ["timing", "ok", "messages sent every 100 ms arrive every 100 ms"],
        ["frames", "ok", "0 bytes to 64 KiB, text and binary, arrive as sent"],
        ["compression", "ok", "agreed on and works, to the server"],
        ["close", "ok", "codes and reasons arrive, in both directions"],
        ["spread", "ok", "16 sockets at once, all on one server"], ["age", "ok", "a busy socket stayed open for 2.0 s"],
        ["idle", "ok", "silence of 2.0 s is tolerated"]]
# The same faults as a path would have, made inside the page: no compression, no reasons, nothing larger
# than 60 000 bytes, messages only each 500 ms, and at most 12 sockets within 100 ms,
# to which those of other experiments may count.
SPOILED = """const Native = WebSocket; let recent = 0;
window.WebSocket = class extends Native {
  constructor(url, protocols) {
    super(++recent > 12 ? url.href.replace('/echo', '/nothing') : url, protocols);
    setTimeout(() => { recent--; }, 100);
  }
  get extensions() { return ''; }
  send(data) { if ((data.byteLength ?? data.length) > 60000) super.close(4009, 'too big'); else super.send(data); }
  set onclose(then) { super.onclose = ({ code }) => then({ code, reason: '' }); }
  set onmessage(then) { super.onmessage = ({ data }) => setTimeout(() => then({ data }), 500 - performance.now() % 500); }
};"""


async def checked(tab, patience_s):
    """Runs the card with the mouse; returns the ids of its findings."""
    await tab.fill("#patience", str(patience_s))
    await tab.click("#check-go")
    await ended(tab, patience_s)
    return await tab.run(IDS)


async def results(tab):
    """The rows. A page that was late itself, on a busy machine, does not know about timing: that is right as well."""
    rows = await tab.run(ROWS)
    if rows[1][1] == "unknown" and "this page is too busy to tell" in rows[1][2]:
        print(f"# timing: {rows[1][2]}", flush=True)
        rows[1] = GOOD[1]
    return rows


async def ended(tab, patience_s):
    check("the check ends", await tab.until("!check.isRunning && $('check-go').textContent === 'Check'", patience_s + 25),
          await tab.run(ROWS))


async def looks(tab, what, shots):
    equal(f"{what}: nothing overflows", (await tab.run("document.documentElement.scrollWidth - innerWidth"),
                                         await tab.run(OVERFLOW)), (0, []))
    faults = [fault for fault in await tab.ask("axe") if fault["impact"] in ("serious", "critical")]
    check(f"{what}: axe finds nothing serious", not faults, faults)
    await tab.shot(shots / f"{what.replace(' ', '-')}.png")


async def sound(browser, server, shots):
    """By keyboard, on a dark phone."""
    tab = await Tab.open(browser, server.url("/"), dark=True, **PHONE)
    await tab.served()
    await tab.run("$('patience').focus()")
    await tab.press("Control+a", "2", "Enter")
    check("Enter in the field starts a check", await tab.shows("check-go", "Stop"), await tab.text("check"))
    check("… one line each, the running ones marked", await tab.until("document.querySelectorAll('#checks .running').length > 1"),
          await tab.run(ROWS))
    check("… and a countdown", await tab.shows("check-left", "for another 1."), await tab.text("check-left"))
    await looks(tab, "check running", shots)
    await ended(tab, 2)
    equal("a path without faults: the results", await results(tab), GOOD)
    equal("… nothing found, as a status", await tab.run("document.querySelector('#check-word[role=status]').textContent"),
          "No errors and no warnings: this path carries WebSockets.")
    equal("… results are announced", await tab.run("$('checks').ariaLive"), "polite")
    check("… no socket stays open", await tab.until("check.wires.every(({ socket }) => socket.readyState > 1)"))
    await terminal(tab, server)
    await looks(tab, "check passed", shots)
    await tab.behaved("check of a path without faults")


async def terminal(tab, server):
    line = await tab.run("document.querySelector('#probe code').textContent")
    equal("the line for the rest", line, f"docker run --rm --network host wspulse probe '{server.ws('/echo')}'")
    asked = shlex.split(line)[6:]
    code, out, err = await asyncio.to_thread(wspulse, *asked, "--quick", "--json", budget_s=20)
    check("… works", code == 0 and json.loads(out)["farEnd"] == "wspulse", (code, out, err))


async def cut(browser, server, shots):
    """A proxy that ends idle connections after 3 s, on a light phone."""
    async with Forwarder(server, idle_s=3) as proxy:
        tab = await Tab.open(browser, proxy.url(), **PHONE)
        await tab.served()
        equal("idle sockets are cut: the one finding", await checked(tab, 8), ["idle-silent-fin or idle-silent-rst"])
        found = await tab.run("$('found').innerText")
        check("… who, after how long, how, what to do", re.search(
            r"^error: Silent sockets are cut after 3\.\d s\.\s+seen: the connection was ended without a Close frame, with FIN or RST"
            r"\s+change: keep sockets busy: wspulse --ping-interval 2s\s+id: ", found), found)
        rows = await results(tab)
        equal("… in its row, the id", rows[7][2], "idle-silent-fin or idle-silent-rst")
        equal("… a busy socket is not", rows[6], ["age", "ok", "a busy socket stayed open for 8.0 s"])
        equal("… the other results", ([row[:2] for row in rows], await tab.text("check-word")),
              ([[name, "FINDING" if name == "idle" else "ok"] for name, *_ in GOOD], "1 finding."))
        await looks(tab, "check with a finding", shots)
        await tab.behaved("idle sockets are cut", may_fail=True)


async def hole(browser, server):
    """A proxy that forgets idle connections after 3 s, and tells neither side."""
    async with Forwarder(server, idle_s=3, hole=True) as proxy:
        tab = await Tab.open(browser, proxy.url())
        await tab.served()
        equal("idle sockets are forgotten: the one finding", await checked(tab, 8), ["idle-silent-hole"])
        found = await tab.run("$('found').innerText")
        check("… between the last silence that was survived and the next", "between 2.0 s and 4.0 s" in found, found)
        await tab.behaved("idle sockets are forgotten", may_fail=True)


async def old(browser, server):
    """All connections are cut: then silence is not the reason. And two servers."""
    with Server(env={"POD_NAME": "pod-b"}) as other:
        async with Forwarder(server, other, order="turn") as proxy:
            tab = await Tab.open(browser, proxy.url())
            await tab.served()
            await tab.fill("#patience", "8")
            await tab.click("#check-go")
            check("two servers: spread", await tab.shows("checks", "16 sockets at once, on 2 servers", 20), await tab.run(ROWS))
            proxy.cut()
            await ended(tab, 8)
            equal("all sockets are cut: not the silence, but the age", await tab.run(IDS), ["age-fin or age-rst"])
            equal("… and idle says so", (await tab.run(ROWS))[7], ["idle", "ok", "cut no earlier than busy sockets"])
            await tab.behaved("all sockets are cut", may_fail=True)


async def spoiled(browser, server, shots):
    tab = await Tab.open(browser, server.url("/"), init=SPOILED, width=1440, height=1000)
    await tab.until("link.phase === 'open'")
    found = await checked(tab, 2)
    is_late = (await results(tab))[1] == GOOD[1]
    equal("several faults: each is named, errors first", found,
          ["size-limit", *([] if is_late else ["buffered"]), "compression-stripped", "close-reason-lost", "socket-limit"])
    seen = await tab.text("found")
    check("… with what was seen", all(text in seen for text in (
        "a binary message of 65,535 bytes was answered with Close 4009", "" if is_late else "arrived together after 0.",
        "the far end agreed to compress, but the 101 arrived without it", " lost its reason",
        " of 16 opened")), seen)
    equal("… and counted", await tab.text("check-word"), f"{len(found)} findings.")
    await looks(tab, "check with many findings", shots)
    await tab.behaved("several faults", may_fail=True)


async def stopped(browser, server):
    url = server.url("/").replace("127.0.0.1", "ws.localhost")
    tab = await Tab.open(browser, url)
    await tab.served()
    equal("the line for the rest, on a host that is not this machine", await tab.run("document.querySelector('#probe code').textContent"),
          f"docker run --rm wspulse probe '{url.replace('http', 'ws')}echo'")
    await tab.fill("#patience", "1")
    await tab.click("#check-go")
    equal("an idle time below 2 s is refused by the field", await tab.run("Boolean(check.isRunning)"), False)
    await tab.fill("#patience", "1200")
    await tab.click("#check-go")
    await tab.shows("checks", "16 sockets at once", 20)
    check("20 minutes: the countdown", await tab.shows("check-left", "for another 19 m"), await tab.text("check-left"))
    await tab.click("#check-go")
    check("Stop ends it", await tab.shows("check-word", "Interrupted: only a part of the path was examined."), await tab.text("check"))
    equal("… what was known stays, the rest is unknown", [row[1:] for row in await results(tab)],
          [row[1:] for row in GOOD[:6]] + [["unknown", "interrupted"]] * 2)
    check("… and its sockets are closed", await tab.until("check.wires.every(({ socket }) => socket.readyState > 1)"))
    await tab.behaved("check that is stopped")


async def refused(browser):
    """No WebSocket opens, or the far end does not count."""
    token = SCRATCH / "check-token"
    token.write_text("sesame\n")
    with Server("--mount", f"/echo=echo?token-file={token}") as locked, Server("--mount", "/echo=reverse") as other:
        await asyncio.gather(
            unasked(browser, locked, "a refused upgrade", "upgrade-other"),
            unasked(browser, locked, "… for which a GET returns 404", "upgrade-404",
                    "fetch = async () => ({ status: 404, type: 'basic' })"),
            unasked(browser, locked, "… for which a GET fails", "unreachable",
                    "fetch = () => Promise.reject(new TypeError())"),
            unasked(browser, other, "a far end that does not count", None))


async def unasked(browser, server, what, found, init=None):
    tab = await Tab.open(browser, server.url("/"), init=init)
    await tab.until("link.phase === 'open'")
    equal(f"{what}: the finding", await checked(tab, 2), [found] if found else [])
    rows = [row[1:] for row in await tab.run(ROWS)]
    why = "no WebSocket opens" if found else "the far end is no wspulse that answers ?probe=1"
    equal("… all else is unknown, and why", rows, [["FINDING", found] if found else ["ok", "a WebSocket opens"]] + [["unknown", why]] * 7)
    await tab.behaved(what, may_fail=True)
