"""Both sides of a comparison: an SDK directly at an upstream and through the proxy.

`cargo test --test sdk` starts both. From the environment: DIRECT_URL and PROXY_URL, without a path, two upstreams of
equal behaviour, the latter behind the proxy (unset while the proxy has no such routes: then only the direct side is
tested); FAULTS_URL, an upstream whose keys each fail in a way of their own, which the proxy uses for the models of the
same names; API_KEY, good for both.
"""

import os

import pytest

KEY = os.environ["API_KEY"]
DIRECT_URL = os.environ["DIRECT_URL"]
PROXY_URL = os.environ.get("PROXY_URL")
FAULTS_URL = os.environ["FAULTS_URL"]
ROUTED = PROXY_URL is not None
# The models that keys of the proxy name, which it lists beside what its upstreams list.
FAULTS = ("limited", "failing", "overloaded", "breaking", "stalling", "late")


class Both:
    """`make(url, key)` is a client that does not retry; the URL has no path."""

    def __init__(self, make):
        self.make = make
        self.direct = make(DIRECT_URL, KEY)
        self.proxied = make(PROXY_URL, KEY) if ROUTED else None

    def sides(self, direct=None):
        return [direct or self.direct] + ([self.proxied] if ROUTED else [])

    def faults(self, fault):
        """A client of the failing upstream itself, with a key that fails in this way."""
        return self.make(FAULTS_URL, f"direct-{fault}")

    def same(self, call, direct=None):
        """What `call` returns, which is the same on both sides."""
        results = [call(client) for client in self.sides(direct)]
        assert all(result == results[0] for result in results), results
        return results[-1]

    def same_failure(self, kind, call, direct=None):
        """The exceptions that `call` raises, of the same class on both sides."""
        failures = [failure(call, client) for client in self.sides(direct)]
        return self.of_one_kind(kind, failures)

    def same_refusal(self, kind, call):
        """The same with a client key that is not good."""
        urls = [DIRECT_URL] + ([PROXY_URL] if ROUTED else [])
        return self.of_one_kind(kind, [failure(call, self.make(url, "wrong")) for url in urls])

    def of_one_kind(self, kind, failures):
        assert {type(error) for error in failures} == {type(failures[0])}, failures
        assert isinstance(failures[0], kind), failures
        return failures


def failure(call, client):
    with pytest.raises(Exception) as raised:
        call(client)
    return raised.value


def broken_off(stream):
    """What a stream yields before it fails, and how it fails."""
    seen = []
    with pytest.raises(Exception) as raised:
        for piece in stream:
            seen.append(piece)
    # By name: some SDKs have their HTTP client from a package of another name.
    return len(seen), type(raised.value).__name__


def count_attempts(make, call):
    """How often `make(url, key, hooks)` asks by itself, with hooks for its HTTP client: directly, and through the proxy
    if there is one."""
    sides = [(FAULTS_URL, "direct-failing")] + ([(PROXY_URL, KEY)] if ROUTED else [])
    counts = []
    for url, key in sides:
        sent = []
        failure(call, make(url, key, {"request": [sent.append]}))
        counts.append(len(sent))
    return counts
