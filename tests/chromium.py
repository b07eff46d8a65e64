"""A real Chromium without a window, spoken to over two pipes in its own protocol: clicks, keys, console, requests.

https://chromedevtools.github.io/devtools-protocol/; `--remote-debugging-pipe`: commands on descriptor 3, answers on 4,
each a JSON object that ends in a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import slurm_packages

NAMES = ("google-chrome-stable", "google-chrome", "chromium", "chromium-browser")
PACKAGE = "chromium"  # Debian's
ANSWER_S = 600.0  # only so that nothing waits for ever: a busy machine starts it slowly
POLL_S = 0.01


def find() -> str:
    """The path of a Chromium that starts; in CI one is installed where apt-get may. Raises LookupError with a reason.

    Elsewhere nothing is installed: nobody expects that of tests.
    """
    found = _installed()
    if found is None and os.environ.get("CI") == "true" and os.geteuid() == 0 and shutil.which("apt-get"):
        try:
            slurm_packages.apt("install", PACKAGE)
        except subprocess.CalledProcessError as error:
            last = error.stderr.strip().rpartition("\n")[2]
            raise LookupError(f"apt-get cannot install {PACKAGE}: {last}") from None
        found = _installed()
    if found is None:
        raise LookupError(f"none of {', '.join(NAMES)} is installed and starts (one that snap confines cannot be used)")
    return found


def _installed() -> str | None:
    for path in filter(None, map(shutil.which, NAMES)):
        with suppress(OSError, subprocess.TimeoutExpired):
            told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=ANSWER_S)
            # Ubuntu's chromium-browser only calls snap, whose Chromium sees neither these pipes nor a folder of tests
            if told.returncode == 0 and "snap" not in told.stdout.lower():
                return path
    return None


class Page:
    """A tab. `said` holds what its console got, also what the browser itself put there; `asked`, its requests."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.said: list[str] = []
        self.asked: list[str] = []
        self.loaded: set[str] = set()  # loaders (one a document) whose load event is over

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def open(self, path: Path, hash_: str = "") -> None:
        """Loads a file and waits until its script has run; where it is there already, only its hash changes."""
        address = path.resolve().as_uri() + hash_
        loader = self.call("Page.navigate", url=address).get("loaderId")
        if loader is not None:
            self.browser.wait(lambda: loader in self.loaded)  # by its loader: about:blank may tell of its own only now
        self.until(f"document.URL === {json.dumps(address)} && document.readyState === 'complete'")
        self.settle()

    def reload(self) -> None:
        before = set(self.loaded)
        self.call("Page.reload")
        self.browser.wait(lambda: bool(self.loaded - before))

    def turn(self, hash_: str) -> None:
        """Sets another hash and waits until the page has heard of it."""
        self.ask(
            "new Promise(done => { addEventListener('hashchange', () => done(), {once: true});"
            f" location.hash = {json.dumps(hash_)} }})"
        )

    def until(self, expression: str) -> None:
        """Waits until this JavaScript expression holds. Raises TimeoutError where it does not come to that."""
        deadline = time.monotonic() + ANSWER_S
        while not self.ask(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {ANSWER_S:g} s: {expression}")
            time.sleep(POLL_S)

    def until_said(self, part: str) -> None:
        """Waits until a line of `said` has this part."""
        self.browser.wait(lambda: any(part in line for line in self.said))

    def shape(self, width: int, height: int = 800) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, scheme: str, kind: str = "") -> None:
        """`light` or `dark`, as the system says; `kind` may be `print`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=kind, features=features)

    def before(self, script: str) -> None:
        """Runs this in every page before its own scripts."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression. Raises RuntimeError where it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", answer["exceptionDetails"]))
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """A click with the mouse in the middle of the element."""
        middle = "(r => [r.x + r.width / 2, r.y + r.height / 2])(e.getBoundingClientRect())"
        found = f"(e => (e.scrollIntoView({{block: 'center'}}), {middle}))(document.querySelector({selector!r}))"
        x, y = self.ask(found)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, with its virtual key code: Enter 13, Tab 9."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)
        self.settle()

    def settle(self) -> None:
        """Waits until the page has been drawn twice: what was queued before, as a changed hash, is over then."""
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")

    def picture(self, whole: bool = True) -> bytes:
        """A png of the page, of all of its height."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def hear(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.lifecycleEvent" and params["name"] == "load":
            self.loaded.add(params["loaderId"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            told = params["exceptionDetails"]
            self.said.append(f"exception: {told.get('exception', {}).get('description', told['text'])}")
        elif method == "Runtime.consoleAPICalled":
            words = [str(one.get("value", one.get("description"))) for one in params["args"]]
            self.said.append(f"{params['type']}: {' '.join(words)}")
        elif method == "Log.entryAdded":
            self.said.append(f"{params['entry']['level']}: {params['entry']['text']}")


class Browser:
    """One process of Chromium; `page()` opens tabs in it that know nothing of each other."""

    def __init__(self, path: str, home: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (theirs_in, theirs_out)]
        commands = [(high[0], 3), (high[1], 4)]  # from above 9, so that neither overwrites the other
        nothing = os.open(os.devnull, os.O_RDWR)
        argv = [path, *FLAGS, f"--user-data-dir={home / 'profile'}", "about:blank"]
        self.log = home / "chromium.log"
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.pid = os.posix_spawn(
            *(path, argv, {**os.environ, "HOME": str(home)}),
            file_actions=[(os.POSIX_SPAWN_DUP2, *pair) for pair in ((nothing, 0), (log, 1), (log, 2), *commands)],
            setpgroup=0,
        )
        for descriptor in (theirs_in, theirs_out, *high, nothing, log):
            os.close(descriptor)
        self.ours_in, self.ours_out = ours_in, ours_out
        self.heard, self.last = b"", 0
        self.lost: str | None = None  # why it answers no more
        self.answers: dict[int, dict[str, Any]] = {}
        self.pages: dict[str, Page] = {}

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Sends a command and waits for its result. Raises RuntimeError where it is refused or the browser is gone."""
        self.last += 1
        mine, message = self.last, {"id": self.last, "method": method, "params": params}
        text = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        try:
            while text:
                text = text[os.write(self.ours_out, text) :]
        except BrokenPipeError:
            raise self._gone("has ended") from None
        try:
            self.wait(lambda: mine in self.answers)
        except TimeoutError:
            raise self._gone(f"has not answered {method} for {ANSWER_S:g} s") from None
        answer = self.answers.pop(mine)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, until: Callable[[], bool]) -> None:
        """Listens until this holds. Raises TimeoutError where it does not come to that."""
        deadline = time.monotonic() + ANSWER_S
        while not until():
            if self.lost is not None:
                raise RuntimeError(self.lost)
            if not select.select([self.ours_in], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium has told nothing more for {ANSWER_S:g} s; {self._tail()}")
            read = os.read(self.ours_in, 1 << 20)
            if not read:
                raise self._gone("has ended")
            *whole, self.heard = (self.heard + read).split(b"\0")
            for message in map(json.loads, whole):
                if "id" in message:
                    self.answers[message["id"]] = message
                elif (page := self.pages.get(message.get("sessionId", ""))) is not None:
                    page.hear(message["method"], message["params"])

    def _gone(self, how: str) -> RuntimeError:
        """Every later call fails at once and says the same."""
        self.lost = self.lost or f"Chromium {how}; {self._tail()}"
        return RuntimeError(self.lost)

    def _tail(self) -> str:
        return f"its log ends: {self.log.read_text(errors='replace')[-1000:].strip() or '(empty)'}"

    @contextmanager
    def page(self, width: int = 1280) -> Iterator[Page]:
        context = self.call("Target.createBrowserContext")["browserContextId"]
        session = None
        try:
            target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
            session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            page = self.pages[session] = Page(self, session)
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            page.call("Page.setLifecycleEventsEnabled", enabled=True)
            page.shape(width)
            yield page
        finally:
            self.pages.pop(session or "", None)
            with suppress(RuntimeError):  # of a browser that is gone: what went wrong first is told
                self.call("Target.disposeBrowserContext", browserContextId=context)

    def close(self) -> None:
        """Ends it with all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.ours_in)
        os.close(self.ours_out)


FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--disable-breakpad", "--disable-crash-reporter"),  # Debian's starts a handler even so; it ends with the browser
)
