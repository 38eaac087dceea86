// The library of OpenAI for JavaScript. Usage: BITNET_URL=... BITNET_TIRELESS_URL=... node --test openai.test.mjs
// The second server has two places, behind which nobody can wait, and texts that are longer than anybody waits.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const connect = (url, options) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, ...options });
const client = connect(process.env.BITNET_URL);
const tireless = connect(process.env.BITNET_TIRELESS_URL);

const STORY = " there lived a king who had three sons";
const USER = [{ role: "user", content: "Once upon a time" }];
const greedy = { model: "any", max_tokens: 8, temperature: 0 };
const endless = { model: "any", messages: USER, max_tokens: 90_000 };
const schema = {
  type: "object",
  properties: { sides: { type: "integer", minimum: 3, maximum: 9 } },
  required: ["sides"],
  additionalProperties: false,
};
const dice = { type: "function", function: { name: "dice", parameters: schema } };

// A figure of the second server.
async function figure(name) {
  const page = await (await fetch(`${process.env.BITNET_TIRELESS_URL}/metrics`)).text();
  return Number(page.match(new RegExp(`^${name}{.*} (.*)$`, "m"))[1]);
}

async function untilIdle() {
  while ((await figure("bitnet_requests_running")) > 0) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test("whole answers and streams are the same", async () => {
  const fields = { ...greedy, messages: USER };
  const whole = await client.chat.completions.create(fields);
  assert.equal(whole.choices[0].message.content, STORY);
  assert.equal(whole.choices[0].finish_reason, "length");
  let text = "";
  let usage;
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create({ ...fields, ...options })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, STORY);
  assert.deepEqual(usage, whole.usage);
});

test("the stream helper collects what comes", async () => {
  const parts = [];
  const stream = client.chat.completions.stream({ ...greedy, messages: USER }).on("content", (part) => parts.push(part));
  assert.equal(await stream.finalContent(), STORY);
  assert.equal(parts.join(""), STORY);
  assert.equal((await stream.finalChatCompletion()).choices[0].finish_reason, "length");
});

test("the stream helper collects calls", async () => {
  const fields = { ...greedy, max_tokens: 400, messages: USER, tools: [dice], tool_choice: "required" };
  const stream = client.chat.completions.stream(fields);
  const call = await stream.finalFunctionToolCall();
  assert.equal(call.name, "dice");
  const { sides } = JSON.parse(call.arguments);
  assert.ok(3 <= sides && sides <= 9);
  assert.equal((await stream.finalChatCompletion()).choices[0].finish_reason, "tool_calls");
});

test("completions", async () => {
  const whole = await client.completions.create({ ...greedy, prompt: "Once upon a time" });
  assert.equal(whole.choices[0].text, STORY);
  let text = "";
  for await (const chunk of await client.completions.create({ ...greedy, prompt: "Once upon a time", stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, STORY);
});

test("what is aborted ends in the server, too", async () => {
  await untilIdle();
  const abort = new AbortController();
  const stream = await tireless.chat.completions.create({ ...endless, stream: true }, { signal: abort.signal });
  let count = 0;
  for await (const _ of stream) {
    if (++count === 5) {
      assert.equal(await figure("bitnet_requests_running"), 1);
      abort.abort();
    }
  }
  await untilIdle();
  count = 0;
  for await (const _ of await tireless.chat.completions.create({ ...endless, stream: true })) {
    if (++count === 5) break;
  }
  await untilIdle();
});

test("a whole answer can be aborted", async () => {
  const abort = new AbortController();
  const answer = tireless.chat.completions.create(endless, { signal: abort.signal });
  while ((await figure("bitnet_requests_running")) === 0);
  abort.abort();
  await assert.rejects(answer, OpenAI.APIUserAbortError);
  await untilIdle();
});

test("errors are those of the library", async () => {
  const refused = client.chat.completions.create({ ...greedy, messages: USER, n: 0 });
  await assert.rejects(refused, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.status, error.code, error.param], [400, "invalid_value", "n"]);
    assert.equal(error.type, "invalid_request_error");
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(client.models.retrieve("no/such"), OpenAI.NotFoundError);
  const streams = [];
  for (let n = 0; n < 2; n++) streams.push(await tireless.chat.completions.create({ ...endless, stream: true }));
  const short = { ...greedy, messages: USER };
  await assert.rejects(tireless.chat.completions.create(short), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
    return true;
  });
  for (const stream of streams) stream.controller.abort();
  const patient = connect(process.env.BITNET_TIRELESS_URL, { maxRetries: 30 });
  assert.equal((await patient.chat.completions.create(short)).choices[0].message.content, STORY);
});

test("embeddings have the same numbers in both formats", async () => {
  const ask = { model: "any", input: ["one", "two"] };
  const packed = await client.embeddings.create(ask);
  const plain = await client.embeddings.create({ ...ask, encoding_format: "float" });
  packed.data.forEach(({ embedding }, index) => {
    assert.deepEqual([...embedding], plain.data[index].embedding.map(Math.fround));
  });
});

test("responses", async () => {
  const ask = { model: "any", input: "Once upon a time", max_output_tokens: 8, temperature: 0 };
  const whole = await client.responses.create(ask);
  assert.equal(whole.output_text, STORY);
  assert.equal(whole.status, "incomplete");
  let text = "";
  const stream = client.responses.stream(ask).on("response.output_text.delta", (event) => (text += event.delta));
  const last = await stream.finalResponse();
  assert.equal(text, STORY);
  assert.equal(last.output_text, STORY);
});

test("models", async () => {
  const [model] = (await client.models.list()).data;
  assert.deepEqual(await client.models.retrieve(model.id), model);
});
