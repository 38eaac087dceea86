"""What all tests have: servers, and clients of them."""

import json
import subprocess
from pathlib import Path

import anthropic
import openai
import pytest

from servers import BITNET, Server

# How the demo model goes on with "Once upon a time", into how many tokens it cuts that, and with its BOS.
STORY = " there lived a king who had three sons"
STORY_TOKENS = 8
PROMPT_TOKENS = 6
# Enough tokens for all white space that the model puts between what it must say.
MOST = 400
# What a function takes that throws dice.
SIDES = {
    "type": "object",
    "properties": {"sides": {"type": "integer", "minimum": 3, "maximum": 9}},
    "required": ["sides"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def server():
    """A server that most tests share."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def tireless_model(tmp_path_factory):
    """Options for the demo model with far more context than it was trained for, that never ends a text: what it
    says there makes no sense, and goes on for longer than anybody waits."""
    demo = Path(__file__).parents[2] / "models/bitnet-tales-i2_s.gguf"
    folder = tmp_path_factory.mktemp("models") / "tireless"
    subprocess.run([BITNET, "convert", demo, folder, "--to", "hf"], check=True, stderr=subprocess.DEVNULL)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 100_000
    (folder / "config.json").write_text(json.dumps(config))
    return ["--model", str(folder), "--logit-bias", f"{config['eos_token_id']}-inf"]


@pytest.fixture(scope="session")
def tireless(tireless_model):
    """A server of it with two places, behind which nobody can wait."""
    with Server(*tireless_model, "--parallel", "2", "--max-queue", "0") as server:
        yield server


@pytest.fixture(scope="session")
def keyed():
    """A server that asks for one of two keys."""
    with Server("--api-key", "sesame,simsim") as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    return connect(server)


@pytest.fixture(scope="session")
def other(server):
    return connect(server, anthropic.Anthropic)


@pytest.fixture(scope="session")
def model(client):
    return client.models.list().data[0].id


def connect(server, kind=openai.OpenAI, **options):
    """A client that asks once, if not told otherwise."""
    path = "/v1" if kind.__module__.startswith("openai") else ""
    return kind(base_url=server.url + path, **{"api_key": "none", "max_retries": 0, **options})
