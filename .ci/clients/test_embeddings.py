"""`POST /v1/embeddings`, as the library of OpenAI asks."""

import base64
import struct

import openai
import pytest


@pytest.fixture
def embed(client, model):
    def embed(given, **fields):
        answer = client.embeddings.create(model=model, input=given, **fields)
        assert [each.index for each in answer.data] == list(range(len(answer.data)))
        return [each.embedding for each in answer.data]

    return embed


def single(numbers):
    """Numbers as they are with 32 bits."""
    return [struct.unpack("<f", struct.pack("<f", number))[0] for number in numbers]


def test_all_formats_have_the_same_numbers(embed, server):
    # Without a format, the library asks for base64 and unpacks it.
    (default,) = embed("a king")
    (plain,) = embed("a king", encoding_format="float")
    (packed,) = embed("a king", encoding_format="base64")
    data = base64.b64decode(packed)
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == default == single(plain)
    assert len(default) == server.get("/v1/models")["data"][0]["meta"]["n_embd"]
    assert abs(sum(x * x for x in default) - 1) < 1e-5


def test_several_are_as_each_alone(embed):
    alone = [embed(text)[0] for text in ["one", "two", "three"]]
    assert embed(["one", "two", "three"]) == alone
    assert alone[0] != alone[1]


def test_token_ids_are_texts(embed, server):
    tokens = server.post("/tokenize", {"content": "a king", "add_special": True})["tokens"]
    assert embed(tokens) == embed([tokens]) == embed("a king")


def test_usage(client, model, server):
    tokens = [server.post("/tokenize", {"content": text, "add_special": True})["tokens"] for text in ["a", "a king"]]
    usage = client.embeddings.create(model=model, input=["a", "a king"]).usage
    assert usage.prompt_tokens == usage.total_tokens == sum(map(len, tokens))


def test_texts_that_do_not_fit_are_refused(embed):
    with pytest.raises(openai.BadRequestError) as error:
        embed(["a", "king " * 2000])
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "input[1]")
    for wrong in [{"given": []}, {"given": "a", "dimensions": 3}, {"given": [[99999]]}]:
        with pytest.raises(openai.BadRequestError):
            embed(**wrong)
