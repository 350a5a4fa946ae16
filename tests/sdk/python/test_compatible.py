"""The OpenAI SDK at the compatible bases of other providers, and as `provider/model` through the proxy; both.py says
where they are."""

import openai
import pytest

from both import KEY, DIRECT_URL, FAULTS_URL, PROXY_URL, ROUTED, failure

HELLO = [{"role": "user", "content": "hello there, how are you?"}]
MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "azure": "gpt-4o"}
# The deployment that the proxy's configuration names for gpt-4o.
DEPLOYMENTS = {"gpt-4o": "my-gpt4o"}


def directly(provider, url, key):
    if provider == "azure":
        return openai.AzureOpenAI(azure_endpoint=url, api_version="2024-10-21", api_key=key, max_retries=0)
    base = {"anthropic": "/v1", "gemini": "/v1beta/openai"}[provider]
    return openai.OpenAI(base_url=url + base, api_key=key, max_retries=0)


def sides(provider, model, url=DIRECT_URL, key=KEY):
    """A client and a model's name of each side."""
    name = DEPLOYMENTS.get(model, model) if provider == "azure" else model
    yield directly(provider, url, key), name
    if ROUTED:
        proxied = openai.OpenAI(base_url=f"{PROXY_URL}/v1", api_key=KEY, max_retries=0)
        yield proxied, f"{provider}/{model}"


def same(provider, call):
    results = [call(client, model) for client, model in sides(provider, MODELS[provider])]
    assert all(result == results[0] for result in results), results
    return results[-1]


def same_failure(provider, kind, model, url=DIRECT_URL, key=KEY):
    def chat(side):
        return side[0].chat.completions.create(model=side[1], messages=HELLO)

    failures = [failure(chat, side) for side in sides(provider, model, url, key)]
    assert [type(error) for error in failures] == [kind] * len(failures), failures


@pytest.mark.parametrize("provider", MODELS)
def test_chat(provider):
    chat = same(provider, lambda c, m: c.chat.completions.create(model=m, messages=HELLO).model_dump())
    assert chat["choices"][0]["message"]["content"] == HELLO[0]["content"]


@pytest.mark.parametrize("provider", MODELS)
def test_chat_stream(provider):
    def chunks(client, model):
        stream = client.chat.completions.create(model=model, messages=HELLO, stream=True)
        return [chunk.model_dump() for chunk in stream]

    texts = [choice["delta"]["content"] or "" for chunk in same(provider, chunks) for choice in chunk["choices"]]
    assert "".join(texts) == HELLO[0]["content"]


@pytest.mark.parametrize("provider", MODELS)
def test_a_model_that_does_not_exist(provider):
    same_failure(provider, openai.NotFoundError, "no-such-model")


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.parametrize("fault, kind", [("limited", openai.RateLimitError), ("failing", openai.InternalServerError)])
def test_a_failure(provider, fault, kind):
    same_failure(provider, kind, fault, FAULTS_URL, f"direct-{fault}")
