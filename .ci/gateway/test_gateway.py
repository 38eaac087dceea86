"""Two servers behind a gateway (SMG), as clients of the gateway see them: the same answers as from one, and
none of them lost when a server goes away.

What the gateway has to be told for that is in SETTINGS, and why. docs/server.md tells it to users, and
deploy/compose.yaml has the same settings: test_deploy.py compares them."""

import concurrent.futures
import json
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request

import anthropic
import openai
import pytest

from servers import PATIENCE, Server, until

MODEL = "tale"
SETTINGS = [
    # Texts that begin alike go where their keys and values are.
    *["--policy", "cache_aware"],
    # Otherwise a server where 8 requests wait counts as overloaded. Where the other one is gone, that was the
    # last: the gateway then refuses all requests, although the server would take them.
    "--disable-worker-overload-protection",
    # A server that comes back gets requests again after this; the default is a minute.
    *["--cb-timeout-duration-secs", "2"],
    # Whether servers are well is asked once a minute by default; without an answer, they get no requests.
    *["--health-check-interval-secs", "1", "--health-failure-threshold", "1", "--health-success-threshold", "1"],
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def replica(*others, port=0):
    """One of the servers. The gateway takes them for vLLM, and reads figures by its names only. With few places,
    requests wait when there is load; with one thread, two of them do not get in each other's way."""
    options = ["--alias", MODEL, "--metrics-compat", "vllm", "--parallel", "4", "--threads", "1"]
    return Server(*options, *others, port=port)


class Gateway:
    """The gateway before some servers, and the key that they and it ask for."""

    def __init__(self, servers, log, key=None):
        ports = free_port(), free_port()
        command = ["smg", "launch", "--host", "127.0.0.1", "--port", str(ports[0]), *SETTINGS]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(ports[1])]
        command += ["--api-key", key] if key else []
        command += ["--worker-urls", *(server.url for server in servers)]
        self.url, self.key = f"http://127.0.0.1:{ports[0]}", key
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            until(lambda: len(self.healthy()) == len(servers), "the gateway knows the servers")
        except BaseException:
            self.process.kill()
            raise

    def healthy(self):
        """The addresses of servers that get requests."""
        asked = urllib.request.Request(self.url + "/workers", headers={"Authorization": f"Bearer {self.key}"})
        try:
            with urllib.request.urlopen(asked) as response:
                return {worker["url"] for worker in json.load(response)["workers"] if worker["is_healthy"]}
        except urllib.error.URLError:
            return set()

    def end(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def servers():
    both = [replica(), replica()]
    yield both
    assert [server.end() for server in both] == [0, 0]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """What gateways say."""
    with open(tmp_path_factory.mktemp("gateway") / "log", "w") as log:
        yield log


@pytest.fixture(scope="module")
def gateway(servers, log):
    gateway = Gateway(servers, log)
    yield gateway
    gateway.end()


@pytest.fixture
def client(gateway):
    return openai.OpenAI(base_url=gateway.url + "/v1", api_key="none", max_retries=0)


def story(n, **fields):
    """A request whose answer is always the same; some begin alike."""
    return dict(model=MODEL, prompt=f"Tale {n % 20}. Once upon a time", max_tokens=60, temperature=1, seed=n, **fields)


def tell(client, n):
    return client.completions.create(**story(n)).choices[0].text


def tell_streamed(client, n):
    """The same as a stream. Gives what came, whether it came to its end, and the error if there was one."""
    text, ended, error = "", False, None
    try:
        for chunk in client.completions.create(**story(n), stream=True):
            text += chunk.choices[0].text
            ended = chunk.choices[0].finish_reason is not None
    except openai.OpenAIError as why:
        error = why
    return text, ended, error


@pytest.fixture(scope="module")
def stories(servers):
    """What all requests must be answered with, whoever else asks."""
    alone = direct(servers[0])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda n: tell(alone, n), range(200)))


def direct(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def test_all_interfaces_are_as_without_it(client, servers, gateway):
    alone = direct(servers[0])
    user = [{"role": "user", "content": "Once upon a time"}]
    chat = dict(model=MODEL, messages=user, max_tokens=20, temperature=0)
    text = alone.chat.completions.create(**chat).choices[0].message.content
    assert client.chat.completions.create(**chat).choices[0].message.content == text
    chunks = list(client.chat.completions.create(**chat, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert tell(client, 1) == tell(alone, 1) == tell_streamed(client, 1)[0]
    embed = lambda client: client.embeddings.create(model=MODEL, input=["one", "two"]).data
    assert embed(client) == embed(alone)
    respond = dict(model=MODEL, input="Once upon a time", max_output_tokens=20, temperature=0)
    assert client.responses.create(**respond).output_text == text
    assert list(client.responses.create(**respond, stream=True))[-1].response.output_text == text
    other = anthropic.Anthropic(base_url=gateway.url, api_key="none", max_retries=0)
    said = dict(model=MODEL, messages=user, max_tokens=20, extra_body={"temperature": 0})
    with other.messages.stream(**said) as stream:
        assert stream.get_final_text() == other.messages.create(**said).content[0].text == text


def test_calls_of_functions_pass(client):
    parameters = {"type": "object", "properties": {"n": {"enum": [3, 4]}}, "required": ["n"]}
    parameters["additionalProperties"] = False
    tools = [{"type": "function", "function": {"name": "dice", "parameters": parameters}}]
    user = [{"role": "user", "content": "Once upon a time"}]
    answer = client.chat.completions.create(
        model=MODEL, messages=user, max_tokens=400, tools=tools, tool_choice="required", temperature=0
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "dice" and json.loads(call.function.arguments)["n"] in (3, 4)


def test_errors_of_servers_are_those_of_the_gateway(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=MODEL, prompt="king " * 2000)
    assert error.value.code == "context_length_exceeded"
    # The gateway knows the names of models, where a server takes any.
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="Hi")


def test_keys_are_asked_for_by_both(log):
    """The gateway has the key of the servers, and asks its clients for the same."""
    with replica("--api-key", "sesame") as server:
        gateway = Gateway([server], log, "sesame")
        try:
            connect = lambda key: openai.OpenAI(base_url=gateway.url + "/v1", api_key=key, max_retries=0)
            assert tell(connect("sesame"), 1) == openai.OpenAI(
                base_url=server.url + "/v1", api_key="sesame"
            ).completions.create(**story(1)).choices[0].text
            with pytest.raises(openai.AuthenticationError):
                tell(connect("barley"), 1)
        finally:
            gateway.end()


def test_full_servers_are_asked_again(log):
    """A server without a queue says 429 where another has a place, or will have."""
    with replica("--max-queue", "0") as one, replica("--max-queue", "0") as other:
        gateway = Gateway([one, other], log)
        try:
            client = direct(gateway)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                told = list(pool.map(lambda n: tell(client, n), range(80)))
            assert told == [tell(direct(one), n) for n in range(80)]
        finally:
            gateway.end()


def test_texts_that_begin_alike_go_to_one_server(client):
    """All requests of a conversation go where it was; of two, each to its own or both to one."""
    begin = ["Tell of the king and his three sons. " * 12, "Now of the fox, who was wiser than all. " * 12]
    went = {0: set(), 1: set()}
    for turn in range(6):
        for which in (0, 1):
            prompt = begin[which] + "And then? " * turn
            raw = client.completions.with_raw_response.create(model=MODEL, prompt=prompt, max_tokens=2)
            went[which].add(raw.headers["x-smg-routed-worker-id"])
    assert all(len(workers) == 1 for workers in went.values()), went


def test_load_is_shared(client, servers, stories):
    before = [server.figure("bitnet_generation_tokens") for server in servers]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda n: tell(client, n), range(40))) == stories[:40]
    assert all(server.figure("bitnet_generation_tokens") > was for server, was in zip(servers, before))


class Load:
    """Requests from many threads, each of a story of its own."""

    def __init__(self, work, requests, threads=16):
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)
        self.done = threading.Semaphore(0)
        self.futures = [self.pool.submit(self.one, work, n) for n in range(requests)]

    def one(self, work, n):
        try:
            return work(n)
        finally:
            self.done.release()

    def until_done(self, n):
        """Waits until some are through. The others run, or wait."""
        for _ in range(n):
            assert self.done.acquire(timeout=PATIENCE)

    def results(self):
        self.pool.shutdown()
        return [future.result() for future in self.futures]


@pytest.fixture
def returning(servers, gateway, client):
    """Starts servers that have gone where they were, and waits until they get work again."""
    yield
    for which, server in enumerate(servers):
        if server.process.poll() is not None:
            servers[which] = back = replica(port=server.port)
            until(lambda: back.url in gateway.healthy(), "the gateway sees the server again")
            numbers = iter(range(10**6))
            work = lambda: tell(client, next(numbers)) and back.figure("bitnet_generation_tokens") > 0
            until(work, "the server gets work again")


@pytest.mark.parametrize("gone", [0, 1])
def test_nothing_is_lost_when_a_server_is_told_to_end(client, servers, stories, returning, gone):
    """Whole answers and streams, those that are under way and those that come."""
    told = lambda n: (tell(client, n), True, None) if n % 2 else tell_streamed(client, n)
    load = Load(told, len(stories))
    load.until_done(40)
    assert servers[gone].end(signal.SIGTERM) == 0
    results = load.results()
    assert [error for _, _, error in results if error] == []
    assert all(ended for _, ended, _ in results)
    assert [text for text, _, _ in results] == stories


@pytest.mark.parametrize("gone", [0, 1])
def test_only_what_was_told_is_lost_when_a_server_dies(client, servers, stories, returning, gone):
    """Whole answers of which nothing had come are asked for again by the gateway. Streams that had begun end
    with an error: nobody takes a piece for the whole."""
    told = lambda n: (tell(client, n), True, None) if n % 2 else tell_streamed(client, n)
    load = Load(told, len(stories))
    load.until_done(40)
    servers[gone].end(signal.SIGKILL)
    results = load.results()
    for expected, (text, ended, error) in zip(stories, results, strict=True):
        if error is None:
            assert ended and text == expected
        else:
            assert not ended and text and expected.startswith(text), (text, error)
    assert sum(error is not None for _, _, error in results) <= 16
