"""The eight parts of the page, used with mouse and keyboard, against one healthy server."""

import asyncio
import json
import re
import shlex
import subprocess
import time

from harness import BINARY, check, clean_environment, equal
from tab import ISO, Tab

LONG = "12345678901234567890"


async def connection(browser, server):
    tab = await Tab.open(browser, server.url("/"))
    check("it connects on load", await tab.served(), await tab.rows())
    rows = await tab.rows()
    check("each line begins with an ISO time", all(re.match(f"{ISO} ", row) for row in rows), rows)
    check("… Connecting, then Connected", (await tab.texts())[:2] == ["Connecting", "Connected"], rows)
    check("randping arrives", await tab.says("Received: randping", 4), await tab.rows())
    equal("the URL is that of /websocket", await tab.text("url"), server.ws("/websocket") + "?hello=1")
    for name, wanted in (("node", "node-3"), ("zone", "zone-b"), ("namespace", "demo")):
        equal(f"who served: {name}", await tab.text(name), wanted)
    trail = await tab.text("trail")
    check("who served: pod, in its colour", trail == "pod-7" and await tab.run(
        "getComputedStyle(document.querySelector('#trail .chip')).getPropertyValue('--hue') !== ''"), trail)
    check("who served: version, connection", re.fullmatch(r"\d+\.\d+\.\d+", await tab.text("version"))
          and re.fullmatch(r"\d+\.\d+", await tab.text("connection")), await tab.text("version"))
    equal("the title shows the state", await tab.run("document.title"), "● pod-7 · wspulse")
    before = await tab.text("dial")
    check("the connected time advances", await tab.until(f"$('dial').textContent !== '{before}'"))
    equal("the state is announced", await tab.text("status"), "Connected to pod-7")
    await choices(tab, server)
    await tab.behaved("connection", may_fail=True)


async def choices(tab, server):
    await tab.click("#mounts button:text-is('/echo')")
    check("a mount is one click", await tab.until("link.phase === 'open' && link.path === '/echo' && trail.length === 2"))
    check("… and its button is the pressed one",
          await tab.until("document.querySelector('#mounts [aria-pressed=true]').textContent === '/echo'"))
    check("the trail shows both connections", await tab.went(r"pod-7 [\d.]+ s1000 normal closurepod-7"), await tab.text("trail"))
    await tab.fill("#protocols", "chat, v2")
    await tab.connect("/echo?every=100ms")
    check("a path with parameters: ticks come", await tab.says("Received: tick 2"), await tab.rows())
    equal("the subprotocol that was chosen is shown", await tab.text("protocol"), "chat")
    equal("the extensions are shown", await tab.text("extensions"), await tab.run("link.socket.extensions || '–'"))
    await tab.fill("#protocols", "a b/c")
    await tab.click("#target button.primary")
    check("an invalid subprotocol is reported and pauses", await tab.phase("paused"), await tab.rows())
    await tab.fill("#protocols", "")
    await tab.connect("/nope")
    check("an unknown path: why the handshake failed",
          await tab.shows("closes", "A plain GET returns 404 no such path; there are:"), await tab.text("closes"))
    await tab.connect("/ws")
    check("… and then a valid path", await tab.served())
    equal("the URL has the path", await tab.run("location.hash"), "#/ws")


async def log(browser, server):
    tab = await Tab.open(browser, server.url("/#/echo"))
    await tab.served()
    for text in ("apple", "pear", "<b>plum</b>"):
        await tab.send(text)
        check(f"sent and received: {text}", await tab.says(f"Received: {text}"), await tab.rows())
    equal("… in this order", [line for line in await tab.texts() if "apple" in line], ["Sent: apple", "Received: apple"])
    await tab.send('{"a":[1,{"b":' + LONG + '}],"c":"x y"}')
    await tab.send('{"a":[1,2],"c":"x y"}')
    laid_out = 'Received: {\n  "a": [\n    1,\n    2\n  ],\n  "c": "x y"\n}'
    check("JSON is pretty-printed on receipt", await tab.says(laid_out), await tab.texts())
    received = [row for row in await tab.texts() if row.startswith("Received")]
    check("… and no number is rounded", any(LONG in row for row in received), received)
    await tab.fill("#filter", "PLUM")
    equal("the filter shows matching rows", await tab.texts(), ["Sent: <b>plum</b>", "Received: <b>plum</b>"])
    check("… and counts", await tab.shows("count", "2 of "), await tab.text("count"))
    await tab.click("#copy")
    copied = await tab.run("navigator.clipboard.readText()")
    check("copy takes the shown rows", copied.count("\n") == 2 and copied.endswith("Received: <b>plum</b>\n"), copied)
    await saved(tab)
    await tab.fill("#filter", "")
    await tab.click("#hold")
    count = len(await tab.rows())
    await tab.send("while paused")
    check("a paused log adds no rows and counts", await tab.shows("count", ", 2 waiting") and len(await tab.rows()) == count,
          await tab.text("count"))
    await tab.click("#hold")
    check("… and then shows them", await tab.says("Received: while paused"), await tab.rows())
    await tab.click("#clear")
    equal("clear empties it", await tab.rows(), [])
    await tab.behaved("log")


async def saved(tab):
    download = await tab.ask("download", selector="#save")
    lines = [json.loads(line) for line in download["text"].splitlines()]
    check("download: the shown rows as JSON lines", download["name"].endswith(".jsonl") and len(lines) == 2, download)
    check("… with time, kind, pod, text, bytes", re.fullmatch(ISO, lines[1]["time"]) and lines[1]["kind"] == "in"
          and (lines[1]["pod"], lines[1]["data"], lines[1]["bytes"]) == ("pod-7", "<b>plum</b>", 11), lines)


async def sending(browser, server):
    tab = await Tab.open(browser, server.url("/#/echo"))
    await tab.served()
    await tab.fill("#message", "by Enter")
    await tab.ask("press", keys="Enter")
    check("Enter sends", await tab.says("Received: by Enter"), await tab.rows())
    await tab.fill("#message", "")
    await tab.ask("press", keys="Shift+Enter")
    equal("Shift+Enter breaks the line", await tab.run("$('message').value"), "\n")
    await tab.click("input[value=hex]")
    await tab.send("00 ff:0x0a")
    check("hex is sent as bytes", await tab.says("Received: (binary) 00 ff 0a"), await tab.rows())
    await tab.send("0 nonsense")
    check("invalid hex is refused in the field", await tab.run("$('message').validationMessage") != ""
          and "nonsense" not in str(await tab.texts()), await tab.texts())
    await tab.click("input[value=file]")
    await tab.ask("file", selector="#file", bytes="deadbeef")
    await tab.click("#send button.primary")
    check("a file is sent as bytes", await tab.says("Received: (binary) de ad be ef"), await tab.rows())
    await tab.click("input[value=text]")
    await tab.fill("#size", "20000")
    await tab.send("wide")
    check("the message is padded to the size, a long row is cut", await tab.says("(20,000 bytes)"), await tab.text("received"))
    check("… and counted", await tab.shows("received", "20."), await tab.text("received"))
    await tab.fill("#size", "0")
    await tab.fill("#every", "20")
    await tab.fill("#message", "again")
    await tab.click("#repeat")
    check("repeat sends it again and again", await tab.until("tally.messagesOut > 20"), await tab.text("sent"))
    check("… and the rate is shown", await tab.until("parseInt($('rate').textContent) >= 15"), await tab.text("rate"))
    await tab.click("#repeat")
    count = await tab.run("tally.messagesOut")
    await asyncio.sleep(0.2)
    equal("… until it is stopped", await tab.run("tally.messagesOut"), count)
    await tab.click("#pause")
    await tab.phase("paused")
    await tab.send("too late")
    check("sending without a connection is reported", await tab.says("Not connected, not sent"), await tab.rows())
    await tab.behaved("send")


async def round_trip(browser, server):
    tab = await Tab.open(browser, server.url("/"))
    await tab.served()
    check("one ping per second is answered", await tab.until("trip.times.length >= 4", 8), await tab.run("trip.times"))
    figures = [await tab.text(f"trip-{name}") for name in ("min", "p50", "p99", "max")]
    values = [float(figure.removesuffix(" ms")) for figure in figures]
    check("min ≤ p50 ≤ p99 ≤ max", values == sorted(values) and 0 <= values[0], figures)
    equal("none is lost", await tab.text("trip-none"), "0")
    check("the chart is drawn", (await tab.run("$('trip-line').getAttribute('d')")).count("L") >= 2)
    equal("the target is shown", await tab.text("trip-via"), "to /echo on pod-7")
    check("its pings are not in the log", not any("ping 1" in row for row in await tab.texts()), await tab.texts())
    await tab.behaved("round trip")


async def commands(browser, server):
    tab = await Tab.open(browser, server.url("/#/echo?delay=10ms"))
    await tab.served()
    lines = await tab.run("[...document.querySelectorAll('#commands code')].map((line) => line.textContent)")
    url = server.ws("/echo?delay=10ms")
    equal("commands for wscat and websocat", lines[1:3], [f"wscat -c '{url}'", f"websocat '{url}'"])
    curl = subprocess.run(f"{lines[0]} -m 1 -sS", shell=True, capture_output=True, timeout=5)
    check("the curl command upgrades", curl.stdout.startswith(b"HTTP/1.1 101"), f"{lines[0]} {curl}")
    equal("a command for wspulse load", lines[3], f"wspulse load '{url}' --clients 100 --messages 10")
    load = await asyncio.to_thread(subprocess.run, [BINARY, *shlex.split(lines[3])[1:]], capture_output=True, text=True, timeout=10,
                                   env=clean_environment())
    check("the load command works", load.returncode == 0, f"{lines[3]} {load.stdout} {load.stderr}")
    await tab.click("#commands li:nth-child(2) button")
    equal("copy takes the command", await tab.run("navigator.clipboard.readText()"), lines[1])
    await tab.behaved("commands")


async def many(browser, server):
    tab = await Tab.open(browser, server.url("/"))
    await tab.served()
    await tab.fill("#many-size", "200")
    since = time.monotonic()
    await tab.click("#many button.primary")
    check("200 sockets open", await tab.shows("many-count", "200 of 200 open, pods: 1", 20), await tab.text("many-count"))
    check("… within 20 s", time.monotonic() - since < 20, time.monotonic() - since)
    equal("all on this pod", await tab.text("pods"), "pod-7200 · 100 %")
    await tab.fill("#many-size", "201")
    await tab.click("#many button.primary")
    equal("201 are refused by the field", await tab.run("crowd.length"), 200)
    await tab.click("#many-close")
    check("close closes them", await tab.shows("many-count", "Up to 200"), await tab.text("many-count"))
    await tab.behaved("many sockets")
