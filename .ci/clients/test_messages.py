"""`POST /v1/messages`, as the library of Anthropic asks."""

from typing import Literal

import anthropic
import pytest
from conftest import MOST, PROMPT_TOKENS, SIDES, STORY, STORY_TOKENS, connect
from pydantic import BaseModel, ConfigDict

DICE = {
    "name": "dice",
    "description": "Throws dice.",
    "input_schema": SIDES,
}


class Hero(BaseModel):
    """The library leaves out bounds of numbers; what is listed stays."""

    model_config = ConfigDict(extra="forbid")
    sons: Literal[2, 3, 9]
    is_king: bool


@pytest.fixture
def fields(model):
    """The library has no arguments for sampling any more."""
    user = [{"role": "user", "content": "Once upon a time"}]
    return dict(model=model, messages=user, max_tokens=STORY_TOKENS, extra_body={"temperature": 0})


@pytest.fixture
def ask(other, fields):
    def ask(**others):
        return other.messages.create(**{**fields, **others})

    return ask


def tokens(usage):
    """Tokens of the prompt, wherever they came from."""
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def test_whole(ask, model):
    answer = ask()
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", model)
    assert [(block.type, block.text) for block in answer.content] == [("text", STORY)]
    assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
    assert (tokens(answer.usage), answer.usage.output_tokens) == (PROMPT_TOKENS, STORY_TOKENS)
    assert answer._request_id


def test_stop_sequences(ask):
    answer = ask(stop_sequences=["never", " king"])
    assert answer.content[0].text == " there lived a"
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " king")


def test_events_of_a_stream(ask):
    events = list(ask(stream=True))
    kinds = [event.type for event in events]
    assert kinds == [
        *["message_start", "content_block_start"],
        *["content_block_delta"] * (len(events) - 5),
        *["content_block_stop", "message_delta", "message_stop"],
    ]
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == STORY


def test_stream_helper(other, fields, ask):
    with other.messages.stream(**fields) as stream:
        assert "".join(stream.text_stream) == STORY
        final = stream.get_final_message()
    assert (final.content[0].text, final.stop_reason) == (STORY, "max_tokens")
    assert (tokens(final.usage), final.usage.output_tokens) == (PROMPT_TOKENS, STORY_TOKENS)


def test_content_blocks_are_one_text(ask):
    blocks = [{"type": "text", "text": "Once upon"}, {"type": "text", "text": " a time"}]
    assert ask(messages=[{"role": "user", "content": blocks}]).content[0].text == STORY


def test_system_prompts(other, ask, fields, model):
    text = ask(system="Tell a tale.").content[0].text
    blocks = [{"type": "text", "text": "Tell a tale.", "cache_control": {"type": "ephemeral"}}]
    assert ask(system=blocks).content[0].text == text
    counted = other.messages.count_tokens(model=model, messages=fields["messages"], system="Tell a tale.")
    assert counted.input_tokens == tokens(ask(system="Tell a tale.").usage) > PROMPT_TOKENS


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "dice"}])
def test_calls_and_their_results(ask, fields, choice):
    answer = ask(tools=[DICE], tool_choice=choice, max_tokens=MOST)
    (call,) = answer.content
    assert (call.type, call.name, answer.stop_reason) == ("tool_use", "dice", "tool_use")
    assert 3 <= call.input["sides"] <= 9
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "It is a four."}]}
    conversation = [
        *fields["messages"],
        {"role": "assistant", "content": [block.model_dump() for block in answer.content]},
        {"role": "user", "content": [result, {"type": "text", "text": "And then?"}]},
    ]
    assert ask(messages=conversation, tools=[DICE]).content[0].text


def test_streamed_calls(other, fields, ask):
    others = dict(tools=[DICE], tool_choice={"type": "any"}, max_tokens=MOST)
    whole = ask(**others).content[0]
    with other.messages.stream(**{**fields, **others}) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert parts and final.content[0].input == whole.input
    assert final.stop_reason == "tool_use"


def test_parse_gives_objects(other, fields):
    answer = other.messages.parse(**{**fields, "max_tokens": MOST}, output_format=Hero)
    assert isinstance(answer.parsed_output, Hero) and answer.stop_reason == "end_turn"


def test_models(other, model):
    assert [each.id for each in other.models.list()] == [model]


@pytest.mark.parametrize("wrong", [{"messages": []}, {"tool_choice": {"type": "any"}}, {"max_tokens": -7}])
def test_bad_requests(ask, wrong):
    with pytest.raises(anthropic.BadRequestError) as error:
        ask(**wrong)
    assert error.value.body["type"] == "error"
    assert error.value.body["error"]["type"] == "invalid_request_error"
    assert error.value.request_id


def test_errors_have_their_shape_wherever_they_come_from(other):
    for path, body, kind in [
        ("/v1/messages", b"no JSON", anthropic.BadRequestError),
        ("/v1/messages", b" " * (17 << 20), anthropic.APIStatusError),
        ("/v1/messages/batches", b"{}", anthropic.NotFoundError),
    ]:
        with pytest.raises(kind) as error:
            other.post(path, content=body, cast_to=object)
        assert error.value.body["type"] == "error", path


def test_keys(keyed):
    right = connect(keyed, anthropic.Anthropic, api_key="sesame")
    assert right.models.list().data
    with pytest.raises(anthropic.AuthenticationError) as error:
        connect(keyed, anthropic.Anthropic, api_key="barley").models.list()
    assert error.value.status_code == 401
