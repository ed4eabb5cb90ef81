"""A real Chromium without a screen, driven over its debugging protocol by the websockets that Streamlit brings."""

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from websockets.sync.client import connect

from support.servers import find_program

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds after which a page that did not do what it should has failed. Generous: machines are shared."""

ROW_PIXELS = 35
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
    "--force-color-profile=srgb", "--hide-scrollbars", "--lang=en-US", "--password-store=basic",
    "--remote-debugging-port=0", "--remote-allow-origins=*",
    # Whatever is asked for by name, even by a page that was tricked, is nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
_READY = """(() => {
  const app = document.querySelector('[data-testid=stApp]');
  return app !== null && app.getAttribute('data-test-script-state') === 'notRunning'
    && app.getAttribute('data-test-connection-state') === 'CONNECTED'
    && !document.querySelector('[data-testid=stAppSkeleton]');
})()"""
_FIND = """(selector, text) => [...document.querySelectorAll(selector)].find(
  one => one.offsetParent !== null && (one.innerText || "").includes(text))"""


class Browser:
    """One process; each page is a tab, and so a visitor of its own."""

    def __init__(self, folder: Path) -> None:
        program = find_program("chromium")
        assert program is not None, "apt-get install chromium"
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self._process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        told = folder / "profile" / "DevToolsActivePort"
        port = eventually(lambda: told.exists() and told.read_text().split("\n")[0], "Chromium tells its port")
        self._url = f"http://127.0.0.1:{port}"
        self._pages: list[Page] = []

    def page(self, *, width: int = 1440, height: int = 900, dark: bool = False) -> "Page":
        """Open a tab."""
        request = urllib.request.Request(f"{self._url}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            found = json.loads(answer.read())
        page = Page(found["webSocketDebuggerUrl"])
        self._pages.append(page)
        page.resize(width, height)
        page.prefer(dark=dark)
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        return page

    def close(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)
        for page in self._pages:
            page.close()


class Page:
    """One tab, with every request that it made and everything that its console said."""

    def __init__(self, url: str) -> None:
        self._opened = ExitStack()
        self._socket = self._opened.enter_context(connect(url, max_size=1 << 26, ping_interval=None, close_timeout=1))
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(DEADLINE))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self._note(message)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript is."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Go to a page and wait until it is drawn, which it is only in the tab in front."""
        self.call("Page.bringToFront")
        self.call("Page.navigate", url=url)
        self.ready()

    def ready(self) -> None:
        """Wait until the script has run and everything is drawn."""
        self.until(_READY, "the page is ready")

    def until(self, expression: str, what: str = "") -> Any:
        """Return the first value of the expression that is true."""
        try:
            return eventually(lambda: self.evaluate(expression), what or expression)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page says: {' / '.join(self.text().split())[:2000]}") from None

    def text(self) -> str:
        """Return what a person can read, without what is drawn on a canvas."""
        return str(self.evaluate("document.body.innerText"))

    def shows(self, text: str) -> None:
        """Wait until the page says it."""
        self.until(f"document.body.innerText.includes({json.dumps(text)})", f"the page says {text!r}")

    def click(self, text: str, selector: str = "button") -> None:
        """Press the mouse on what holds the text, once nothing on the page moves any more."""
        self.call("Page.bringToFront")
        self.ready()
        find = f"({_FIND})({json.dumps(selector)}, {json.dumps(text)})"
        self.until(f"(one => one && !one.disabled)({find})", f"there is {text!r} to press")
        self.evaluate(f"{find}.scrollIntoView({{block: 'center'}})")
        self.press(*self.still(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
                               f"({find}.getBoundingClientRect())"))  # fmt: skip

    def still(self, place: str) -> tuple[float, float]:
        """Return a place once it has stopped to move: what opens slides, and takes along what is below."""
        seen: list[tuple[float, float]] = []

        def rests() -> bool:
            seen.append(tuple(self.evaluate(place)))
            return len(seen) > 3 and len(set(seen[-4:])) == 1

        eventually(rests, "the page stands still")
        return seen[-1]

    def press(self, x: float, y: float) -> None:
        """Press the mouse at a place."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, label: str, text: str) -> None:
        """Type into the field of a label, and leave it."""
        find = f"document.querySelector({json.dumps(f'input[aria-label={json.dumps(label)}]')})"
        self.until(f"{find} !== null", f"there is a field {label}")
        self.evaluate(f"{find}.focus()")
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)

    def mark_row(self, row: int, table: int = 0) -> None:
        """Press the marker before a row of a table, which is drawn on a canvas."""
        self.call("Page.bringToFront")
        self.ready()
        find = f"document.querySelectorAll('[data-testid=stDataFrame]')[{table}]"
        self.until(f"Boolean({find}?.querySelector('canvas'))", "the table is drawn")
        self.evaluate(f"{find}.scrollIntoView({{block: 'center'}})")
        x, y = self.still(f"(({{x, y}}) => [x, y])({find}.getBoundingClientRect())")
        self.press(x + 16, y + 53 + ROW_PIXELS * row)

    def resize(self, width: int, height: int) -> None:
        """Make the window this large, which a width below 600 pixels makes a telephone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, *, dark: bool) -> None:
        """Say whether the person prefers dark pages."""
        value = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def settle(self) -> None:
        """Wait until two pictures in a row are the same."""
        seen: list[str] = []

        def same() -> bool:
            seen.append(self.call("Page.captureScreenshot", format="png")["data"])
            return len(seen) > 3 and seen[-1] == seen[-2] == seen[-3]

        eventually(same, "the page does not change any more")

    def picture(self, path: Path) -> None:
        """Keep a picture of what is in the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._opened.close()

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(params["url"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))


def eventually(condition: Callable[[], T], what: str) -> T:
    """Return the first true value of ``condition``; fail when none comes before the deadline."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {DEADLINE:g} s"
        time.sleep(0.05)
    return value
