"""`POST /v1/chat/completions`, as the library of OpenAI asks. The template of these tests adds nothing, so
that the demo model goes on with what the user says."""

import pytest
from conftest import PROMPT_TOKENS, STORY, STORY_TOKENS

USER = [{"role": "user", "content": "Once upon a time"}]


@pytest.fixture
def ask(client, model):
    def ask(**fields):
        greedy = dict(model=model, messages=USER, max_completion_tokens=STORY_TOKENS, temperature=0)
        return client.chat.completions.create(**{**greedy, **fields})

    return ask


def test_whole(ask, model):
    answer = ask()
    assert (answer.object, answer.model) == ("chat.completion", model)
    message = answer.choices[0].message
    assert (message.role, message.content, message.tool_calls) == ("assistant", STORY, None)
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, STORY_TOKENS)
    assert answer.system_fingerprint == ask().system_fingerprint


def test_max_tokens_is_the_old_name(ask):
    assert ask(max_completion_tokens=None, max_tokens=2).choices[0].message.content == " there lived"


def test_stream_is_the_whole(ask):
    chunks = list(ask(stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == STORY
    assert len(chunks) == STORY_TOKENS + 2, "each token comes when it is there"


def test_usage_of_a_stream(ask):
    chunks = list(ask(stream=True, stream_options={"include_usage": True}, n=2))
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == PROMPT_TOKENS
    assert chunks[-1].usage.completion_tokens == 2 * STORY_TOKENS


def test_choices_differ_and_are_the_same_in_streams(ask):
    fields = dict(n=3, temperature=1, seed=5, max_completion_tokens=20)
    whole = [choice.message.content for choice in ask(**fields).choices]
    assert len(set(whole)) == 3
    parts = [""] * 3
    for chunk in ask(**fields, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.delta.content or ""
    assert parts == whole


def test_seeds(ask):
    draw = lambda **seed: ask(temperature=1, max_completion_tokens=40, **seed).choices[0].message.content
    assert draw(seed=7) == draw(seed=7)
    assert draw() != draw(), "without a seed, each text has random numbers of its own"


def test_stop_strings(ask):
    answer = ask(stop=[" king"]).choices[0]
    assert (answer.message.content, answer.finish_reason) == (" there lived a", "stop")


def test_log_probabilities(ask):
    whole = ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert "".join(token.token for token in whole) == STORY
    for token in whole:
        assert bytes(token.bytes).decode() == token.token
        assert [token.top_logprobs[0].token, len(token.top_logprobs)] == [token.token, 2]
        assert token.top_logprobs[0].logprob == token.logprob >= token.top_logprobs[1].logprob
    parts = [choice.logprobs for chunk in ask(logprobs=True, top_logprobs=2, stream=True) for choice in chunk.choices]
    assert [token for part in parts if part for token in part.content] == whole
    assert ask(logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    assert ask().choices[0].logprobs is None


def test_logit_bias(ask, server):
    (king,) = server.post("/tokenize", {"content": " king"})["tokens"]
    answer = ask(max_completion_tokens=1, logit_bias={str(king): 100})
    assert answer.choices[0].message.content == " king"


def test_content_parts_are_one_text(ask):
    parts = [{"type": "text", "text": "Once upon"}, {"type": "text", "text": " a time"}]
    assert ask(messages=[{"role": "user", "content": parts}]).choices[0].message.content == STORY


def test_roles_are_in_the_prompt(server):
    said = [("developer", "D"), ("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")]
    messages = [{"role": role, "content": content} for role, content in said]
    prompt = server.post("/apply-template", {"messages": messages})["prompt"]
    assert prompt.removeprefix("<|begin_of_text|>") == "D\nS\nUA\nV"


def test_what_is_asked_twice_is_computed_once(ask):
    tale = [{"role": "user", "content": "Once upon a time there lived a king who had three sons. " * 4}]
    ask(messages=tale)
    again = ask(messages=tale).usage
    assert 0 < again.prompt_tokens_details.cached_tokens < again.prompt_tokens


def test_stream_helper(client, model):
    said = " there lived a king who had"
    fields = dict(model=model, messages=USER, max_tokens=STORY_TOKENS, temperature=0, stop=" three")
    with client.chat.completions.stream(**fields) as stream:
        events = list(stream)
        assert "".join(event.delta for event in events if event.type == "content.delta") == said
        assert [event.content for event in events if event.type == "content.done"] == [said]
        assert stream.get_final_completion().choices[0].message.content == said


def test_unknown_fields_and_models_are_nobodys_business(ask):
    fields = dict(model="gpt-4o", user="u", metadata={"a": "b"}, store=False, service_tier="auto")
    assert ask(**fields, extra_body={"what": ["ever"]}).choices[0].message.content == STORY
