"""The page's view of Deployments: changes, and how it shows stale data."""

from apiserver import ApiServer, deployment, pod
from cluster_api import Api
from harness import Server, check, equal
from page_looks import OVERFLOW
from tab import PATIENT, Tab

HARM = "<img src=x onerror=alert(1)>"
ROWS = "[...document.querySelectorAll('#feed-rows tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"


async def shown(tab):
    """Each row without the time of its last change."""
    return [row[:4] for row in await tab.run(ROWS)]


async def view(browser, url, **how):
    tab = await Tab.open(browser, url, init=PATIENT, **how)
    await tab.served()
    await tab.click("#tabs button[value=feed]")
    return tab


async def deployments(browser, shots):
    items = [deployment("shop", "web", 7, "web:1", 3), deployment("shop", "db", 8, HARM, 1)]
    with ApiServer(*items) as api, Server("--kube", api.url) as server:
        tab = await view(browser, server.url("/"))
        check("Deployments: up to date", await tab.shows("feed-word", "Up to date"), await tab.text("feed"))
        web, db = ["shop", "web", "0 of 3", "web:1"], ["shop", "db", "0 of 1", HARM]
        equal("… one row each, markup shown as text", (await shown(tab), await tab.text("feed-count")),
              ([db, web], "2 in all"))
        api.send("MODIFIED", deployment("shop", "web", 9, "web:2", 4))
        check("… a change", await tab.until(f"{ROWS}[0][4].endsWith(' replicas, image')"), await tab.run(ROWS))
        api.send("ADDED", deployment("shop", "new", 10, "new:1", 1))
        api.send("DELETED", deployment("shop", "db", 11, HARM, 1))
        await tab.until("$('feed-count').textContent === '2 in all' && feed.rows.has('deployments/shop/new')")
        equal("… one added, one deleted", await shown(tab),
              [["shop", "new", "0 of 1", "new:1"], ["shop", "web", "0 of 4", "web:2"]])
        await looks(tab, "Deployments", shots)
        await tab.click("#tabs button[value=sockets]")
        check("… and back: the watch is closed", await tab.until("feed.socket === null"))
        check("… the other view is as it was", await tab.run("!$('sockets').hidden && $('feed').hidden"))
        await tab.behaved("Deployments")
        phone = await view(browser, server.url("/"), width=360, height=740, dark=True)
        await phone.shows("feed-word", "Up to date")
        await looks(phone, "Deployments on a phone", shots)
        await phone.behaved("Deployments on a phone")


async def looks(tab, what, shots):
    equal(f"{what}: nothing overflows",
          (await tab.run("document.documentElement.scrollWidth - innerWidth"),
           [node for node in await tab.run(OVERFLOW) if not node.startswith(("<t", "<tbody"))]), (0, []))
    faults = [fault for fault in await tab.ask("axe") if fault["impact"] in ("serious", "critical")]
    check(f"{what}: axe finds nothing serious", not faults, faults)
    await tab.shot(shots / f"{what.replace(' ', '-').lower()}.png")


async def stale(browser, shots):
    with Api(count=2) as api, Server("--kube", api.url("127.0.0.1")) as server:
        tab = await Tab.open(browser, server.url("/"))
        await tab.served()
        await tab.click("#tabs button[value=feed]")
        await tab.shows("feed-word", "Up to date")
        api.stop()
        check("the API server stops: stale", await tab.shows("feed-word", "Stale"), await tab.text("feed"))
        check("… and the cause", await tab.shows("feed-why", "the API server refuses connections, since 20"), await tab.text("feed-why"))
        equal("… the rows stay", await tab.text("feed-count"), "2 in all")
        await looks(tab, "stale Deployments", shots)
        api.start()
        check("… it starts again: up to date", await tab.shows("feed-word", "Up to date", 15), await tab.text("feed"))
        server.kill()
        check("the server is killed: stale", await tab.shows("feed-why", "1006 closed without a Close"), await tab.text("feed-why"))
        api.count = 1
        with Server("--kube", api.url("127.0.0.1"), main="127.0.0.1:%d" % server.main[1]):
            check("… a new server: Deployments that it does not list are removed",
                  await tab.until("$('feed-count').textContent === '1 in all' && $('feed-word').textContent === 'Up to date'", 15),
                  await tab.text("feed"))
        await tab.behaved("stale Deployments", may_fail=True)


async def kinds(browser, shots):
    """The kinds that the server watches are offered, each with its own columns' texts."""
    items = [deployment("shop", "web", 7, "web:1", 3)]
    with ApiServer(*items) as api, Server("--kube", api.url, "--kube-resources", "deployments,pods") as server:
        api.others["pods"] = [pod("shop", "web-1", 8, "web:1", 5)]
        tab = await view(browser, server.url("/"))
        equal("several kinds: they are offered", await tab.run(
            "[...document.querySelectorAll('#feed-kinds button')].map((button) => button.textContent)"),
            ["deployments", "pods", "*"])
        check("… the first is shown", await tab.until("$('feed-count').textContent === '1 in all'"), await tab.text("feed"))
        await tab.click("#feed-kinds button:nth-of-type(2)")
        await tab.shows("feed-word", "Up to date")
        equal("… pods: ready containers, reason, restarts, node", await shown(tab),
              [["shop", "web-1", "1 of 1, CrashLoopBackOff, 5 restarts, n1", "web:1"]])
        await tab.click("#feed-kinds button:nth-of-type(3)")
        await tab.until("feed.rows.size === 2")
        equal("… all: names with their kind", sorted(row[1] for row in await shown(tab)), ["deployments/web", "pods/web-1"])
        await looks(tab, "several kinds", shots)
        await tab.behaved("several kinds")


async def unavailable(browser):
    with Server(env={"HOME": "/nonexistent"}) as server:
        tab = await view(browser, server.url("/"))
        check("no cluster: the message names --kube", await tab.shows("feed-why", "1011 no API server is configured: see --kube"),
              await tab.text("feed"))
        equal("… and the state", await tab.text("feed-word"), "Unavailable")
        await tab.behaved("no cluster")
