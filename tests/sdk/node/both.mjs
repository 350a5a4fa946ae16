// Both sides of a comparison: an SDK directly at an upstream and through the proxy. The environment is that of both.py.

import assert from "node:assert/strict";

const { DIRECT_URL, PROXY_URL, FAULTS_URL, API_KEY } = process.env;
export const routed = PROXY_URL !== undefined;

// As JSON has it: without what is not enumerable, such as a request's id.
export const plain = (value) => JSON.parse(JSON.stringify(value));

export async function failure(call, client) {
  try {
    await call(client);
  } catch (error) {
    return error;
  }
  assert.fail("there is no error");
}

/** How many pieces a stream has before it fails, and how it fails. */
export async function brokenOff(stream) {
  let seen = 0;
  const error = await failure(async () => {
    for await (const _ of await stream) seen += 1;
  });
  return [seen, error.constructor.name];
}

/** `make(url, key)` is a client that does not retry; the URL has no path. */
export function both(make) {
  const sides = (direct = make(DIRECT_URL, API_KEY)) => (routed ? [direct, make(PROXY_URL, API_KEY)] : [direct]);
  return {
    sides,
    /** A client of the failing upstream itself, with a key that fails in this way. */
    faults: (fault) => make(FAULTS_URL, `direct-${fault}`),
    /** What `call` returns, which is the same on both sides. */
    async same(call, direct) {
      const results = [];
      for (const client of sides(direct)) results.push(plain(await call(client)));
      assert.deepEqual(results.at(-1), results[0]);
      return results[0];
    },
    /** The errors that `call` ends in, which are of one class on both sides. */
    async sameFailure(kind, call, direct) {
      const failures = [];
      for (const client of sides(direct)) failures.push(await failure(call, client));
      for (const error of failures) {
        assert.ok(error instanceof kind, String(error));
        assert.equal(error.constructor, failures[0].constructor);
      }
      return failures;
    },
    /** The same with a client key that is not good. */
    async sameRefusal(kind, call) {
      for (const url of routed ? [DIRECT_URL, PROXY_URL] : [DIRECT_URL]) {
        const error = await failure(call, make(url, "wrong"));
        assert.ok(error instanceof kind, String(error));
      }
    },
  };
}

// The models that keys of the proxy name, which it lists beside what its upstreams list.
export const FAULTS = ["limited", "failing", "overloaded", "breaking", "stalling", "late"];
