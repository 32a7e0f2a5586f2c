"""Drives a report in a real headless browser and checks what a reader would do with it.

Usage: report.py BROWSER REPORT [--hostile TEXT] [--screenshot FILE]
  BROWSER           a Chromium or Chrome
  REPORT            the HTML file
  --hostile TEXT    the report has programs that try to run; checks that they are shown as text that
                    contains TEXT, and that nothing ran
  --screenshot FILE writes a PNG of the part that gained most, open, and ends

It speaks the browser's own protocol over a pipe: no driver, nothing but Python. Prints a line for
each check. Exits with 1 at the first one that fails.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0

# Keys by name: code and Windows key code, as the protocol wants them.
KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Enter": 13, "Escape": 27,
    "Home": 36, "End": 35, "n": 78, "p": 80, "+": 187, "0": 48,
}  # fmt: skip


class Browser:
    """A browser with one page."""

    def __init__(self, program: str, profile: str):
        to_browser, from_browser = os.pipe(), os.pipe()
        # The browser reads from 3 and writes to 4.
        reads = fcntl.fcntl(to_browser[0], fcntl.F_DUPFD, 10)
        writes = fcntl.fcntl(from_browser[1], fcntl.F_DUPFD, 10)
        command = [
            "bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "browser", program,
            "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--window-size=1280,900",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, pass_fds=(reads, writes), stdout=self.log, stderr=self.log)
        for end in (reads, writes, to_browser[0], from_browser[1]):
            os.close(end)
        self.sink, self.source = os.fdopen(to_browser[1], "wb", buffering=0), from_browser[0]
        os.set_blocking(self.source, False)
        self.received = b""
        self.number = 0
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.sink.write(json.dumps(message).encode() + b"\0")
        return self.wait(lambda reply: reply.get("id") == self.number, method)

    def wait(self, is_it: Any, what: str) -> dict[str, Any]:
        """Reads until a message comes; keeps the events before it."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            while b"\0" in self.received:
                line, self.received = self.received.split(b"\0", 1)
                message = json.loads(line)
                if "method" in message:
                    self.events.append(message)
                if is_it(message):
                    if "error" in message:
                        raise RuntimeError(f"{what}: {message['error']}")
                    return message.get("result", message)
            try:
                chunk = os.read(self.source, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            if not chunk:
                break
            self.received += chunk
        self.log.seek(0)
        raise RuntimeError(f"{what}: no answer from the browser:\n{self.log.read().decode(errors='replace')[-3000:]}")

    def open(self, url: str) -> None:
        """Opens a page and waits until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait(lambda message: message.get("method") == "Page.loadEventFired", url)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{expression}: {json.dumps(reply['exceptionDetails'])[:2000]}")
        return reply["result"].get("value")

    def key(self, name: str) -> None:
        """Presses a key."""
        code = {
            "windowsVirtualKeyCode": KEYS[name],
            "key": name,
            "code": name if len(name) > 1 else f"Key{name.upper()}",
        }
        text = "\r" if name == "Enter" else name if len(name) == 1 else None
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """A mouse event: pressed, moved or released."""
        button = {"button": "left", "buttons": 0 if kind == "Released" else 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **button)

    def faults(self) -> list[str]:
        """What the page complained about, and every address that it asked for outside of itself."""
        found = []
        for event in self.events:
            method, parameters = event["method"], event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(parameters["exceptionDetails"])[:1000])
            elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(parameters["args"])[:1000])
            elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(json.dumps(parameters["entry"])[:1000])
            elif method == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if not (url.startswith("data:") or url.split("#")[0] == self.own_url):
                    found.append(f"asked for {url[:200]}")
        return found

    own_url = ""


# Statistics of the picture in a canvas: the share of pixels that are drawn, the number of colours,
# and a sum that differs for different pictures.
PIXELS = """(canvas => {
  const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  let drawn = 0, sum = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] === 0) continue;
    drawn++;
    colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
    sum = (sum * 31 + data[i] + 7 * data[i + 1] + 13 * data[i + 2] + i) % 2147483647;
  }
  return { drawn: drawn / (width * height), colours: colours.size, sum };
})"""

# Waits until the view has come to rest and is drawn at its final resolution.
REST = "new Promise(done => setTimeout(done, 300))"

CARDS = "[...document.querySelectorAll('#cards .card')]"


def check(is_right: bool, what: str, *found: Any) -> None:
    """Prints a check, or ends the program."""
    if not is_right:
        raise SystemExit(f"FAILED: {what}: {found}")
    print(f"ok: {what}")


def choose(browser: Browser, control: str, value: str) -> list[dict[str, str]]:
    """Chooses an option of a control of the gallery; returns the data of the cards that are shown."""
    browser.js(
        f"(select => {{ select.value = {json.dumps(value)}; select.dispatchEvent(new Event('change')); }})"
        f"(document.getElementById({json.dumps(control)}))"
    )
    return browser.js(f"{CARDS}.map(card => ({{ ...card.dataset }}))")


def check_sections(browser: Browser) -> None:
    for section in ("run", "results", "outcomes", "distribution", "curves", "parts", "reproduce"):
        text = browser.js(f"document.getElementById({json.dumps(section)})?.innerText ?? ''")
        check(len(text) > 40, f"section {section} has content", text)
    figures = browser.js(
        "[...document.querySelectorAll('#curves figure')].map(figure => figure.querySelectorAll('path').length)"
    )
    check(len(figures) >= 4 and all(figures), "there are curves", figures)
    browser.js("document.querySelector('#curves figure svg').focus()")
    browser.key("End")
    told = browser.js("document.querySelector('#curves figure output').textContent")
    browser.key("ArrowLeft")
    before = browser.js("document.querySelector('#curves figure output').textContent")
    check(told.startswith("step ") and before != told, "arrow keys tell the values of a chart", told, before)
    browser.js("document.querySelector('#curves figure svg').scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = browser.js(
        "(box => [box.left, box.top, box.width, box.height])"
        "(document.querySelector('#curves figure svg').getBoundingClientRect())"
    )
    browser.mouse("Moved", box[0] + 0.95 * box[2], box[1] + 0.5 * box[3])
    hovered = browser.js("document.querySelector('#curves figure output').textContent")
    check(hovered.startswith("step ") and hovered != before, "pointing tells the values of a chart", hovered)
    rows = browser.js("document.querySelectorAll('#results tbody tr').length")
    check(rows >= 2, "the table has policies", rows)


def check_gallery(browser: Browser) -> None:
    everything = choose(browser, "sort", "data")
    total = len(everything)
    check(total >= 4, "there are cards", total)
    for order, sign in (("best", -1), ("worst", 1)):
        found = [sign * float(card["iou"]) for card in choose(browser, "sort", order)]
        check(found == sorted(found) and len(set(found)) > 1, f"sorting by IoU, {order} first", found)
    changes = f"{CARDS}.map(card => Number(card.innerText.match(/IoU [\\d.]+ ([+-][\\d.]+)/)?.[1] ?? NaN))"
    choose(browser, "sort", "gains")
    found = browser.js(changes)
    check(found == sorted(found, reverse=True) and len(set(found)) > 1, "sorting by change", found)
    outcomes = sorted({card["outcome"] for card in everything})
    for outcome in outcomes:
        found = choose(browser, "outcome", outcome)
        expected = sum(card["outcome"] == outcome for card in everything)
        said = browser.js("document.getElementById('count').textContent")
        check(
            len(found) == expected
            and all(card["outcome"] == outcome for card in found)
            and said == f"{expected} of {total} parts",
            f"filtering by {outcome}: {said}",
            found,
        )
    choose(browser, "outcome", "")
    choose(browser, "sort", "data")
    # As a reader does: with the keyboard.
    browser.js("document.getElementById('search').focus()")
    browser.call("Input.insertText", text=everything[1]["part"])
    found = browser.js(f"{CARDS}.map(card => card.dataset.part)")
    check(
        found and all(everything[1]["part"] in part for part in found) and len(found) < total,
        "searching for a part",
        found,
    )
    browser.js(
        "(input => { input.value = ''; input.dispatchEvent(new Event('input')); })(document.getElementById('search'))"
    )


def check_thumbnails(browser: Browser) -> None:
    browser.js("document.getElementById('cards').scrollIntoView({ behavior: 'instant' })")
    browser.js(REST)
    drawn = browser.js(f"{PIXELS}(document.querySelector('#cards canvas'))")
    check(drawn["drawn"] > 0.05 and drawn["colours"] >= 2, "a thumbnail is drawn", drawn)
    picture = browser.js(
        "(image => image.decode().then(() => image.naturalWidth))(document.querySelector('#cards img'))"
    )
    check(picture >= 16, "an input picture is shown", picture)


def open_first_solid(browser: Browser) -> None:
    """Opens the first part of which both solids differ: by the keyboard."""
    browser.js(f"{CARDS}.find(card => card.querySelector('canvas') && Number(card.dataset.iou) < 0.95).focus()")
    browser.key("Enter")
    browser.js(REST)
    check(browser.js("document.getElementById('part').open"), "Enter opens a part")


def pixels(browser: Browser) -> dict[str, float]:
    """Statistics of the large picture, once it rests."""
    browser.js(REST)
    return browser.js(f"{PIXELS}(document.querySelector('#part canvas'))")


def check_part(browser: Browser) -> None:
    open_first_solid(browser)
    seen = {}
    for mode in ("true", "built", "difference", "both"):
        browser.js(f"document.querySelector('#part [data-value=\"{mode}\"]').click()")
        seen[mode] = pixels(browser)
        check(seen[mode]["drawn"] > 0.02 and seen[mode]["colours"] >= 2, f"solids are drawn: {mode}", seen[mode])
    check(len({picture["sum"] for picture in seen.values()}) == 4, "every mode shows another picture", seen)
    browser.js("document.querySelector('#part canvas').focus()")
    browser.key("ArrowRight")
    turned = pixels(browser)
    check(turned["sum"] != seen["both"]["sum"], "an arrow key turns the solids")
    browser.key("0")
    check(pixels(browser)["sum"] == seen["both"]["sum"], "0 resets the view")
    browser.key("+")
    check(pixels(browser)["drawn"] > seen["both"]["drawn"], "+ enlarges")
    browser.key("0")
    box = browser.js(
        "(box => [box.left + box.width / 2, box.top + box.height / 2])"
        "(document.querySelector('#part canvas').getBoundingClientRect())"
    )
    browser.mouse("Pressed", *box)
    browser.mouse("Moved", box[0] + 60, box[1] + 10)
    browser.mouse("Released", box[0] + 60, box[1] + 10)
    check(pixels(browser)["sum"] != seen["both"]["sum"], "dragging turns the solids")
    title = browser.js("document.getElementById('part-title').textContent")
    browser.key("n")
    second = browser.js("document.getElementById('part-title').textContent")
    browser.key("p")
    check(
        second != title == browser.js("document.getElementById('part-title').textContent"),
        "n and p go to the next part and back",
        title,
        second,
    )
    marks = browser.js(
        "['mark', '.added', '.removed'].map(kind => document.querySelectorAll(`#part .diff ${kind}`).length)"
    )
    check(all(marks), "differences of the programs are marked: words, and lines of both", marks)
    scores = browser.js("document.querySelector('#part table').innerText")
    check("IoU" in scores and "Volume" in scores, "scores are listed", scores)
    browser.key("Tab")
    inside = browser.js("document.getElementById('part').contains(document.activeElement)")
    check(inside, "Tab stays in the open part")
    browser.key("Escape")
    check(not browser.js("document.getElementById('part').open"), "Escape closes the part")


def check_appearance(browser: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = browser.js(background)
    browser.js("document.getElementById('theme').click()")
    dark = browser.js(background)
    check(light != dark, "the button switches between light and dark", light, dark)
    browser.js("document.getElementById('theme').click()")
    browser.js("try { localStorage.clear(); } catch {}")
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(browser.own_url)
    check(browser.js(background) == dark, "the page is dark where the system is", browser.js(background))
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    browser.open(browser.own_url)
    wide = browser.js("[document.documentElement.scrollWidth, innerWidth]")
    check(wide[0] <= 360, "a phone needs no sideways scrolling", wide)
    open_first_solid(browser)
    drawn = pixels(browser)
    wide = browser.js("[document.getElementById('part').scrollWidth, document.getElementById('part').clientWidth]")
    check(drawn["drawn"] > 0.02 and wide[0] <= wide[1], "a part opens on a phone", drawn, wide)
    browser.key("Escape")
    browser.call("Emulation.clearDeviceMetricsOverride")
    browser.open(browser.own_url)
    printed = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    check(
        printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") > 2,
        "it can be printed",
        len(printed),
    )
    browser.js("dispatchEvent(new Event('beforeprint'))")
    blank = browser.js(
        f"[...document.querySelectorAll('#cards canvas')].filter(canvas => {PIXELS}(canvas).drawn === 0).length"
    )
    check(blank == 0, "every thumbnail is drawn for printing", blank)


def check_hostile(browser: Browser, text: str) -> None:
    card = f"{CARDS}[0]"
    browser.js(f"{card}.click()")
    browser.js(REST)
    ran = browser.js("typeof window.ran")
    check(ran == "undefined", "no program ran", ran)
    scripts = browser.js("document.scripts.length")
    check(scripts == 2, "there are no scripts but the page's own", scripts)
    shown = browser.js("document.getElementById('part').innerText + document.getElementById('main').innerText")
    check(text in shown, "the program is shown as text", shown[:3000])
    strange = browser.js(
        "document.querySelectorAll('iframe, object, embed, [onerror], [onclick]').length"
        " + document.querySelectorAll('img:not([src^=\"data:image/png\"])').length"
    )
    check(strange == 0, "no element came from a text", strange)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("browser")
    parser.add_argument("report", type=Path)
    parser.add_argument("--hostile")
    parser.add_argument("--screenshot", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(arguments.browser, profile)
        try:
            browser.own_url = arguments.report.resolve().as_uri()
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
            browser.open(browser.own_url)
            if arguments.screenshot:
                size = {"width": 1200, "height": 1060, "deviceScaleFactor": 1, "mobile": False}
                browser.call("Emulation.setDeviceMetricsOverride", **size)
                choose(browser, "sort", "gains")
                open_first_solid(browser)
                arguments.screenshot.write_bytes(base64.b64decode(browser.call("Page.captureScreenshot")["data"]))
                return
            check(arguments.report.stat().st_size < 5_000_000, "the file is below 5 MB")
            if arguments.hostile:
                check_hostile(browser, arguments.hostile)
            else:
                check_sections(browser)
                check_gallery(browser)
                check_thumbnails(browser)
                check_part(browser)
                check(not browser.faults(), "no error in the console, and no request", browser.faults())
                check_appearance(browser)
            check(not browser.faults(), "no error in the console, and no request", browser.faults())
        finally:
            browser.close()


if __name__ == "__main__":
    main()
