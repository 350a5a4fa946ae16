"""Google's SDK directly at an upstream and through the proxy; both.py says where they are."""

import pytest
from google import genai
from google.genai import errors, types

from both import FAULTS, Both, broken_off, count_attempts

HELLO = "hello there, how are you?"


def make(url, key, hooks=None):
    options = types.HttpOptions(base_url=url, client_args={"event_hooks": hooks or {}})
    return genai.Client(api_key=key, http_options=options)


BOTH = Both(make)


def plain(response):
    """Without the headers, which have ids and times."""
    return response.model_dump(exclude={"sdk_http_response"})


def say(client, model="gemini-2.5-flash", **config):
    return client.models.generate_content(model=model, contents=HELLO, config=config)


def stream(client, model="gemini-2.5-flash"):
    return client.models.generate_content_stream(model=model, contents=HELLO)


def test_content():
    response = BOTH.same(lambda c: plain(say(c)))
    assert response["candidates"][0]["content"]["parts"][0]["text"] == HELLO
    assert response["usage_metadata"]["candidates_token_count"] == 5


def test_a_stream():
    pieces = BOTH.same(lambda c: [plain(piece) for piece in stream(c)])
    assert "".join(piece["candidates"][0]["content"]["parts"][0]["text"] for piece in pieces) == HELLO
    assert pieces[-1]["usage_metadata"]["total_token_count"] == 10


def test_a_stream_arrives_piece_by_piece():
    def first_two(client):
        pieces = stream(client, "stalling")
        two = [plain(next(pieces)), plain(next(pieces))]
        pieces.close()
        return two

    BOTH.same(first_two, BOTH.faults("stalling"))


def test_a_chat_remembers():
    def turns(client):
        chat = client.chats.create(model="gemini-2.5-flash")
        return [chat.send_message("one").text, chat.send_message("two three").text]

    assert BOTH.same(turns) == ["one", "two three"]


def test_tools():
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"rain in {city[:5]}"

    # The SDK calls the function by itself, and sends what it returned.
    assert BOTH.same(lambda c: say(c, tools=[weather]).text) == "rain in hello"
    declared = types.Tool(
        function_declarations=[
            {"name": "weather", "parameters_json_schema": {"properties": {"city": {"type": "string"}}}}
        ]
    )
    calls = BOTH.same(lambda c: [call.model_dump() for call in say(c, tools=[declared]).function_calls])
    assert calls[0]["args"] == {"city": HELLO}


def test_embeddings():
    def embed(client):
        config = {"output_dimensionality": 8}
        return plain(
            client.models.embed_content(model="gemini-embedding-001", contents=["one", "two"], config=config)
        )

    vectors = [embedding["values"] for embedding in BOTH.same(embed)["embeddings"]]
    assert [len(vector) for vector in vectors] == [8, 8]
    assert vectors[0] != vectors[1]


def test_tokens_are_counted():
    counted = BOTH.same(lambda c: plain(c.models.count_tokens(model="gemini-2.5-flash", contents=HELLO)))
    assert counted["total_tokens"] == 5


def test_models():
    assert len(BOTH.same(lambda c: sorted(model.name for model in c.models.list() if model.name.removeprefix("models/") not in FAULTS))) == 3
    assert BOTH.same(lambda c: plain(c.models.get(model="gemini-2.5-pro")))["name"] == "models/gemini-2.5-pro"


def test_a_bad_request_is_told_as_the_upstream_tells_it():
    failures = BOTH.same_failure(
        errors.ClientError, lambda c: say(c, max_output_tokens=-1)
    )
    assert failures[-1].details == failures[0].details


def test_a_wrong_client_key():
    BOTH.same_refusal(errors.ClientError, say)


def test_a_model_that_does_not_exist():
    failures = BOTH.same_failure(errors.ClientError, lambda c: say(c, "no-such-model"))
    assert [(error.code, error.status) for error in failures] == [(404, "NOT_FOUND")] * len(failures)
    assert failures[-1].details == failures[0].details


def test_when_all_keys_are_limited():
    failures = BOTH.same_failure(errors.ClientError, lambda c: say(c, "limited"), BOTH.faults("limited"))
    assert [(error.code, error.status) for error in failures] == [(429, "RESOURCE_EXHAUSTED")] * len(failures)


@pytest.mark.parametrize("fault, code", [("failing", 500), ("overloaded", 503)])
def test_a_server_error(fault, code):
    failures = BOTH.same_failure(errors.ServerError, lambda c: say(c, fault), BOTH.faults(fault))
    assert [error.code for error in failures] == [code] * len(failures)
    assert failures[-1].details == failures[0].details


def test_the_sdk_does_not_retry():
    assert set(count_attempts(make, lambda c: say(c, "failing"))) == {1}


@pytest.mark.parametrize("fault, kind, seen", [("breaking", "RemoteProtocolError", 2), ("late", "ServerError", 3)])
def test_a_stream_that_fails_is_not_taken_for_a_whole_one(fault, kind, seen):
    ended = BOTH.same(lambda c: broken_off(stream(c, fault)), BOTH.faults(fault))
    assert ended == (seen, kind)
