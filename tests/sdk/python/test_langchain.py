"""LangChain's models directly at an upstream and through the proxy; both.py says where they are."""

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from both import Both, broken_off

HELLO = "hello there, how are you?"
OPENAI = Both(
    lambda url, key: lambda model: ChatOpenAI(
        model=model, base_url=f"{url}/v1", api_key=key, max_retries=0, stream_usage=True
    )
)
ANTHROPIC = Both(
    lambda url, key: lambda model: ChatAnthropic(model=model, base_url=url, api_key=key, max_retries=0)
)
GEMINI = Both(
    lambda url, key: lambda model: ChatGoogleGenerativeAI(
        model=model, base_url=url, google_api_key=key, max_retries=1
    )
)
EVERY = [(OPENAI, "gpt-4o"), (ANTHROPIC, "claude-sonnet-4-5"), (GEMINI, "gemini-2.5-flash")]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def plain(message):
    """A message without ids that LangChain makes up."""
    message = message.model_dump(exclude={"id"})
    for call in message.get("tool_calls", []) + message.get("tool_call_chunks", []):
        call.pop("id", None)
    for call in (message.get("additional_kwargs") or {}).pop("tool_calls", None) or []:
        call.pop("id", None)
    message["response_metadata"].pop("model_provider", None)
    return message


@pytest.mark.parametrize("both, model", EVERY)
def test_a_message(both, model):
    message = both.same(lambda make: plain(make(model).invoke(HELLO)))
    assert message["content"] == HELLO
    assert message["usage_metadata"]["output_tokens"] == 5


@pytest.mark.parametrize("both, model", EVERY)
def test_a_stream(both, model):
    def whole(make):
        pieces = list(make(model).stream(HELLO))
        assert len(pieces) >= 5
        total = pieces[0]
        for piece in pieces[1:]:
            total += piece
        return total.text, total.usage_metadata

    text, usage = both.same(whole)
    assert (text, usage["output_tokens"]) == (HELLO, 5)


@pytest.mark.parametrize("both, model", EVERY)
def test_tools(both, model):
    message = both.same(lambda make: plain(make(model).bind_tools([weather]).invoke(HELLO)))
    assert [(call["name"], call["args"]) for call in message["tool_calls"]] == [("weather", {"city": HELLO})]


def test_embeddings():
    openai_embeddings = Both(
        lambda url, key: OpenAIEmbeddings(
            model="text-embedding-3-small", base_url=f"{url}/v1", api_key=key, check_embedding_ctx_length=False
        )
    )
    gemini_embeddings = Both(
        lambda url, key: GoogleGenerativeAIEmbeddings(
            model="gemini-embedding-001", base_url=url, google_api_key=key
        )
    )
    for both in (openai_embeddings, gemini_embeddings):
        vectors = both.same(lambda embeddings: embeddings.embed_documents(["one", "two"]))
        assert len(vectors) == 2 and vectors[0] != vectors[1]


FAILURES = [
    (OPENAI, "limited", openai.RateLimitError),
    (OPENAI, "failing", openai.InternalServerError),
    (ANTHROPIC, "limited", anthropic.RateLimitError),
    (ANTHROPIC, "failing", anthropic.InternalServerError),
    (ANTHROPIC, "overloaded", anthropic.OverloadedError),
    (GEMINI, "limited", None),
    (GEMINI, "failing", None),
]


@pytest.mark.parametrize("both, fault, kind", FAILURES)
def test_a_failure(both, fault, kind):
    def kind_of(make):
        with pytest.raises(Exception) as raised:
            make(fault).invoke(HELLO)
        return type(raised.value)

    found = both.same(kind_of, both.faults(fault))
    assert kind is None or issubclass(found, kind)
    assert kind is not None or "Error" in found.__name__


@pytest.mark.parametrize("both", [OPENAI, ANTHROPIC, GEMINI])
def test_a_stream_that_breaks_is_not_taken_for_a_whole_one(both):
    seen, _ = both.same(lambda make: broken_off(make("breaking").stream(HELLO)), both.faults("breaking"))
    assert seen >= 1


def test_a_wrong_client_key():
    OPENAI.same_refusal(openai.AuthenticationError, lambda make: make("gpt-4o").invoke(HELLO))
    ANTHROPIC.same_refusal(anthropic.AuthenticationError, lambda make: make("claude-sonnet-4-5").invoke(HELLO))
