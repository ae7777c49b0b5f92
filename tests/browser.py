"""A real browser without a window: Chromium, told what to do through its DevTools protocol, JSON over two pipes
(https://chromedevtools.github.io/devtools-protocol/). Tests type and click with it as a person does, and read what the
page shows."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# As root it has no sandbox, in a container little shared memory; it reads pages of ours alone.
FLAGS = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
KEYS = {"Enter": ("\r", 13), "Backspace": ("", 8)}  # name: the text that it types, and its number
SHIFT = 8
PATIENCE = 15  # seconds


class Browser:
    """One Chromium with one tab.

    complaints: what the page wrote to the console, its JavaScript errors, and what could not be loaded.
    dialogs: the messages of alert() and prompt(); answer: what the next ones are answered, None = cancel.
    """

    def __init__(self, folder):
        """Start it. folder: where its profile goes."""
        commands, self.commands = os.pipe()
        self.replies, replies = os.pipe()
        # Chromium reads commands from 3 and writes replies to 4. Either number may be one of the pipes' own ends here.
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands, replies)]
        actions = [(os.POSIX_SPAWN_DUP2, ends[0], 3), (os.POSIX_SPAWN_DUP2, ends[1], 4)]
        actions += [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder}", "--remote-debugging-pipe"]
        self.process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=actions, setpgroup=0)
        for fd in (commands, replies, *ends):
            os.close(fd)
        self.number, self.session, self.unread = 0, {}, b""
        self.complaints, self.dialogs, self.answer = [], [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """End it and the processes that it started."""
        os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.commands)
        os.close(self.replies)

    # -- the protocol

    def send(self, method, **parameters):
        """Send a command; its number."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **self.session}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        return self.number

    def call(self, method, **parameters):
        """The result of a command. What happens meanwhile is noted."""
        number = self.send(method, **parameters)
        while (message := self.read()).get("id") != number:
            self.note(message.get("method"), message.get("params"))
        assert "result" in message, message
        return message["result"]

    def read(self):
        """The next message of the browser."""
        while b"\0" not in self.unread:
            assert select.select([self.replies], [], [], PATIENCE)[0], "the browser says nothing"
            part = os.read(self.replies, 1 << 20)
            assert part, "the browser has ended"
            self.unread += part
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def note(self, event, about):
        """Keep what a person would see in the console, and answer dialogs."""
        if event == "Runtime.consoleAPICalled":
            self.complaints.append(" ".join(str(part.get("value")) for part in about["args"]))
        elif event == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Log.entryAdded":
            self.complaints.append(about["entry"]["text"])
        elif event == "Page.javascriptDialogOpening":
            self.dialogs.append(about["message"])
            parameters = {"accept": self.answer is not None, "promptText": self.answer or ""}
            self.send("Page.handleJavaScriptDialog", **parameters)

    # -- what a person sees

    def see(self, expression):
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.see(f"!!({expression})"):
            assert time.monotonic() < end, f"{expression} never came; the page shows: {self.text('body')}"
            time.sleep(0.02)

    def text(self, selector):
        """The text that an element shows."""
        return self.see(f"document.querySelector({json.dumps(selector)}).innerText")

    def picture(self, path):
        """Write what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    # -- what a person does

    def open(self, url):
        """Go to an address, or load it again, and wait until it is there."""
        self.see("window.isOld = true")
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && !window.isOld")

    def size(self, width, height):
        """Make the window so large, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def click(self, selector):
        """Click on the middle of an element."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.see(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text):
        """Type a text into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key, modifiers=0):
        """Press a key, with Shift where modifiers says so."""
        text, number = KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)
