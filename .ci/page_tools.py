"""What page.py drives the page of `bitnet serve` with: servers, a valve before them, tabs of a browser."""

import json
import re
import socket
import subprocess
import threading
import time
import urllib.request
from types import SimpleNamespace

from playwright.sync_api import expect

WAIT = 30_000  # Milliseconds until something counts as not happening.
expect.set_options(timeout=WAIT)


# Least contrast of texts that are shown with what is behind them, and which that is.
CONTRAST = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => channels(color).slice(0, 3)
    .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if ((channels(color)[3] ?? 1) === 1) return color;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const field = element.matches("input, textarea");
    if (!(own || field) || !element.checkVisibility()) continue;
    for (const pseudo of field ? [null, "::placeholder"] : [null]) {
      const { color, opacity } = getComputedStyle(element, pseudo);
      const [a, b] = [light(color), light(behind(element))].sort((a, b) => a - b);
      found.push([(b + 0.05) / (a + 0.05) * opacity, element.outerHTML.slice(0, 80)]);
    }
  }
  return { texts: found.length, least: found.sort((a, b) => a[0] - b[0])[0], back: light(behind(document.body)) };
}"""


class Server:
    """`bitnet serve` with the demo model: short answers, since they share a context of 512 tokens, and the same
    each time, so that none ends earlier than it did."""

    def __init__(self, bitnet, *options, port=0):
        command = [bitnet, "serve", "--port", str(port), "--chat-template", "plain", "--seed", "1", "--predict", "40"]
        command += options
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        lines = iter(self.process.stderr.readline, "")
        self.said = [next(line for line in lines if "listening on" in line)]
        self.port = int(self.said[0].rsplit(":", 1)[1])
        self.said.append(next(line for line in lines if " is ready" in line))
        # A pipe that nobody reads would hold the server up.
        threading.Thread(target=lambda: self.said.extend(lines), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def props(self):
        with urllib.request.urlopen(self.url + "props") as response:
            return json.load(response)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Valve:
    """Passes connections on to a server, and of each stream of events as many as are let through."""

    def __init__(self, server):
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.changed = threading.Condition()
        self.most = None
        self.left = 0  # Streams that the browser left before their end.
        threading.Thread(target=self.accept, daemon=True).start()

    def let(self, most):
        """Lets so many events of a stream through; all, if it is None."""
        with self.changed:
            self.most = most
            self.changed.notify_all()

    def is_left(self, times):
        """Waits until the browser has left so many streams."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.left == times, WAIT / 1000), self.left

    def cut(self):
        """Kills the server, and ends streams where they are."""
        self.server.kill()
        self.let(-1)

    def accept(self):
        while True:
            browser, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.server.port))
            except ConnectionRefusedError:
                browser.close()
                continue
            state = SimpleNamespace(events=0, gone=False)
            threading.Thread(target=self.up, args=(browser, server, state), daemon=True).start()
            threading.Thread(target=self.down, args=(server, browser, state), daemon=True).start()

    def up(self, browser, server, state):
        for data in received(browser):
            state.events = 0
            try:
                server.sendall(data)
            except OSError:
                break  # It has just been killed.
        with self.changed:
            state.gone = True
            self.changed.notify_all()
        end(server)

    def down(self, server, browser, state):
        for part in (part for data in received(server) for part in re.split(b"(?=data: )", data)):
            state.events += part.startswith(b"data: ")
            passes = lambda: self.most is None or state.events <= self.most
            with self.changed:
                self.changed.wait_for(lambda: passes() or state.gone or self.most == -1)
                if state.gone:
                    self.left += state.events > 0
                    self.changed.notify_all()
                if state.gone or not passes():
                    break
            try:
                browser.sendall(part)
            except OSError:
                break  # It has just left.
        end(browser)


def until(holds):
    """Waits for what the browser does not tell of itself."""
    deadline = time.monotonic() + WAIT / 1000
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"


def received(connection):
    while True:
        try:
            data = connection.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return
        yield data


def end(connection):
    """Ends a connection at once, with another thread that still reads from it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The other side was first.
    connection.close()


class Tab:
    """The page, in a tab of its own. What the browser complains of must be expected."""

    def __init__(self, browser, url, **options):
        self.url = url
        self.context = browser.new_context(**options)
        self.complaints, self.requests = [], []
        self.page = self.open()
        by_role = self.page.get_by_role
        self.box = by_role("textbox", name="Message", exact=True)
        self.send = by_role("button", name="Send", exact=True)
        self.stop = by_role("button", name="Stop", exact=True)
        self.again = by_role("button", name="Regenerate", exact=True)
        self.settings = by_role("dialog", name="Settings", exact=True)
        self.alert = by_role("log").get_by_role("alert")
        self.state = self.page.locator("header").get_by_role("status")
        self.turns = self.page.locator("article.user, article.assistant")
        self.answer = self.page.locator("article.assistant p").last
        self.note = self.page.locator("article.assistant footer span").last

    def open(self):
        page = self.context.new_page()
        page.set_default_timeout(WAIT)
        wrong = ("error", "warning")
        page.on("console", lambda message: message.type in wrong and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: self.requests.append(request))
        policy = "addEventListener('securitypolicyviolation', (e) => console.error('policy:', e.violatedDirective))"
        page.add_init_script(policy)
        self.response = page.goto(self.url)
        return page

    def bodies(self):
        return [request.post_data_json for request in self.requests if request.method == "POST"]

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self):
        return self.page.evaluate("document.activeElement.id")

    def say(self, text):
        expect(self.box).to_be_focused()
        self.page.keyboard.type(text)
        self.press("Enter")

    def done(self, turns=None):
        expect(self.send).to_be_visible()
        expect(self.stop).to_be_hidden()
        if turns is not None:
            expect(self.turns).to_have_count(turns)

    def tell(self, text, turns=2):
        """Says something that is answered."""
        self.say(text)
        self.done(turns)
        expect(self.alert).to_have_count(0)
        expect(self.note).to_have_text(re.compile("tok/s"))

    def set(self, **values):
        """Opens the settings with the keyboard, changes some, and closes them."""
        self.page.get_by_role("button", name="Settings", exact=True).focus()
        self.press("Enter")
        expect(self.settings).to_be_visible()
        for label, value in values.items():
            self.settings.get_by_label(label.replace("_", " ")).fill(value)
        self.press("Escape")
        expect(self.settings).to_be_hidden()
        self.box.focus()

    def close(self, *expected):
        """Ends; of what the browser complained of, each must be expected, and come."""
        for complaint in self.complaints:
            assert any(part in complaint for part in expected), complaint
        for part in expected:
            assert any(part in complaint for complaint in self.complaints), f"nobody complained: {part}"
        for request in self.requests:
            assert request.url.startswith(self.url) or request.url.startswith("data:image/"), request.url
        self.context.close()
