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
_REST = """new Promise(done => {
  const seen = [];
  const look = () => {
    seen.push(String(%s));
    if (seen.length > 3 && new Set(seen.slice(-4)).size === 1) done(seen.at(-1).split(",").map(Number));
    else requestAnimationFrame(look);
  };
  look();
})"""
_CONTROLS = {"button", "checkbox", "combobox", "grid", "link", "listbox", "radio", "searchbox", "slider", "spinbutton",
             "switch", "tab", "textbox"}  # fmt: skip
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "Escape": (27, ""), "ArrowDown": (40, "")}


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

    def go(self, title: str) -> None:
        """Go to another page of the dashboard by its link, as a person does; nothing is loaded anew."""
        self.call("Page.bringToFront")
        self.ready()
        links = "[...document.querySelectorAll('[data-testid=stSidebarNavLink]')]"  # behind an icon each
        link = f"{links}.find(one => one.textContent.endsWith({json.dumps(title)}))"
        self.until(f"Boolean({link})", f"there is a link {title}")
        self.evaluate(f"{link}.click()")
        self.until(f"document.querySelector('main h1')?.innerText === {json.dumps(title)}", f"{title} begins")
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
        """Return a place once it is the same in four frames: what opens slides, and takes along what is below."""
        x, y = self.evaluate(_REST % place)
        return x, y

    def press(self, x: float, y: float) -> None:
        """Press the mouse at a place."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, label: str, text: str) -> None:
        """Type into the field of a label instead of what it holds, and leave it."""
        find = f"document.querySelector({json.dumps(f'input[aria-label={json.dumps(label)}]')})"
        self.until(f"{find} !== null", f"there is a field {label}")
        self.evaluate(f"({find}.focus(), {find}.select())")
        self.call("Input.insertText", text=text)
        self.key("Enter")

    def key(self, key: str, *, shift: bool = False) -> None:
        """Press a key and let it go."""
        code, text = _KEYS[key]
        pressed = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code,
                   "modifiers": 8 if shift else 0}  # fmt: skip
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def focused(self) -> str:
        """Return role and name of what has the focus, as a screen reader says them."""
        found = self.call("Runtime.evaluate", expression="document.activeElement")["result"]
        (node,) = self.call("Accessibility.getPartialAXTree", objectId=found["objectId"], fetchRelatives=False)["nodes"]
        return _said(node)

    def controls(self) -> list[str]:
        """Return role and name of everything on the page that can be worked with."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [_said(node) for node in nodes if not node["ignored"] and node["role"]["value"] in _CONTROLS]

    def tab_to(self, wanted: str, most: int = 60) -> list[str]:
        """Press Tab until something has the focus that is said to be ``wanted``; return what had it before."""
        passed: list[str] = []
        while wanted not in (here := self.focused()):
            passed.append(here)
            assert len(passed) <= most, f"no Tab leads to {wanted}: {passed}"
            self.key("Tab")
        return passed

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
        """Say whether the person prefers dark pages; nobody here likes to wait for what moves."""
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

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

    def leave(self) -> None:
        """Close the tab, which would go on to draw what nobody looks at."""
        self.call("Page.close")

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


def _said(node: dict[str, Any]) -> str:
    return f"{node['role']['value']} {node.get('name', {}).get('value', '')}".strip()


def eventually(condition: Callable[[], T], what: str) -> T:
    """Return the first true value of ``condition``; fail when none comes before the deadline."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {DEADLINE:g} s"
        time.sleep(0.05)
    return value
