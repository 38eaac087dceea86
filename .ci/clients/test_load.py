"""Many clients, clients that go away, and servers that have enough to do."""

import asyncio
import concurrent.futures
import signal
import threading

import anthropic
import openai
import pytest
from conftest import STORY, STORY_TOKENS, connect
from servers import Server, answers, until

ENDLESS = dict(model="any", prompt="Once upon a time", max_tokens=90_000)


def running(server):
    return server.figure("bitnet_requests_running")


def cancelled(server):
    return server.figure("bitnet_requests", finished_reason="cancelled")


@pytest.fixture
def cancels(tireless):
    """Checks that a test left nothing running, and ended one text before its time."""
    tireless.until_idle()
    before, generated = cancelled(tireless), tireless.figure("bitnet_generation_tokens")
    yield
    until(lambda: cancelled(tireless) > before, "the text is cancelled")
    tireless.until_idle()
    assert cancelled(tireless) == before + 1
    assert tireless.figure("bitnet_generation_tokens") - generated < ENDLESS["max_tokens"]


def test_a_stream_that_nobody_reads_on_ends(tireless, cancels):
    stream = connect(tireless).completions.create(**ENDLESS, stream=True)
    for _, chunk in zip(range(3), stream):
        assert chunk.choices[0].text
    assert running(tireless) == 1
    stream.close()


def test_a_chat_that_nobody_reads_on_ends(tireless, cancels):
    chat = connect(tireless).chat.completions
    fields = dict(model="any", messages=[{"role": "user", "content": "Hi"}], max_tokens=90_000)
    with chat.create(**fields, stream=True) as stream:
        # The first chunk says the role, and may be there before the text has begun.
        for _, chunk in zip(range(3), stream):
            assert chunk.choices[0].finish_reason is None


def test_a_client_that_waits_no_longer(tireless, cancels):
    with pytest.raises(openai.APITimeoutError):
        connect(tireless, timeout=1).completions.create(**ENDLESS)


def test_a_message_that_nobody_reads_on_ends(tireless, cancels):
    fields = dict(model="any", messages=[{"role": "user", "content": "Hi"}], max_tokens=90_000)
    with connect(tireless, anthropic.Anthropic).messages.stream(**fields) as stream:
        next(stream.text_stream)


def test_a_full_server_says_when_to_ask_again(tireless):
    """Two places are taken: a third request is told to come again, and its library does so by itself."""
    patient = connect(tireless, max_retries=30)
    short = dict(model="any", prompt="Once upon a time", max_tokens=STORY_TOKENS, temperature=0)
    streams = [connect(tireless).completions.create(**ENDLESS, stream=True) for _ in range(2)]
    with pytest.raises(openai.RateLimitError) as error:
        connect(tireless).completions.create(**short)
    assert error.value.code == "queue_full"
    assert int(error.value.response.headers["retry-after"]) >= 1
    with pytest.raises(anthropic.RateLimitError) as error:
        user = [{"role": "user", "content": "Hi"}]
        connect(tireless, anthropic.Anthropic).messages.create(model="any", max_tokens=1, messages=user)
    assert error.value.type == "rate_limit_error"
    refused = tireless.figure("bitnet_http_responses", status="4xx")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(patient.completions.create, **short)
        until(lambda: tireless.figure("bitnet_http_responses", status="4xx") > refused, "it is refused once more")
        streams[0].close()
        assert answer.result().choices[0].text == STORY
    streams[1].close()


def test_what_takes_too_long_ends_with_an_error(tireless_model):
    """Whole answers with a status, streams with an event, each as its library knows it."""
    user = [{"role": "user", "content": "Once upon a time"}]
    endless = dict(model="any")
    with Server(*tireless_model, "--timeout", "1") as server:
        client, other = connect(server), connect(server, anthropic.Anthropic)
        with pytest.raises(openai.InternalServerError) as error:
            client.completions.create(**ENDLESS)
        assert (error.value.status_code, error.value.code) == (504, "timeout")
        for stream in [
            client.completions.create(**ENDLESS, stream=True),
            client.chat.completions.create(model="any", messages=user, max_tokens=90_000, stream=True),
        ]:
            with pytest.raises(openai.APIError) as error:
                list(stream)
            assert error.value.code == "timeout"
        events = list(client.responses.create(model="any", input="a", max_output_tokens=90_000, stream=True))
        assert (events[-1].type, events[-1].response.status) == ("response.failed", "failed")
        assert events[-1].response.error.message
        with pytest.raises(anthropic.APIStatusError) as error:
            list(other.messages.create(model="any", messages=user, max_tokens=90_000, stream=True))
        assert error.value.body["error"]["type"] == "timeout_error"
        server.until_idle()


def test_together_as_alone(client, model):
    def tell(n):
        fields = dict(model=model, prompt="Once upon a time", max_tokens=24 + n, seed=n, temperature=1)
        return client.completions.create(**fields).choices[0].text

    alone = [tell(n) for n in range(8)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(tell, list(range(8)) * 8))
    assert together == alone * 8


def test_many_streams_of_one_loop(server, client, model):
    """The asynchronous client, with more streams than run at once."""
    fields = [
        dict(model=model, messages=[{"role": "user", "content": "The " + word}], max_tokens=30, seed=n, temperature=1)
        for n, word in enumerate(["king", "queen", "tailor", "fox"] * 12)
    ]

    async def tell(other, fields):
        text = ""
        async for chunk in await other.chat.completions.create(**fields, stream=True):
            text += chunk.choices[0].delta.content or ""
        return text

    async def all_of_them():
        async with connect(server, openai.AsyncOpenAI) as other:
            return await asyncio.gather(*(tell(other, each) for each in fields))

    together = asyncio.run(all_of_them())
    whole = [client.chat.completions.create(**each).choices[0].message.content for each in fields]
    assert together == whole


def test_embeddings_beside_texts(client, model):
    embed = lambda n: client.embeddings.create(model=model, input=f"text {n}").data[0].embedding
    alone = [embed(n) for n in range(4)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        story = dict(model=model, prompt="Once upon a time", max_tokens=300, temperature=0)
        stories = [pool.submit(client.completions.create, **story) for _ in range(8)]
        assert list(pool.map(embed, list(range(4)) * 8)) == alone * 8
        assert len({story.result().choices[0].text for story in stories}) == 1


def test_what_was_asked_before_the_end_is_answered(tireless_model):
    """Told to end, a server takes nothing new, and answers what it has: streams, texts and embeddings."""
    told = dict(model="any", prompt="Once upon a time", temperature=0)
    with Server(*tireless_model, "--parallel", "1") as server, concurrent.futures.ThreadPoolExecutor() as pool:
        client = connect(server)
        expected = client.completions.create(**told, max_tokens=50).choices[0].text
        # The stream has the only place, so that all the others have to wait.
        stream = client.completions.create(**told, max_tokens=4000, stream=True)
        first = next(stream)
        wholes = [pool.submit(client.completions.create, **told, max_tokens=50) for _ in range(4)]
        until(lambda: server.figure("bitnet_requests_waiting") == 4, "the others wait")
        computed = server.figure("bitnet_prompt_tokens")
        numbers = pool.submit(client.embeddings.create, model="any", input=["king " * 200] * 48)
        until(lambda: server.figure("bitnet_prompt_tokens") > computed, "the first embedding is there")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not answers(server.url + "/readyz"), "the server takes nothing any more")
        assert answers(server.url + "/livez") and answers(server.url + "/metrics")
        with pytest.raises(openai.InternalServerError) as error:
            client.completions.create(**told, max_tokens=1)
        assert (error.value.status_code, error.value.code) == (503, "draining")
        assert len(numbers.result().data) == 48
        assert "".join(chunk.choices[0].text for chunk in [first, *stream]).startswith(expected)
        assert {whole.result().choices[0].text for whole in wholes} == {expected}
        assert server.process.wait(60) == 0


def test_keep_alive_connections_do_not_delay_the_end():
    with Server() as server:
        connect(server).models.list()
        threads = threading.active_count()
        assert server.end() == 0 and threading.active_count() <= threads
