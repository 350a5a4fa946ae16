"""The Anthropic SDK directly at an upstream and through the proxy; both.py says where they are."""

import anthropic
import pytest

from both import FAULTS, ROUTED, Both, broken_off, count_attempts

BOTH = Both(lambda url, key: anthropic.Anthropic(base_url=url, api_key=key, max_retries=0))
HELLO = [{"role": "user", "content": "hello there, how are you?"}]
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def say(client, model="claude-sonnet-4-5", **more):
    return client.messages.create(**{"model": model, "max_tokens": 64, "messages": HELLO} | more)


def body(error):
    """An error's body without the id of the request."""
    return {name: value for name, value in error.body.items() if name != "request_id"}


def test_a_message():
    message = BOTH.same(lambda c: say(c).model_dump())
    assert message["content"][0]["text"] == "hello there, how are you?"
    assert message["usage"]["output_tokens"] == 5


def test_the_answer_has_its_request_id_and_its_limits():
    for client in BOTH.sides():
        raw = client.messages.with_raw_response.create(model="m", max_tokens=9, messages=HELLO)
        assert raw.parse()._request_id == raw.headers["request-id"]
    assert BOTH.direct.messages.with_raw_response.create(model="m", max_tokens=9, messages=HELLO).headers[
        "anthropic-ratelimit-requests-remaining"
    ]


def test_a_stream():
    events = BOTH.same(lambda c: [event.model_dump() for event in say(c, stream=True)])
    assert events[-1]["type"] == "message_stop"

    def told(client):
        with client.messages.stream(model="claude-sonnet-4-5", max_tokens=64, messages=HELLO) as stream:
            return list(stream.text_stream), stream.get_final_message().model_dump()

    words, message = BOTH.same(told)
    assert "".join(words) == message["content"][0]["text"] == "hello there, how are you?"
    assert message["usage"]["output_tokens"] == 5


def test_a_stream_arrives_piece_by_piece():
    def first_two(client):
        stream = say(client, model="stalling", stream=True)
        two = [next(stream).model_dump(), next(stream).model_dump()]
        stream.close()
        return two

    BOTH.same(first_two, BOTH.faults("stalling"))


def test_tools():
    first = BOTH.same(lambda c: say(c, tools=[WEATHER]).model_dump())
    assert (first["stop_reason"], first["content"][0]["input"]) == ("tool_use", {"city": HELLO[0]["content"]})
    result = {"type": "tool_result", "tool_use_id": first["content"][0]["id"], "content": "rain"}
    turns = HELLO + [
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = BOTH.same(lambda c: say(c, tools=[WEATHER], messages=turns).model_dump())
    assert second["content"][0]["text"] == "rain"


def test_a_streamed_call():
    def called(client):
        with client.messages.stream(model="m", max_tokens=64, messages=HELLO, tools=[WEATHER]) as stream:
            return stream.get_final_message().model_dump()

    assert BOTH.same(called)["content"][0]["input"] == {"city": HELLO[0]["content"]}


def test_tokens_are_counted():
    assert BOTH.same(lambda c: c.messages.count_tokens(model="m", messages=HELLO).model_dump())["input_tokens"] == 5


def test_models():
    assert len(BOTH.same(lambda c: sorted(model.id for model in c.models.list() if model.id not in FAULTS))) == 3
    assert BOTH.same(lambda c: c.models.retrieve("claude-opus-4-5-20251101").model_dump())["type"] == "model"


def test_batches():
    wish = {"custom_id": "one", "params": {"model": "m", "max_tokens": 9, "messages": HELLO}}

    def life(client):
        batch = client.messages.batches.create(requests=[wish])
        again = client.messages.batches.retrieve(batch.id)
        # The URL of the results names the upstream.
        return [made.model_dump(exclude={"results_url"}) for made in (batch, again)]

    batch, again = BOTH.same(life)
    assert batch == again
    assert [r.result.message.content[0].text for r in BOTH.direct.messages.batches.results(batch["id"])] == [
        HELLO[0]["content"]
    ]


def test_a_bad_request_is_told_as_the_upstream_tells_it():
    failures = BOTH.same_failure(anthropic.BadRequestError, lambda c: say(c, messages=[]))
    assert body(failures[-1]) == body(failures[0])


def test_a_wrong_client_key():
    failures = BOTH.same_refusal(anthropic.AuthenticationError, say)
    assert {error.body["error"]["type"] for error in failures} == {"authentication_error"}


def test_a_model_that_does_not_exist():
    failures = BOTH.same_failure(anthropic.NotFoundError, lambda c: say(c, model="no-such-model"))
    assert body(failures[-1]) == body(failures[0])


def test_when_all_keys_are_limited_the_sdk_is_told_how_long():
    failures = BOTH.same_failure(
        anthropic.RateLimitError, lambda c: say(c, model="limited"), BOTH.faults("limited")
    )
    assert {error.body["error"]["type"] for error in failures} == {"rate_limit_error"}
    assert 60 < int(failures[-1].response.headers["retry-after"]) <= 120
    assert int(failures[0].response.headers["retry-after"]) == 120


def test_a_server_error():
    failures = BOTH.same_failure(
        anthropic.InternalServerError, lambda c: say(c, model="failing"), BOTH.faults("failing")
    )
    assert body(failures[-1]) == body(failures[0])


def test_an_overloaded_upstream():
    failures = BOTH.same_failure(
        anthropic.OverloadedError, lambda c: say(c, model="overloaded"), BOTH.faults("overloaded")
    )
    assert [error.status_code for error in failures] == [529] * len(failures)


def test_the_sdk_does_not_retry_what_the_proxy_has_retried():
    def make(url, key, hooks):
        return anthropic.Anthropic(
            base_url=url, api_key=key, http_client=anthropic.DefaultHttpxClient(event_hooks=hooks)
        )

    attempts = count_attempts(make, lambda c: say(c, model="failing"))
    assert attempts == ([3, 1] if ROUTED else [3])


@pytest.mark.parametrize(
    "fault, kind, seen", [("breaking", "RemoteProtocolError", 2), ("late", "APIStatusError", 2)]
)
def test_a_stream_that_fails_is_not_taken_for_a_whole_one(fault, kind, seen):
    ended = BOTH.same(lambda c: broken_off(say(c, model=fault, stream=True)), BOTH.faults(fault))
    assert ended == (seen, kind)
