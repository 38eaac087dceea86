"""The document of all routes against what the server takes and answers."""

import json
import urllib.error
import urllib.request

import jsonschema
import pytest
from openapi_spec_validator import validate

USER = [{"role": "user", "content": "Once upon a time"}]
DICE = {"type": "function", "function": {"name": "dice", "parameters": {"type": "object"}}}
REQUESTS = [
    ("post", "/v1/chat/completions", {"messages": USER, "max_tokens": 4, "logprobs": True, "top_logprobs": 2, "n": 2}),
    ("post", "/v1/chat/completions", {"messages": USER, "max_tokens": 40, "tools": [DICE], "tool_choice": "required"}),
    ("post", "/v1/completions", {"prompt": "Once upon a time", "max_tokens": 4, "logprobs": 2, "stop": ["x"]}),
    ("post", "/v1/completions", {"prompt": [[5, 6], [7]], "max_tokens": 0, "logit_bias": {"5": -100}}),
    ("post", "/completion", {"prompt": "Once upon a time", "n_predict": 4, "n_probs": 2, "return_tokens": True}),
    ("post", "/v1/embeddings", {"input": ["one", "two"]}),
    ("post", "/v1/embeddings", {"input": "one", "encoding_format": "base64"}),
    ("post", "/v1/responses", {"input": "Once upon a time", "max_output_tokens": 4}),
    ("post", "/v1/messages", {"messages": USER, "max_tokens": 4, "system": "Tell."}),
    ("post", "/v1/messages/count_tokens", {"messages": USER}),
    ("post", "/tokenize", {"content": "Once upon a time", "with_pieces": True}),
    ("post", "/detokenize", {"tokens": [5, 6, 7]}),
    ("post", "/apply-template", {"messages": USER}),
    *[("get", path, None) for path in ["/v1/models", "/health", "/livez", "/version", "/props", "/slots", "/openapi.json"]],
]
WRONG = [("/v1/completions", {}), ("/v1/messages", {}), ("/v1/chat/completions", {"messages": USER, "top_p": 2})]


@pytest.fixture(scope="module")
def document(server):
    with urllib.request.urlopen(server.url + "/openapi.json") as response:
        return json.load(response)


def ask(server, method, path, body):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, method=method.upper())
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def fits(document, schema, value):
    """Whether a value is as a schema of the document says."""
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_it_is_a_document(document):
    validate(document)


@pytest.mark.parametrize("method, path, body", REQUESTS)
def test_requests_and_answers_fit(server, document, method, path, body):
    operation = document["paths"][path][method]
    if body is not None:
        fits(document, operation["requestBody"]["content"]["application/json"]["schema"], body)
    status, answer = ask(server, method, path, body)
    assert status == 200, answer
    fits(document, operation["responses"]["200"]["content"]["application/json"]["schema"], answer)


@pytest.mark.parametrize("path, body", WRONG)
def test_errors_fit(server, document, path, body):
    operation = document["paths"][path]["post"]
    status, answer = ask(server, "post", path, body)
    assert status == 400
    fits(document, operation["responses"]["default"]["content"]["application/json"]["schema"], answer)
