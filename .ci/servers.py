"""Servers as processes: started on a free port, told to end, or killed."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

BITNET = os.environ["BITNET_BIN"]
# What must happen does so well within this, and what never happens is noticed.
PATIENCE = 60


def until(condition, what):
    """Waits for a condition, and gives what it gave. How long that takes is nobody's concern."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)
    return found


def answers(url):
    """Whether a GET of an address is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return response.status == 200
    except OSError:
        return False


class Server:
    """`bitnet serve` with some options; by default the demo model, with a template that adds nothing."""

    def __init__(self, *options, port=0):
        command = [BITNET, "serve", "--port", str(port), "--chat-template", "plain", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = []
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()
        try:
            self.url = until(self.address, f"{command} listens")
            until(lambda: answers(self.url + "/readyz"), "the model is loaded")
        except BaseException:
            self.process.kill()
            raise

    def listen(self):
        """Keeps what the server says, so that it never waits for a reader."""
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))

    def address(self):
        assert self.process.poll() is None, self.said
        lines = [line for line in self.said if line.startswith("listening on ")]
        return lines[0].removeprefix("listening on ") if lines else None

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1])

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as response:
            return json.load(response)

    def post(self, path, body):
        with urllib.request.urlopen(self.url + path, json.dumps(body).encode()) as response:
            return json.load(response)

    def families(self):
        """What /metrics says, by the names that the parser gives to families."""
        with urllib.request.urlopen(self.url + "/metrics") as response:
            families = text_string_to_metric_families(response.read().decode())
            return {family.name: family for family in families}

    def figure(self, family, **labels):
        """One figure of /metrics."""
        for sample in self.families()[family].samples:
            if labels.items() <= sample.labels.items():
                return sample.value
        raise AssertionError(f"there is no {family} with {labels}")

    def until_idle(self):
        """Waits until nothing runs or waits."""
        idle = lambda: self.figure("bitnet_requests_running") + self.figure("bitnet_requests_waiting") == 0
        until(idle, "the server is idle")

    def end(self, how=signal.SIGTERM):
        """Tells it to end, and gives its exit code."""
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE)
        self.reader.join()
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            code = self.end(signal.SIGTERM if kind is None else signal.SIGKILL)
            assert kind is not None or code == 0, (code, self.said[-5:])
