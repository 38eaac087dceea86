"""The library of OpenAI for JavaScript: its tests are in openai.test.mjs."""

import os
import shutil
import subprocess
from pathlib import Path


def test_javascript(server, tireless):
    # The library lies where it is installed, and is looked for beside the file that imports it.
    folder = Path(os.environ["BITNET_NODE_MODULES"]).parent
    script = shutil.copy(Path(__file__).with_name("openai.test.mjs"), folder)
    env = {**os.environ, "BITNET_URL": server.url, "BITNET_TIRELESS_URL": tireless.url}
    done = subprocess.run(["node", "--test", script], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
