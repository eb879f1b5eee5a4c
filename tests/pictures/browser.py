"""A headless Chromium, driven over a pair of pipes by the DevTools protocol.

The protocol is https://chromedevtools.github.io/devtools-protocol/; with `--remote-debugging-pipe` Chromium
reads commands from descriptor 3 and writes answers to descriptor 4, each one JSON and a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Self

CHROMIUM = shutil.which("chromium")
QUALITY = 75  # of a picture: text stays sharp, and a page takes some 60 KB
SECONDS = 60.0  # for one command, on a machine that does other things too

Answer = dict[str, Any]


class Page:
    """One tab. `asked`: the addresses it has asked for; `wrong`: exceptions of its script and refusals."""

    def __init__(self, to: int, by: int) -> None:
        self._to, self._by = to, by
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.asked: list[str] = []
        self.wrong: list[str] = []

    def open(self) -> Self:
        """Open the tab."""
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.do(f"{domain}.enable")
        return self

    def show(self, url: str, scheme: str, width: int) -> None:
        """Load an address in `light` or `dark`, so many pixels wide."""
        self.do("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.asked.clear()
        self.wrong.clear()
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.do("Emulation.setEmulatedMedia", features=[feature])
        self._size(width, 900)
        self.do("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def _size(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.do("Emulation.setDeviceMetricsOverride", **size)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, of a promise too."""
        answer = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        deadline = monotonic() + SECONDS
        while not self.evaluate(script):
            assert monotonic() < deadline, f"never true: {script}"
            self.evaluate("new Promise(over => setTimeout(over, 50))")

    def picture(self, kind: str) -> bytes:
        """Return the whole page as `webp` or `png`."""
        how = {"captureBeyondViewport": True, "clip": self._clip(), "format": kind}
        shot = self.do("Page.captureScreenshot", **how, **({"quality": QUALITY} if kind == "webp" else {}))
        return base64.b64decode(shot["data"])

    def _clip(self) -> dict[str, float]:
        size = self.do("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def do(self, method: str, **parameters: Any) -> Answer:
        """Give one command, and return its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        return dict(answer["result"])

    def _note(self, event: Answer) -> None:
        told = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.wrong.append(told["exceptionDetails"]["text"])
        elif event["method"] == "Log.entryAdded" and _is_fault(told["entry"]):
            self.wrong.append(told["entry"]["text"])

    def _next(self) -> Answer:
        while b"\0" not in self._rest:
            readable, _, _ = select.select([self._by], [], [], SECONDS)
            assert readable, "Chromium does not answer"
            more = os.read(self._by, 1 << 20)
            assert more, "Chromium has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


def _is_fault(entry: Answer) -> bool:
    """Whether the page is wrong: what its policy refuses, say. An answer with 403 is told on the page."""
    return bool(entry["level"] == "error" and entry["source"] != "network")


@contextmanager
def page(directory: Path) -> Iterator[Page]:
    """A tab of a Chromium that ends with the block; its profile is in the directory."""
    theirs_read, ours_write = os.pipe()
    ours_read, theirs_write = os.pipe()
    words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    words += [f"--user-data-dir={directory}", "--remote-debugging-pipe"]
    # A shell puts the two ends at the descriptors that Chromium wants.
    moved = ["bash", "-c", f'exec "$@" 3<&{theirs_read} 4>&{theirs_write}', "bash", *words]
    with (directory / "chromium.log").open("wb") as log:
        chromium = subprocess.Popen(
            moved, pass_fds=(theirs_read, theirs_write), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    os.close(theirs_read)
    os.close(theirs_write)
    try:
        yield Page(ours_write, ours_read).open()
    finally:
        os.close(ours_write)
        os.close(ours_read)
        chromium.terminate()
        chromium.wait()
