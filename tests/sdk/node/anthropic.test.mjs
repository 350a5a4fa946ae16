// The Anthropic SDK directly at an upstream and through the proxy; both.mjs says where they are.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { FAULTS, both, brokenOff, failure, plain, routed } from "./both.mjs";

const make = (baseURL, apiKey) => new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const { same, sameFailure, sameRefusal, sides, faults } = both(make);
const messages = [{ role: "user", content: "hello there, how are you?" }];
const say = (client, more) => client.messages.create({ model: "claude-sonnet-4-5", max_tokens: 64, messages, ...more });
const tools = [{ name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } }];
const body = ({ error: { request_id, ...rest } }) => rest;

test("a message", async () => {
  const message = await same(say);
  assert.equal(message.content[0].text, messages[0].content);
});

test("a stream", async () => {
  const events = await same(async (c) => {
    const all = [];
    for await (const event of await say(c, { stream: true })) all.push(plain(event));
    return all;
  });
  assert.equal(events.at(-1).type, "message_stop");
  const message = await same((c) =>
    c.messages.stream({ model: "claude-sonnet-4-5", max_tokens: 64, messages }).finalMessage(),
  );
  assert.equal(message.usage.output_tokens, 5);
});

test("tools", async () => {
  const message = await same((c) => say(c, { tools }));
  assert.deepEqual(message.content[0].input, { city: messages[0].content });
});

test("tokens are counted", async () => {
  assert.deepEqual(await same((c) => c.messages.countTokens({ model: "m", messages })), { input_tokens: 5 });
});

test("models", async () => {
  const ids = await same(async (c) => {
    const all = [];
    for await (const model of c.models.list()) all.push(model.id);
    return all.filter((id) => !FAULTS.includes(id)).sort();
  });
  assert.equal(ids.length, 3);
});

test("a bad request is told as the upstream tells it", async () => {
  const failures = await sameFailure(Anthropic.BadRequestError, (c) => say(c, { messages: [] }));
  assert.deepEqual(body(failures.at(-1)), body(failures[0]));
});

test("a wrong client key", async () => {
  await sameRefusal(Anthropic.AuthenticationError, say);
});

test("a model that does not exist", async () => {
  const failures = await sameFailure(Anthropic.NotFoundError, (c) => say(c, { model: "no-such-model" }));
  assert.deepEqual(body(failures.at(-1)), body(failures[0]));
});

test("when all keys are limited the SDK is told how long", async () => {
  const failures = await sameFailure(Anthropic.RateLimitError, (c) => say(c, { model: "limited" }), faults("limited"));
  const wait = Number(failures.at(-1).headers.get("retry-after"));
  assert.ok(60 < wait && wait <= 120, String(wait));
});

for (const [fault, status] of [["failing", 500], ["overloaded", 529]]) {
  test(`a server error, ${fault}`, async () => {
    const failures = await sameFailure(Anthropic.InternalServerError, (c) => say(c, { model: fault }), faults(fault));
    assert.deepEqual(failures.map((error) => error.status), failures.map(() => status));
  });
}

test("the SDK does not retry what the proxy has retried", async () => {
  const counts = [];
  for (const client of sides(faults("failing"))) {
    let attempts = 0;
    const counting = (...request) => {
      attempts += 1;
      return fetch(...request);
    };
    await failure((c) => say(c, { model: "failing" }), client.withOptions({ fetch: counting, maxRetries: 2 }));
    counts.push(attempts);
  }
  assert.deepEqual(counts, routed ? [3, 1] : [3]);
});

for (const fault of ["breaking", "late"]) {
  test(`a stream that fails is not taken for a whole one, ${fault}`, async () => {
    const [seen] = await same((c) => brokenOff(say(c, { model: fault, stream: true })), faults(fault));
    assert.equal(seen, 2);
  });
}
