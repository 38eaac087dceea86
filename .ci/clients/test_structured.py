"""Answers that are JSON of a schema, and calls of functions. The demo model means nothing by them: that they
have the form that was asked for is the work of the server."""

import json
from typing import Literal

import openai
import pytest
from conftest import MOST, SIDES
from pydantic import BaseModel, ConfigDict, Field

USER = [{"role": "user", "content": "Once upon a time"}]


class Hero(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=12)
    sons: int = Field(ge=2, le=9)
    kind: Literal["king", "tailor"]


class Wish(BaseModel):
    """What the hero wishes for."""

    count: int = Field(ge=1, le=3)
    what: Literal["gold", "a wife"]


DICE = {
    "type": "function",
    "function": {
        "name": "dice",
        "description": "Throws dice.",
        "parameters": SIDES,
    },
}
SAY = {
    "type": "function",
    "function": {
        "name": "say",
        "parameters": {
            "type": "object",
            "properties": {"word": {"enum": ["yes", "no"]}},
            "required": ["word"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def ask(client, model):
    def ask(**fields):
        greedy = dict(model=model, messages=USER, max_tokens=MOST, temperature=0)
        return client.chat.completions.create(**{**greedy, **fields})

    return ask


def test_parse_gives_objects(client, model):
    answer = client.chat.completions.parse(
        model=model, messages=USER, max_tokens=MOST, temperature=0, response_format=Hero
    )
    hero = answer.choices[0].message.parsed
    assert isinstance(hero, Hero) and answer.choices[0].finish_reason == "stop"


def test_what_was_cut_off_is_no_object(client, model):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=model, messages=USER, max_tokens=2, temperature=0, response_format=Hero)


def test_json_schema(ask):
    schema = {"name": "hero", "strict": True, "schema": Hero.model_json_schema()}
    wanted = {"type": "json_schema", "json_schema": schema}
    whole = ask(response_format=wanted).choices[0].message.content
    Hero.model_validate_json(whole)
    chunks = ask(response_format=wanted, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def test_json_object(ask):
    answer = ask(response_format={"type": "json_object"}, temperature=1, seed=1, max_tokens=400).choices[0]
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)
    else:
        assert answer.message.content.startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "dice"}}])
@pytest.mark.parametrize("parallel", [True, False])
def test_calls(ask, choice, parallel):
    answer = ask(tools=[DICE, SAY], tool_choice=choice, parallel_tool_calls=parallel).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    (call,) = answer.message.tool_calls
    assert call.type == "function" and call.id
    if call.function.name == "dice":
        assert 3 <= json.loads(call.function.arguments)["sides"] <= 9
    else:
        assert choice == "required"
        assert json.loads(call.function.arguments)["word"] in ["yes", "no"]


def test_no_call_where_none_may_be(ask):
    assert ask(tools=[DICE], tool_choice="none").choices[0].message.tool_calls is None


def test_streamed_calls_are_the_whole_ones(client, ask):
    fields = dict(tools=[DICE, SAY], tool_choice={"type": "function", "function": {"name": "dice"}})
    whole = ask(**fields).choices[0].message.tool_calls[0].function
    model = ask(max_tokens=1).model
    with client.chat.completions.stream(model=model, messages=USER, max_tokens=MOST, temperature=0, **fields) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert [(event.name, event.arguments) for event in done] == [(whole.name, whole.arguments)]
    assert final.finish_reason == "tool_calls" and not final.message.content
    assert final.message.tool_calls[0].function.arguments == whole.arguments


def test_functions_of_pydantic_models(client, model):
    answer = client.chat.completions.parse(
        model=model, messages=USER, max_tokens=MOST, temperature=0,
        tools=[openai.pydantic_function_tool(Wish)], tool_choice="required",
    )
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Wish)


def test_results_go_back(ask, server):
    """A call, its result, and what the model says then: the conversation as clients send it."""
    called = ask(tools=[DICE], tool_choice="required").choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "It is a four."}
    conversation = [*USER, called.model_dump(exclude_none=True), result]
    answer = ask(messages=conversation, tools=[DICE], max_tokens=4)
    assert answer.choices[0].message.content
    prompt = server.post("/apply-template", {"messages": json.loads(json.dumps(conversation))})["prompt"]
    assert "It is a four." in prompt


def test_what_cannot_be_a_schema_is_refused(ask):
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "what"}}}
    with pytest.raises(openai.BadRequestError) as error:
        ask(response_format=wanted)
    assert error.value.code == "invalid_constraint"
    with pytest.raises(openai.BadRequestError) as error:
        ask(tools=[DICE], tool_choice={"type": "function", "function": {"name": "other"}})
    assert (error.value.code, error.value.param) == ("invalid_tools", "tool_choice")
