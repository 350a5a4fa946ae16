"""LiteLLM as a client directly at an upstream and through the proxy; both.py says where they are."""

import os

# Prices come with the package; the newest are not fetched.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pytest

from both import Both, broken_off

HELLO = [{"role": "user", "content": "hello there, how are you?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# What LiteLLM wants of a base, and how it names the model.
BASES = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}
EVERY = [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("gemini", "gemini-2.5-flash")]


def make(url, key):
    def call(provider, model, function=litellm.completion, **more):
        return function(
            model=f"{provider}/{model}",
            api_base=url + BASES[provider],
            api_key=key,
            num_retries=0,
            max_retries=0,
            **({"messages": HELLO} | more if function is litellm.completion else more),
        )

    return call


BOTH = Both(make)


def plain(response):
    """Without ids and times that LiteLLM makes up."""
    response = response.model_dump(exclude={"id", "created", "response_ms"})
    for choice in response.get("choices", []):
        part = choice.get("message") or choice.get("delta") or {}
        for call in part.get("tool_calls") or []:
            call.pop("id")
    return response


@pytest.mark.parametrize("provider, model", EVERY)
def test_a_message(provider, model):
    answer = BOTH.same(lambda call: plain(call(provider, model)))
    assert answer["choices"][0]["message"]["content"] == HELLO[0]["content"]
    assert answer["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("provider, model", EVERY)
def test_a_stream(provider, model):
    def chunks(call):
        return [plain(chunk) for chunk in call(provider, model, stream=True)]

    texts = [chunk["choices"][0]["delta"]["content"] or "" for chunk in BOTH.same(chunks) if chunk["choices"]]
    assert "".join(texts) == HELLO[0]["content"]


@pytest.mark.parametrize("provider, model", EVERY)
def test_tools(provider, model):
    answer = BOTH.same(lambda call: plain(call(provider, model, tools=[WEATHER])))
    function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (function["name"], "hello there" in function["arguments"]) == ("weather", True)


@pytest.mark.parametrize("provider, model", [("openai", "text-embedding-3-small"), ("gemini", "gemini-embedding-001")])
def test_embeddings(provider, model):
    answer = BOTH.same(lambda call: plain(call(provider, model, litellm.embedding, input=["one", "two"])))
    assert len(answer["data"]) == 2


FAILURES = [
    ("openai", "limited", litellm.RateLimitError),
    ("openai", "failing", litellm.InternalServerError),
    ("openai", "no-such-model", litellm.NotFoundError),
    ("anthropic", "limited", litellm.RateLimitError),
    ("anthropic", "failing", litellm.InternalServerError),
    ("anthropic", "overloaded", litellm.InternalServerError),
    ("anthropic", "no-such-model", litellm.NotFoundError),
    ("gemini", "limited", litellm.RateLimitError),
    ("gemini", "failing", litellm.InternalServerError),
    ("gemini", "overloaded", litellm.InternalServerError),
    ("gemini", "no-such-model", litellm.NotFoundError),
]


@pytest.mark.parametrize("provider, fault, kind", FAILURES)
def test_a_failure(provider, fault, kind):
    direct = None if fault == "no-such-model" else BOTH.faults(fault)
    BOTH.same_failure(kind, lambda call: call(provider, fault), direct)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_wrong_client_key(provider):
    BOTH.same_refusal(litellm.AuthenticationError, lambda call: call(provider, "any"))


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_a_stream_that_breaks_is_not_taken_for_a_whole_one(provider):
    BOTH.same(lambda call: broken_off(call(provider, "breaking", stream=True)), BOTH.faults("breaking"))
