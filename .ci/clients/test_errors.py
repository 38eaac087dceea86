"""What is wrong comes as the exceptions of the library, with the field."""

import openai
import pytest
from conftest import connect

USER = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": []}, "invalid_messages", "messages"),
        ({"messages": [{"role": "witch", "content": "Hi"}]}, "invalid_messages", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "invalid_messages", "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "invalid_messages", "messages[0].content"),
        ({"n": 0}, "invalid_value", "n"),
        ({"max_tokens": -7}, "invalid_value", "max_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"top_p": 1.5}, "invalid_value", "top_p"),
        ({"logit_bias": {"king": 1}}, "invalid_value", "logit_bias"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"stop": ["a"] * 99}, "invalid_value", "stop"),
        ({"messages": [{"role": "user", "content": "king " * 2000}]}, "context_length_exceeded", "messages"),
    ],
)
def test_bad_requests_of_chats(client, model, fields, code, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{"model": model, "messages": USER, **fields})
    assert (error.value.code, error.value.param) == (code, param)
    assert error.value.type == "invalid_request_error" and error.value.request_id


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"prompt": "king " * 2000}, "context_length_exceeded", "prompt"),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [99999]}, "invalid_token", "prompt"),
        ({"prompt": 1.5}, "invalid_type", "prompt"),
        ({"suffix": "."}, "invalid_value", "suffix"),
        ({"best_of": 3}, "invalid_value", "best_of"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
    ],
)
def test_bad_requests_of_completions(client, model, fields, code, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(**{"model": model, "prompt": "Hi", **fields})
    assert (error.value.code, error.value.param) == (code, param)


@pytest.mark.parametrize(
    ("path", "field"),
    [("/chat/completions", "messages"), ("/completions", "prompt"), ("/embeddings", "input"), ("/responses", "input")],
)
def test_missing_fields_are_named(client, path, field):
    with pytest.raises(openai.BadRequestError) as error:
        client.post(path, body={"model": "m"}, cast_to=object)
    assert error.value.param == field


def test_what_is_null_is_not_given(client, model):
    given = dict.fromkeys(
        "stop seed n temperature top_p max_tokens logit_bias stream stream_options response_format tools tool_choice "
        "logprobs top_logprobs presence_penalty frequency_penalty user ignore_eos grammar".split()
    )
    client.post("/chat/completions", body={"messages": USER, **given, "max_completion_tokens": 1}, cast_to=object)


def test_what_is_not_there(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("no/such")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.files.list()


def test_models(client, model):
    (only,) = client.models.list().data
    assert (only.id, only.object, only.owned_by) == (model, "model", "bitnet")
    assert client.models.retrieve(model) == only


def test_keys(keyed):
    assert connect(keyed, api_key="sesame").models.list().data
    assert connect(keyed, api_key="simsim").models.list().data
    for wrong in ["barley", "sesame,simsim", ""]:
        with pytest.raises(openai.AuthenticationError) as error:
            connect(keyed, api_key=wrong or "x", default_headers=None if wrong else {"authorization": ""}).models.list()
        assert error.value.code == "invalid_api_key"
    # Probes and those who watch have no key.
    assert keyed.get("/health") == {"status": "ok"}
    assert keyed.figure("bitnet_requests_running") == 0
