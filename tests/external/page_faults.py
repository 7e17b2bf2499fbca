"""The page when servers go away, refuse connections or send hostile text."""

import asyncio
import re
import socket
import time

import crowd
from forwarder import Forwarder
from harness import Server, check, equal
from tab import PATIENT, Tab

HARM = "<img src=x onerror=\"document.title='harmed';alert(1)\">"


async def gone(server, budget_s=15):
    """Its exit code; other checks run meanwhile."""
    return await asyncio.to_thread(server.wait, budget_s)


async def restarted(browser):
    server = Server(env={"POD_NAME": "pod-a"})
    tab = await Tab.open(browser, server.url("/"))
    await tab.served()
    server.kill()
    check("killed: logged", await tab.says("Connection Closed, Reconnecting"), await tab.rows())
    check("killed: 1006 is explained", await tab.shows("closes", "1006 closed without a Close frame"), await tab.text("closes"))
    check("down: failed attempts are logged", await tab.says("Error, Closing"), await tab.rows())
    check("down: the cause", await tab.shows("closes", "A plain GET fails too."), await tab.text("closes"))
    check("downtime runs", await tab.until("parseFloat($('downtime').textContent) > 0"), await tab.text("downtime"))
    with Server(env={"POD_NAME": "pod-b"}, main="127.0.0.1:%d" % server.main[1]):
        check("restarted: the page reconnects", await tab.until("link.served?.pod === 'pod-b'", 15), await tab.rows())
        equal("… one reconnect", await tab.text("reconnects"), "1")
        check("… the trail shows it", await tab.went(r"pod-a [\d.]+ s1006 closed without a Close framepod-b"), await tab.text("trail"))
        check("the round trip continues", await tab.until("trip.times.at(-1) > 0 && trip.pod === 'pod-b'", 15),
              await tab.run("trip.times"))
        texts = {row for row in await tab.texts() if not row.startswith(("Served by", "Received: "))}
        equal("the messages of the log", texts, {"Connecting", "Connected", "Error, Closing", "Connection Closed, Reconnecting"})
        await tab.behaved("restarted", may_fail=True)


async def drained(browser, shots):
    server = Server("--profile", "plain", env={"POD_NAME": "pod-a"})
    tab = await Tab.open(browser, server.url("/"), init=PATIENT, dark=True, width=1440, height=1000)
    await tab.served()
    server.signal()
    check("drained: 1001 is explained, with the reason", await tab.shows("closes", "1001 going away: draining"), await tab.text("closes"))
    oldest = await tab.run("document.querySelector('#closes li:last-child').innerText")
    check("… as a clean close", re.search(r"lived [\d.]+ s, clean", oldest), oldest)
    equal("… and the server exits with 0", await gone(server), 0)
    check("the wait is shown", await tab.until("link.waitMs > 3000 && /^try \\d+ in$/.test($('dial-of').textContent)", 20),
          await tab.text("hero"))
    dial = "parseFloat($('dial').textContent)"
    first = await tab.run(dial)
    await asyncio.sleep(0.6)
    check("the countdown runs", 0.3 < first - await tab.run(dial) < 2, first)
    equal("the state", await tab.text("word"), "Disconnected")
    await tab.shot(shots / "waiting.png")
    await tab.click("#pause")
    tries = await tab.run("link.tries")
    check("Pause pauses", await tab.phase("paused") and await tab.text("pause") == "Resume", await tab.text("hero"))
    with Server(env={"POD_NAME": "pod-b"}, main="127.0.0.1:%d" % server.main[1]):
        await asyncio.sleep(2)
        equal("… no attempt meanwhile", (await tab.run("link.tries"), await tab.run("link.phase")), (tries, "paused"))
        since = time.monotonic()
        await tab.click("#now")
        check("Now reconnects at once", await tab.served() and time.monotonic() - since < 1.5, time.monotonic() - since)
        await tab.click("#pause")
        check("Disconnect closes with 1000 and does not reconnect", await tab.phase("paused") and await tab.shows("closes", "1000 normal closure"),
              await tab.text("closes"))
        await tab.click("#pause")
        check("Resume resumes", await tab.served())
        await tab.behaved("drained", may_fail=True)


async def two_pods(browser, shots):
    with Server(env={"POD_NAME": "pod-a", "ZONE": "a"}) as a, Server(env={"POD_NAME": "pod-b", "ZONE": "b"}) as b:
        async with Forwarder(a, b) as first, Forwarder(a, b, order="turn") as turn:
            tab = await Tab.open(browser, first.url())
            many = await Tab.open(browser, turn.url(), width=1440, height=1000)
            await tab.served(), await many.served()
            await many.fill("#many-size", "60")
            await many.click("#many button.primary")
            check("60 sockets reach both pods", await many.shows("many-count", "60 of 60 open, pods: 2", 15), await many.text("many-count"))
            shares = re.fullmatch(r"pod-a(\d\d) · \d\d %pod-b(\d\d) · \d\d %", await many.text("pods"))
            check("… half and half", shares and all(int(count) > 24 for count in shares.groups()), await many.text("pods"))
            check("the two pods have different colours", await many.run("Math.abs(hue('pod-a') - hue('pod-b')) > 25"))
            await asyncio.sleep(2)
            a.signal()
            check("behind a proxy: the trail shows both pods", await tab.went(r"pod-a [\d.]+ s1001 drainingpod-b"),
                  await tab.text("trail"))
            equal("… and the zone is the new one", await tab.text("zone"), "b")
            check("rollout: all 60 on the other pod", await many.shows("pods", "pod-b60 · 100 %", 20), await many.text("pods"))
            check("… and the close codes of the others", await many.shows("many-count", " × 1001"), await many.text("many-count"))
            equal("pod-a exits with 0", await gone(a), 0)
            await asyncio.sleep(2)
            await many.shot(shots / "rollout.png")
            await tab.behaved("two pods", may_fail=True)
            await many.behaved("two pods, many sockets", may_fail=True)


async def refused(browser):
    """503 while draining: a proxy's earlier connections still reach the draining server."""
    server = Server("--profile", "plain", env={"POD_NAME": "pod-a"})
    async with Forwarder(server) as proxy:
        tab = await Tab.open(browser, proxy.url(), init="Math.random = () => 0.1;")
        await tab.served()
        with socket.create_connection(server.main) as silent:
            silent.sendall(crowd.UPGRADE)  # it does not answer the Close, so the server waits 5 s
            await proxy.save(20)
            server.signal()
            check("503 while draining: the HTTP status is shown", await tab.shows("closes", "A plain GET returns 503 "), await tab.text("closes"))
            check("… and waits as long as Retry-After asks", await tab.until("link.phase === 'waiting' && link.waitMs >= 1000")
                  and await tab.run("link.waitMs") <= 20000, await tab.run("link.waitMs"))
        await gone(server)
        with Server(env={"POD_NAME": "pod-b"}, main="127.0.0.1:%d" % server.main[1]):
            check("… until the new server accepts", await tab.until("link.served?.pod === 'pod-b'", 15), await tab.rows())
            await tab.behaved("refused", may_fail=True)


async def patient(browser):
    """1012 asks for 5 to 30 s."""
    server = Server("--profile", "plain", "--drain-code", "1012", "--drain-reason", "")
    tab = await Tab.open(browser, server.url("/"))
    await tab.served()
    server.signal()
    check("1012 is honoured: 5 to 30 s", await tab.phase("waiting") and 5000 <= await tab.run("link.waitMs") <= 30000,
          await tab.run("link.waitMs"))
    check("… and explained", await tab.shows("closes", "1012 service restart"), await tab.text("closes"))
    await gone(server)
    await tab.behaved("1012", may_fail=True)


async def hops(browser):
    """Connections cut after the known timeout of a proxy; the browser's clock is set forward."""
    with Server() as server:
        async with Forwarder(server) as proxy:
            for seconds, path, wanted in ((30, "/echo", "30 s life: GKE load balancer?"),
                                          (60, "/echo", "60 s idle: nginx proxy_read_timeout or AWS ALB?"), (47, "/echo", None)):
                tab = await Tab.open(browser, proxy.url(f"/#{path}"), clock=True)
                await tab.served()
                await tab.ask("forward", ms=seconds * 1000)
                proxy.cut()
                await tab.until("closes > 0")
                closes = await tab.run("document.querySelector('#closes li:last-child').innerText")
                check(f"cut after {seconds} s: {wanted or 'no guess'}",
                      wanted in closes if wanted else "?" not in closes, closes)
                await tab.behaved(f"cut after {seconds} s", may_fail=True)


async def hostile(browser):
    server = Server("--profile", "plain", "--drain-reason", HARM, env={"POD_NAME": HARM, "ZONE": HARM})
    tab = await Tab.open(browser, server.url("/#/echo"))
    await tab.served()
    await tab.send(HARM)
    check("a hostile message is text", await tab.says(f"Received: {HARM}"), await tab.rows())
    check("a hostile pod name and zone are text", "onerror" in await tab.text("trail") and "onerror" in await tab.text("zone"),
          await tab.text("hero"))
    await tab.click("#many button.primary")
    check("… among many sockets too", await tab.shows("pods", "onerror"), await tab.text("pods"))
    await tab.send('{"__proto__":{"x":1},"html":"</script><script>document.title=\'harmed\'</script>"}')
    await tab.send("\u202egnp.exe \u0000\u001b[2J")
    server.signal()
    check("a hostile close reason is text", await tab.shows("closes", "onerror"), await tab.text("closes"))
    await gone(server)
    equal("no element was created", await tab.run("document.querySelectorAll('img, script').length"), 1)
    check("no script ran", await tab.run("document.title !== 'harmed'"))
    await tab.behaved("hostile", may_fail=True)
