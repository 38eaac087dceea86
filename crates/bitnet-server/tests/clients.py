"""Real clients against a running server: the libraries of OpenAI and Anthropic, and a parser of metrics.

Usage: clients.py BASE_URL
"""

import base64
import concurrent.futures
import json
import struct
import sys
import urllib.request

import anthropic
import openai
from prometheus_client.parser import text_string_to_metric_families

BASE = sys.argv[1].rstrip("/")
STORY = " there lived a king who had three sons"
client = openai.OpenAI(base_url=BASE + "/v1", api_key="none", max_retries=0)
MODEL = client.models.list().data[0].id


def fails(kind, status, call, **fields):
    """That a call fails in this way; gives the error."""
    try:
        call(**fields)
    except kind as error:
        assert error.status_code == status, (error.status_code, status, str(error))
        return error
    raise AssertionError(f"{fields} did not fail")


def texts():
    """Texts, whole and piece by piece."""
    ask = dict(model=MODEL, prompt="Once upon a time", max_tokens=8, temperature=0)
    whole = client.completions.create(**ask)
    assert whole.choices[0].text == STORY, whole
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.prompt_tokens == 6 and whole.usage.completion_tokens == 8, whole.usage
    parts, usage = [], None
    for chunk in client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        parts.extend(choice.text for choice in chunk.choices)
        usage = chunk.usage or usage
    assert "".join(parts) == STORY, parts
    assert usage.total_tokens == 14, usage
    several = client.completions.create(**{**ask, "prompt": ["Once upon a time", "The king"]}, n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    stopped = client.completions.create(**{**ask, "max_tokens": 40}, stop=["king who"])
    assert stopped.choices[0].text == " there lived a " and stopped.choices[0].finish_reason == "stop"
    echoed = client.completions.create(**ask, echo=True)
    assert echoed.choices[0].text.endswith("Once upon a time" + STORY), echoed
    scored = client.completions.create(**ask, logprobs=3).choices[0].logprobs
    assert "".join(scored.tokens) == STORY and all(len(top) == 3 for top in scored.top_logprobs)
    seeds = [client.completions.create(**{**ask, "temperature": 1}, seed=7).choices[0].text for _ in "ab"]
    assert seeds[0] == seeds[1], seeds


def chats():
    """Chats, with log-probabilities, structured answers and functions."""
    ask = dict(model=MODEL, messages=[{"role": "user", "content": "Once upon a time"}], max_tokens=8, temperature=0)
    whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2, n=2)
    assert [choice.message.role for choice in whole.choices] == ["assistant"] * 2
    content = whole.choices[0].logprobs.content
    assert "".join(token.token for token in content) == whole.choices[0].message.content
    assert all(len(token.top_logprobs) == 2 for token in content)
    parts = []
    for chunk in client.chat.completions.create(**ask, stream=True):
        parts.extend(choice.delta.content or "" for choice in chunk.choices)
    assert "".join(parts) == whole.choices[0].message.content, parts
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    answer = client.chat.completions.create(**{**ask, "max_tokens": 60}, response_format=wanted)
    assert 3 <= json.loads(answer.choices[0].message.content)["n"] <= 9
    tools = [{"type": "function", "function": {"name": "dice", "parameters": schema}}]
    for choice in ["required", {"type": "function", "function": {"name": "dice"}}]:
        called = client.chat.completions.create(**{**ask, "max_tokens": 80}, tools=tools, tool_choice=choice)
        assert called.choices[0].finish_reason == "tool_calls", called
        call = called.choices[0].message.tool_calls[0].function
        assert call.name == "dice" and 3 <= json.loads(call.arguments)["n"] <= 9


def responses():
    """The newer interface of OpenAI."""
    answer = client.responses.create(model=MODEL, input="Once upon a time", max_output_tokens=16, temperature=0)
    assert answer.status == "incomplete" and answer.output_text, answer
    with client.responses.stream(model=MODEL, input="Once upon a time", max_output_tokens=16, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == answer.output_text, (text, answer.output_text)


def messages():
    """The interface of Anthropic."""
    other = anthropic.Anthropic(base_url=BASE, api_key="none", max_retries=0)
    ask = dict(model=MODEL, max_tokens=8, messages=[{"role": "user", "content": "Once upon a time"}])
    answer = other.messages.create(**ask, temperature=0)
    assert answer.stop_reason == "max_tokens" and answer.content[0].text, answer
    with other.messages.stream(**ask, temperature=0) as stream:
        text = "".join(stream.text_stream)
    assert text == answer.content[0].text, text
    counted = other.messages.count_tokens(model=MODEL, messages=ask["messages"])
    total = answer.usage.input_tokens + answer.usage.cache_read_input_tokens
    assert counted.input_tokens == total, (counted, answer.usage)
    error = fails(anthropic.BadRequestError, 400, other.messages.create, **{**ask, "messages": []})
    assert error.body["type"] == "error", error.body


def embeddings():
    """Numbers in base64, as the library asks for them, and as they are."""
    plain = client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
    packed = client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="base64")
    for one, other in zip(plain.data, packed.data):
        data = base64.b64decode(other.embedding)
        assert [round(x, 6) for x in struct.unpack(f"<{len(data) // 4}f", data)] == [round(x, 6) for x in one.embedding]
        assert abs(sum(x * x for x in one.embedding) - 1) < 1e-4


def errors():
    """What is wrong is said, with the field."""
    chat = client.chat.completions.create
    user = [{"role": "user", "content": "Hi"}]
    error = fails(openai.BadRequestError, 400, chat, model=MODEL, messages=user, temperature=-1)
    assert error.body["param"] == "temp", error.body
    error = fails(openai.BadRequestError, 400, chat, model=MODEL, messages=user, n=0)
    assert error.body["param"] == "n", error.body
    fails(openai.BadRequestError, 400, chat, model=MODEL, messages=[])
    error = fails(openai.BadRequestError, 400, client.completions.create, model=MODEL, prompt="king " * 2000)
    assert error.body["code"] == "context_length_exceeded", error.body
    fails(openai.NotFoundError, 404, client.models.retrieve, model="no/such")


def many():
    """Requests at the same time give what each gives alone."""
    def one(n):
        return client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=24, seed=n).choices[0].text

    alone = [one(n) for n in range(8)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(one, [n % 8 for n in range(32)]))
    assert together == alone * 4


def metrics():
    """The classic format, all families from the start."""
    with urllib.request.urlopen(BASE + "/metrics") as response:
        families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    assert families["bitnet_requests_running"].samples[0].value == 0
    assert families["bitnet_generation_tokens"].samples[0].value > 0
    assert families["bitnet_time_to_first_token_seconds"].type == "histogram"


for test in [texts, chats, responses, messages, embeddings, errors, many, metrics]:
    test()
    print("ok", test.__name__)
