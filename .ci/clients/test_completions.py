"""`POST /v1/completions`, as the library of OpenAI asks."""

import pytest
from conftest import PROMPT_TOKENS, STORY, STORY_TOKENS

ONCE = "Once upon a time"


@pytest.fixture
def ask(client, model):
    """Asks for the first tokens of the story; fields can be added and changed."""

    def ask(**fields):
        greedy = dict(model=model, prompt=ONCE, max_tokens=STORY_TOKENS, temperature=0)
        return client.completions.create(**{**greedy, **fields})

    return ask


def texts(chunks, n=1):
    """The texts of a stream, and why they ended."""
    texts, ends = [""] * n, [None] * n
    for chunk in chunks:
        for choice in chunk.choices:
            assert ends[choice.index] is None, "something came after the end"
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason
    return texts, ends


def test_whole(ask, model):
    answer = ask()
    assert (answer.object, answer.model) == ("text_completion", model)
    assert answer.choices[0].text == STORY
    assert answer.choices[0].finish_reason == "length"
    usage = answer.usage
    counted = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    assert counted == (PROMPT_TOKENS, STORY_TOKENS, PROMPT_TOKENS + STORY_TOKENS)


def test_stream_is_the_whole(ask):
    chunks = list(ask(stream=True))
    assert texts(chunks) == ([STORY], ["length"])
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_of_a_stream(ask):
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].choices == []
    whole = ask().usage
    assert chunks[-1].usage.total_tokens == whole.total_tokens


def test_prompts_and_choices_are_in_order(ask):
    fields = dict(prompt=[ONCE, "The old king"], n=2, temperature=1, seed=3)
    answer = ask(**fields)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    alone = [ask(**{**fields, "prompt": prompt}).choices for prompt in fields["prompt"]]
    expected = [choice.text for choices in alone for choice in choices]
    assert [choice.text for choice in answer.choices] == expected
    assert expected[0] != expected[1], "two texts of a prompt have the same random numbers"
    assert texts(ask(**fields, stream=True), 4)[0] == expected
    usage = list(ask(**fields, stream=True, stream_options={"include_usage": True}))[-1].usage
    assert usage == answer.usage, "prompts count once each, in streams too"


def test_token_ids_are_prompts(ask):
    ids = [2040, 1450, 326, 638, 258, 516]
    assert ask(prompt=ids).choices[0].text == STORY
    assert [choice.text for choice in ask(prompt=[ids, ids]).choices] == [STORY] * 2


@pytest.mark.parametrize("stop", ["king who", ["never", "king who"], [" king"]])
def test_stop_strings(ask, stop):
    said = " there lived a" + (" " if "king who" in stop else "")
    answer = ask(max_tokens=40, stop=stop).choices[0]
    assert (answer.text, answer.finish_reason) == (said, "stop")
    assert texts(ask(max_tokens=40, stop=stop, stream=True)) == ([said], ["stop"])


def test_seeds(ask):
    draw = lambda **seed: ask(temperature=1, max_tokens=40, **seed).choices[0].text
    assert draw(seed=7) == draw(seed=7)
    assert draw(seed=7) != draw(seed=8)
    assert draw() != draw(), "without a seed, each text has random numbers of its own"


def test_echo(ask):
    assert ask(echo=True).choices[0].text == ONCE + STORY
    assert texts(ask(echo=True, stream=True))[0] == [ONCE + STORY]


@pytest.mark.parametrize("top", [0, 3])
def test_log_probabilities(ask, top):
    whole = ask(logprobs=top).choices[0].logprobs
    assert "".join(whole.tokens) == STORY
    assert whole.text_offset == [STORY.index(word) for word in whole.tokens]
    assert [len(each) for each in whole.top_logprobs] == [top] * STORY_TOKENS
    for token, logprob, others in zip(whole.tokens, whole.token_logprobs, whole.top_logprobs):
        assert logprob < 0
        # The text is greedy: nothing is more probable than what was taken.
        assert not others or max(others, key=others.get) == token and others[token] == logprob
    parts = [choice.logprobs for chunk in ask(logprobs=top, stream=True) for choice in chunk.choices]
    parts = [part for part in parts if part]
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"]:
        assert [item for part in parts for item in getattr(part, name)] == getattr(whole, name), name


def test_logit_bias(ask, server):
    first = lambda **fields: ask(max_tokens=1, **fields).choices[0].text
    there, king = server.post("/tokenize", {"content": " there king"})["tokens"]
    assert first() == " there"
    assert first(logit_bias={str(king): 100}) == " king"
    assert first(logit_bias={str(there): -100}) != " there"


def test_ends_before_the_context_does(ask, server):
    answer = ask(max_tokens=None, logit_bias={"2041": -100})
    assert answer.choices[0].finish_reason == "length"
    context = server.get("/v1/models")["data"][0]["max_model_len"]
    assert answer.usage.total_tokens - context in (0, 1), "the last token needs no place"
