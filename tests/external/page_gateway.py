"""The page's gateway tab: shown only if there is a gateway; its routes, and how it shows a failure."""

import subprocess

from harness import BINARY, Server, check, clean_environment, equal, free_port, launch, not_run, until, wspulse
from page_feed import looks
from tab import Tab

ROUTES = "[...document.querySelectorAll('#routes button')].map((button) => button.textContent)"


def answers(port):
    """Whether a backend serves there."""
    return wspulse("healthcheck", f"http://127.0.0.1:{port}/readyz")[0] == 0


async def gateway(browser, shots):
    if wspulse("help", "backend")[0] != 0:
        return not_run("the page's tab of the gateway", "this build has no gateway")
    port = free_port()
    with Server("--gateway-backend", f"http://127.0.0.1:{port}", "--gateway-route", "$request.body.action",
                "--gateway-routes", f"join,lost=http://127.0.0.1:{free_port()}") as server:
        launch([str(BINARY), "backend", "--listen", f"127.0.0.1:{port}", "--gateway", server.url("", "admin")],
               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment())
        check("gateway: the backend is ready", until(lambda: answers(port)))
        await talk(browser, server, shots)
        phone = await Tab.open(browser, server.url("/#/gateway/prod"), width=360, height=740, dark=True)
        check("gateway on a phone: its URL opens the tab", await phone.until(
            "$('gateway').ariaPressed === 'true' && !$('routes').hidden"), await phone.text("tabs"))
        await phone.served()
        await looks(phone, "Gateway on a phone", shots)
        await phone.behaved("gateway on a phone")


async def talk(browser, server, shots):
    tab = await Tab.open(browser, server.url("/"))
    await tab.served()
    check("gateway: the tab is shown", await tab.until("!$('gateway').hidden"))
    equal("… and routes are shown only on its mount", await tab.run("$('routes').hidden"), True)
    await tab.click("#gateway")
    check("… it connects to the gateway", await tab.until("link.phase === 'open' && link.path === '/gateway/prod' && trail.length === 2"))
    check("… and shows the pod", await tab.served(), await tab.text("trail"))
    equal("… its mount is the pressed one", await tab.run(
        "document.querySelector('#mounts [aria-pressed=true]').textContent + $('gateway').ariaPressed"), "/gateway/prodtrue")
    equal("… routes", await tab.run(ROUTES), ["$default", "join", "lost"])
    equal("… the message is prefilled with hello", await tab.run("$('message').value"), "hello")
    for route, text in (("$default", "hello"), ("join", '{"action":"join"}')):
        await tab.click(f"#routes button:text-is('{route}')")
        await tab.press("Enter")
        check(f"… {route}: {text} is answered", await tab.says(f"Received: Got message:{text}"), await tab.rows())
    await tab.click("#routes button:text-is('lost')")
    await tab.press("Enter")
    check("… an unreachable backend: an error message", await tab.until(
        "/The backend failed: Internal server error, request \\S+ of connection [\\w-]{22}$/"
        ".test(document.querySelector('#log .error')?.textContent)"), await tab.rows())
    equal("… the connection stays open", await tab.run("link.phase"), "open")
    await looks(tab, "Gateway", shots)
    await tab.click("#tabs button[value=feed]")
    check("… the Deployments tab", await tab.until("$('sockets').hidden && !$('feed').hidden"))
    await tab.click("#gateway")
    check("… and back: the connection is the same", await tab.run("link.path === '/gateway/prod' && trail.length === 2"))
    await tab.click("#tabs button:first-child")
    check("… the Sockets tab: the other mounts", await tab.until("link.phase === 'open' && link.path === '/websocket'"
                                                          " && $('routes').hidden"), await tab.text("tabs"))
    await tab.behaved("gateway")


async def none(browser, server):
    tab = await Tab.open(browser, server.url("/"))
    await tab.served()
    equal("no gateway: no tab", await tab.run("$('gateway').hidden"), True)
    await tab.behaved("no gateway")
