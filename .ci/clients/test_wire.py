"""What is on the wire, as curl shows it: headers, framing, methods."""

import json
import subprocess

import pytest
from conftest import STORY, STORY_TOKENS

CHAT = {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": STORY_TOKENS, "temperature": 0}


class Reply:
    """What curl got: the status, headers by their names in lower case, and the body."""

    def __init__(self, url, *options):
        command = ["curl", "-sSN", "--max-time", "60", "-i", *options, url]
        done = subprocess.run(command, capture_output=True, check=True)
        head, self.body = done.stdout.decode().split("\r\n\r\n", 1)
        status, *lines = head.split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def json(self):
        return json.loads(self.body)


def send(server, path, body, *options):
    return Reply(server.url + path, "--json", json.dumps(body), *options)


def events(body):
    """The events of a stream: their names, and their data. Comments are none."""
    assert body.endswith("\n\n")
    for event in body[:-2].split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.split("\n") if not line.startswith(":"))
        if lines:
            assert set(lines) <= {"event", "data"}, lines
            yield lines.get("event"), lines["data"]


def test_stream_of_a_chat(server):
    reply = send(server, "/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache" and reply.headers["x-accel-buffering"] == "no"
    *chunks, (_, done) = events(reply.body)
    assert done == "[DONE]"
    chunks = [json.loads(data) for name, data in chunks if name is None]
    first, last, usage = chunks[0], chunks[-2], chunks[-1]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == STORY_TOKENS
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == STORY


def test_stream_of_a_completion(server):
    fields = dict(prompt="Once upon a time", max_tokens=2, temperature=0, stream=True)
    reply = send(server, "/v1/completions", fields)
    *chunks, (_, done) = events(reply.body)
    assert done == "[DONE]" and "".join(json.loads(data)["choices"][0]["text"] for _, data in chunks) == " there lived"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_streams_with_names(server, path):
    body = {"messages": CHAT["messages"], "input": "Once upon a time", "max_tokens": 2, "stream": True}
    for name, data in events(send(server, path, body).body):
        assert json.loads(data)["type"] == name


def test_characters_come_whole(server):
    """Each event is JSON in UTF-8, also where a token ends within a character."""
    ids = server.post("/tokenize", {"content": "é😀"})["tokens"]
    assert len(ids) > 2, "the vocabulary has these characters in pieces"
    fields = dict(prompt="a", max_tokens=60, temperature=1, seed=1, ignore_eos=True)
    fields["logit_bias"] = [[id, 100] for id in ids]
    whole = send(server, "/v1/completions", fields).json()["choices"][0]["text"]
    reply = send(server, "/v1/completions", {**fields, "stream": True})
    parts = [json.loads(data)["choices"][0]["text"] for _, data in events(reply.body) if data != "[DONE]"]
    assert "".join(parts) == whole and not whole.isascii()


def test_names_of_requests(server):
    for path in ["/v1/models", "/health", "/nowhere"]:
        assert Reply(server.url + path, "-H", "x-request-id: tale-7").headers["x-request-id"] == "tale-7"
    names = {Reply(server.url + "/health").headers["x-request-id"] for _ in range(2)}
    assert len(names) == 2
    # What does not fit into a line of a log is not taken over.
    for bad in ["a b", "x" * 200]:
        assert Reply(server.url + "/health", "-H", f"x-request-id: {bad}").headers["x-request-id"] != bad


def test_pages_of_this_machine_may_ask(server):
    preflight = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST"]
    preflight += ["-H", "Access-Control-Request-Headers: authorization,content-type,x-stainless-os"]
    reply = Reply(server.url + "/v1/chat/completions", *preflight, "-H", "Origin: http://localhost:3000")
    assert reply.status in (200, 204)
    assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "authorization" in reply.headers["access-control-allow-headers"]
    for origin in ["https://example.org", "http://localhost.example.org", "null"]:
        reply = Reply(server.url + "/v1/chat/completions", *preflight, "-H", f"Origin: {origin}")
        assert "access-control-allow-origin" not in reply.headers, origin
    reply = send(server, "/v1/chat/completions", CHAT, "-H", "Origin: http://127.0.0.1:5173")
    assert reply.headers["access-control-allow-origin"] == "http://127.0.0.1:5173"
    assert "x-request-id" in reply.headers["access-control-expose-headers"]


def test_preflights_need_no_key(keyed):
    preflight = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST", "-H", "Origin: http://localhost:3000"]
    assert Reply(keyed.url + "/v1/chat/completions", *preflight).status in (200, 204)
    refused = send(keyed, "/v1/chat/completions", CHAT)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics", "/"])
def test_head_is_get_without_a_body(server, path):
    head, got = Reply(server.url + path, "-I"), Reply(server.url + path)
    assert (head.status, head.body) == (got.status, "") == (200, "")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_methods_that_are_not_taken(server):
    reply = Reply(server.url + "/v1/chat/completions")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["error"]["code"] == "method_not_allowed"
    assert "GET" in Reply(server.url + "/v1/models", "-X", "DELETE").headers["allow"]
    assert Reply(server.url + "/nowhere").json()["error"]["code"] == "not_found"


def test_bodies_that_are_none(server):
    for body, code in [("", "invalid_json"), ("{", "invalid_json"), ("[]", "invalid_json")]:
        reply = Reply(server.url + "/v1/chat/completions", "--data-binary", body, "-X", "POST")
        assert (reply.status, reply.json()["error"]["code"]) == (400, code), body


def test_bodies_that_are_too_large(server, tmp_path):
    (tmp_path / "body").write_bytes(b" " * (17 << 20))
    reply = Reply(server.url + "/v1/chat/completions", "--data-binary", f"@{tmp_path / 'body'}", "-H", "Expect:")
    assert (reply.status, reply.json()["error"]["code"]) == (413, "request_too_large")


def test_probes(server):
    for path in ["/health", "/healthz", "/v1/health", "/readyz", "/livez"]:
        assert Reply(server.url + path).json() == {"status": "ok"}, path
    assert set(Reply(server.url + "/version").json()) == {"version"}


def test_nothing_of_what_was_asked_is_said(server):
    secret = "Rumpelstiltskin"
    send(server, "/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": secret}]})
    Reply(server.url + f"/{secret}")
    assert any("/v1/chat/completions 200" in line for line in server.said)
    assert not any(secret in line for line in server.said)
