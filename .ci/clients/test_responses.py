"""`POST /v1/responses`, as the library of OpenAI asks."""

import json
from typing import Literal

import openai
import pytest
from conftest import MOST, PROMPT_TOKENS, SIDES, STORY, STORY_TOKENS
from pydantic import BaseModel, ConfigDict, Field

DICE = {
    "type": "function",
    "name": "dice",
    "description": "Throws dice.",
    "strict": True,
    "parameters": SIDES,
}


class Hero(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sons: int = Field(ge=2, le=9)
    kind: Literal["king", "tailor"]


@pytest.fixture
def fields(model):
    return dict(model=model, input="Once upon a time", max_output_tokens=STORY_TOKENS, temperature=0)


@pytest.fixture
def ask(client, fields):
    return lambda **others: client.responses.create(**{**fields, **others})


def test_incomplete(ask, model):
    answer = ask()
    assert (answer.object, answer.model, answer.status) == ("response", model, "incomplete")
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == STORY
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (PROMPT_TOKENS, STORY_TOKENS)
    assert answer.error is None and answer.store is False


def test_completed(ask):
    wanted = {"format": {"type": "json_schema", "name": "hero", "schema": Hero.model_json_schema()}}
    answer = ask(text=wanted, max_output_tokens=MOST)
    assert answer.status == "completed" and answer.incomplete_details is None
    Hero.model_validate_json(answer.output_text)


def test_parse_gives_objects(client, fields):
    answer = client.responses.parse(**{**fields, "max_output_tokens": MOST}, text_format=Hero)
    assert isinstance(answer.output_parsed, Hero)


def test_items_are_a_conversation(ask):
    told = [{"role": "developer", "content": "Tell a tale."}, {"role": "user", "content": "Once upon a time"}]
    parts = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Once upon a time"}]}]
    assert ask(input=parts).output_text == STORY
    assert ask(input=told).output_text == ask(instructions="Tell a tale.").output_text


def test_events_of_a_stream(ask):
    events = list(ask(stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds == [
        *["created", "in_progress", "output_item.added", "content_part.added"],
        *["output_text.delta"] * (len(events) - 8),
        *["output_text.done", "content_part.done", "output_item.done", "incomplete"],
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == STORY
    assert [event.text for event in events if event.type == "response.output_text.done"] == [STORY]
    last = events[-1].response
    assert last.output_text == STORY and last.id == events[0].response.id
    assert last.output[0].id == events[2].item.id


def test_stream_helper(client, fields):
    with client.responses.stream(**{**fields, "max_output_tokens": MOST}, text_format=Hero) as stream:
        kinds = {event.type for event in stream}
        assert isinstance(stream.get_final_response().output_parsed, Hero)
    assert {"response.created", "response.output_text.done", "response.completed"} <= kinds


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "dice"}])
def test_calls_and_their_results(ask, choice):
    answer = ask(tools=[DICE], tool_choice=choice, max_output_tokens=MOST)
    (call,) = answer.output
    assert (call.type, call.name, call.status) == ("function_call", "dice", "completed")
    assert 3 <= json.loads(call.arguments)["sides"] <= 9
    conversation = [
        {"role": "user", "content": "Once upon a time"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "It is a four."},
    ]
    assert ask(input=conversation, tools=[DICE]).output_text


def test_streamed_calls(ask):
    fields = dict(tools=[DICE], tool_choice="required", max_output_tokens=MOST)
    (whole,) = ask(**fields).output
    events = list(ask(**fields, stream=True))
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(deltas) == whole.arguments
    assert [(event.name, event.arguments) for event in done] == [("dice", whole.arguments)]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output[0].arguments == whole.arguments


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"input": [{"type": "what"}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ],
)
def test_what_is_not_there_is_refused(ask, wrong, param):
    with pytest.raises(openai.BadRequestError) as error:
        ask(**wrong)
    assert error.value.param == param


def test_a_response_is_not_kept(client, ask):
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(ask().id)
