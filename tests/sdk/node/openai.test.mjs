// The OpenAI SDK directly at an upstream and through the proxy: the same objects, the same errors.
//
// `cargo test --test sdk` starts both and runs this file, which takes from the environment what test_openai.py does.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const { DIRECT_URL, PROXY_URL, FAULTS_URL, API_KEY } = process.env;
const direct = new OpenAI({ baseURL: DIRECT_URL, apiKey: API_KEY });
const proxied = new OpenAI({ baseURL: PROXY_URL, apiKey: API_KEY });
const messages = [{ role: "user", content: "hello there, how are you?" }];

// As JSON has it: without the request's id, which is not enumerable.
const plain = (value) => JSON.parse(JSON.stringify(value));

/** What `call` returns, which is the same directly and through the proxy. */
async function same(call) {
  const expected = plain(await call(direct));
  const found = plain(await call(proxied));
  assert.deepEqual(found, expected);
  return found;
}

async function failure(call, client) {
  try {
    await call(client);
  } catch (error) {
    return error;
  }
  assert.fail("there is no error");
}

/** The errors that `call` ends in directly and through the proxy, which are of one class. */
async function sameFailure(kind, call, at = direct) {
  const failures = [await failure(call, at), await failure(call, proxied)];
  for (const error of failures) {
    assert.equal(error.constructor, kind, String(error));
  }
  return failures;
}

/** A client of the failing upstream itself, with a key that fails in this way. */
const faults = (fault) => new OpenAI({ baseURL: FAULTS_URL, apiKey: `direct-${fault}`, maxRetries: 0 });

async function collect(pieces) {
  const all = [];
  for await (const piece of pieces) all.push(plain(piece));
  return all;
}

const bytes = async (response) => [...new Uint8Array(await response.arrayBuffer())];
const pattern = (times) => Buffer.concat(Array(times).fill(Buffer.from(Array.from({ length: 256 }, (_, i) => i))));

test("chat", async () => {
  const chat = await same((c) => c.chat.completions.create({ model: "gpt-4o", messages }));
  assert.equal(chat.choices[0].message.content, "hello there, how are you?");
});

test("chat stream", async () => {
  const request = { model: "gpt-4o", messages, stream: true, stream_options: { include_usage: true } };
  const chunks = await same(async (c) => collect(await c.chat.completions.create(request)));
  assert.equal(chunks.length, 8);
});

test("a stream arrives piece by piece", async () => {
  // This upstream falls silent after two pieces and never ends: what waited for the end would wait for ever.
  const firstTwo = async (client) => {
    const chunks = [];
    for await (const chunk of await client.chat.completions.create({ model: "stalling", messages, stream: true })) {
      chunks.push(plain(chunk));
      if (chunks.length === 2) break;
    }
    return chunks;
  };
  assert.deepEqual(await firstTwo(proxied), await firstTwo(faults("stalling")));
});

test("responses", async () => {
  const response = await same((c) => c.responses.create({ model: "gpt-4o", input: "say this" }));
  assert.equal(response.output_text, "say this");
  await same((c) => c.responses.retrieve(response.id));
  const events = await same(async (c) =>
    collect(await c.responses.create({ model: "gpt-4o", input: "say this", stream: true })),
  );
  assert.equal(events.at(-1).type, "response.completed");
});

test("embeddings", async () => {
  for (const encoding_format of [undefined, "float", "base64"]) {
    const request = { model: "text-embedding-3-small", input: ["one", "two"], dimensions: 8, encoding_format };
    const { data } = await same((c) => c.embeddings.create(request));
    assert.equal(data.length, 2);
  }
});

test("models", async () => {
  // The proxy lists what its keys name as well.
  const configured = ["limited", "failing", "breaking", "stalling"];
  const models = await same(async (c) => (await collect(c.models.list())).filter(({ id }) => !configured.includes(id)));
  assert.ok(models.length > 3);
  assert.equal((await same((c) => c.models.retrieve("gpt-4o"))).id, "gpt-4o");
});

test("transcription", async () => {
  const transcribe = async (c) =>
    c.audio.transcriptions.create({ model: "whisper-1", file: await toFile(pattern(400), "sound.wav") });
  assert.equal((await same(transcribe)).text, "102400 bytes of sound");
});

test("speech", async () => {
  const speak = async (c) => bytes(await c.audio.speech.create({ model: "tts-1", voice: "alloy", input: "hello" }));
  assert.deepEqual(await same(speak), [...pattern(32)]);
});

test("files", async () => {
  const lines = '{"custom_id": "1"}\n'.repeat(1000);
  const life = async (client) => {
    const file = await client.files.create({ file: await toFile(Buffer.from(lines), "batch.jsonl"), purpose: "batch" });
    const listed = await collect(client.files.list());
    assert.ok(listed.some((other) => other.id === file.id));
    const again = await client.files.retrieve(file.id);
    const content = await (await client.files.content(file.id)).text();
    const deleted = await client.files.delete(file.id);
    const gone = await failure((c) => c.files.retrieve(file.id), client);
    assert.equal(gone.constructor, OpenAI.NotFoundError);
    return { file, again, content, deleted };
  };
  const { content, deleted } = await same(life);
  assert.deepEqual([content, deleted.deleted], [lines, true]);
});

test("moderations", async () => {
  const { results } = await same((c) => c.moderations.create({ input: ["peace", "violence"] }));
  assert.deepEqual(results.map((result) => result.flagged), [false, true]);
});

test("images", async () => {
  const { data } = await same((c) => c.images.generate({ model: "gpt-image-1", prompt: "a grey pixel" }));
  assert.ok(data[0].b64_json);
});

test("a bad request is told as the upstream tells it", async () => {
  const chat = (c) => c.chat.completions.create({ model: "gpt-4o", messages: [] });
  const [expected, found] = await sameFailure(OpenAI.BadRequestError, chat);
  assert.deepEqual(found.error, expected.error);
  assert.equal(found.code, "empty_array");
});

test("a wrong client key", async () => {
  const chat = (c) => c.withOptions({ apiKey: "wrong" }).chat.completions.create({ model: "gpt-4o", messages });
  const [expected, found] = await sameFailure(OpenAI.AuthenticationError, chat);
  assert.deepEqual([found.code, expected.code], ["invalid_api_key", "invalid_api_key"]);
});

async function askForNoSuchModel() {
  const chat = (c) => c.chat.completions.create({ model: "no-such-model", messages });
  const [expected, found] = await sameFailure(OpenAI.NotFoundError, chat);
  assert.deepEqual([expected.code, found.code], ["model_not_found", "model_not_found"]);
  return [expected, found];
}

test("a model that does not exist", async () => {
  const [expected, found] = await askForNoSuchModel();
  assert.deepEqual(found.error, expected.error);
});

test("a model that does not exist stays not found", async () => {
  for (let time = 0; time < 4; time++) await askForNoSuchModel();
});

test("when all keys are limited the SDK is told how long and does not try again", async () => {
  let attempts = 0;
  const counting = (...request) => {
    attempts += 1;
    return fetch(...request);
  };
  const chat = (c) => c.chat.completions.create({ model: "limited", messages });
  const [, found] = await sameFailure(OpenAI.RateLimitError, (c) => chat(c.withOptions({ fetch: counting })), faults("limited"));
  const wait = Number(found.headers.get("retry-after"));
  assert.ok(60 < wait && wait <= 120, String(wait));
  assert.equal(found.code, "all_keys_cooling");
  // One directly, which is told to try no more; one through the proxy, which was not.
  assert.equal(attempts, 2);
});

test("a server error", async () => {
  const chat = (c) => c.withOptions({ maxRetries: 0 }).chat.completions.create({ model: "failing", messages });
  const [expected, found] = await sameFailure(OpenAI.InternalServerError, chat, faults("failing"));
  assert.deepEqual([found.status, found.error], [expected.status, expected.error]);
});

test("a stream that breaks is not taken for a whole one", async () => {
  const chunks = async (client) => {
    const seen = [];
    const error = await failure(async () => {
      for await (const chunk of await client.chat.completions.create({ model: "breaking", messages, stream: true })) {
        seen.push(plain(chunk));
      }
    });
    return [seen, error.constructor, error.message];
  };
  const found = await chunks(proxied);
  assert.deepEqual(found, await chunks(faults("breaking")));
  assert.equal(found[0].length, 2);
});
