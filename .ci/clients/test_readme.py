"""What README says of the server."""

import pathlib
import re
import subprocess

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_three_lines(server):
    section = README.read_text().split("## A server")[1].split("\n## ")[0]
    start, install, ask = re.search(r"```sh\n(.*?)\n```", section, re.DOTALL)[1].split("\n")
    assert start.startswith("cargo run --release -- serve") and install == "pip install openai"
    ask = ask.replace("http://127.0.0.1:8080", server.url)
    said = subprocess.run(ask, shell=True, check=True, capture_output=True, text=True).stdout
    assert len(said.split()) > 10, said
