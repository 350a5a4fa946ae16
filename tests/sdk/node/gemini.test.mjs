// Google's SDK directly at an upstream and through the proxy; both.mjs says where they are.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, GoogleGenAI } from "@google/genai";
import { FAULTS, both, brokenOff, plain } from "./both.mjs";

const make = (baseUrl, apiKey) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl } });
const { same, sameFailure, sameRefusal, faults } = both(make);
const contents = "hello there, how are you?";
const say = (client, model = "gemini-2.5-flash") => client.models.generateContent({ model, contents });
const stream = (client, model = "gemini-2.5-flash") => client.models.generateContentStream({ model, contents });
// Without the headers, which have ids and times.
const bare = ({ sdkHttpResponse, ...rest }) => plain(rest);

test("content", async () => {
  const response = await same(async (c) => bare(await say(c)));
  assert.equal(response.candidates[0].content.parts[0].text, contents);
});

test("a stream", async () => {
  const pieces = await same(async (c) => {
    const all = [];
    for await (const piece of await stream(c)) all.push(bare(piece));
    return all;
  });
  assert.equal(pieces.map((piece) => piece.candidates[0].content.parts[0].text).join(""), contents);
});

test("embeddings and counts", async () => {
  const model = "gemini-embedding-001";
  const embedded = await same(async (c) => bare(await c.models.embedContent({ model, contents: ["one", "two"] })));
  assert.equal(embedded.embeddings.length, 2);
  const counted = await same(async (c) => bare(await c.models.countTokens({ model: "m", contents })));
  assert.equal(counted.totalTokens, 5);
});

test("models", async () => {
  const names = await same(async (c) => {
    const all = [];
    for await (const model of await c.models.list()) all.push(model.name);
    return all.filter((name) => !FAULTS.includes(name.replace("models/", ""))).sort();
  });
  assert.equal(names.length, 3);
});

test("a wrong client key", async () => {
  await sameRefusal(ApiError, (c) => say(c));
});

for (const [fault, status] of [["limited", 429], ["failing", 500], ["overloaded", 503]]) {
  test(`an error, ${fault}`, async () => {
    const failures = await sameFailure(ApiError, (c) => say(c, fault), faults(fault));
    assert.deepEqual(failures.map((error) => error.status), failures.map(() => status));
  });
}

test("a model that does not exist", async () => {
  const failures = await sameFailure(ApiError, (c) => say(c, "no-such-model"));
  assert.deepEqual(failures.at(-1).message, failures[0].message);
});

for (const fault of ["breaking", "late"]) {
  test(`a stream that fails is not taken for a whole one, ${fault}`, async () => {
    const [seen] = await same(async (c) => brokenOff(stream(c, fault)), faults(fault));
    assert.ok(seen >= 1, String(seen));
  });
}
