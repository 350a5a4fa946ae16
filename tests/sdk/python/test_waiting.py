"""What the OpenAI SDK makes of the proxy's word on when it is worth trying again.

`cargo test --test sdk` runs this file. It takes from the environment: PROXY_URL, a proxy whose key for the model `soon`
is limited for 12 seconds, once, and whose key for `late` is for 120; API_KEY, good for it; TIME_URL, which answers when
as many seconds have passed for the proxy as the header `x-seconds` says, and at once by any other clock.
"""

import os
import urllib.request

import openai
import openai._base_client
import pytest

HELLO = [{"role": "user", "content": "hello there, how are you?"}]


class Attempts:
    """A client that counts its attempts, and whose sleeps pass for the proxy alone."""

    def __init__(self, monkeypatch):
        self.made, self.sleeps = [], []
        monkeypatch.setattr(openai._base_client.time, "sleep", self.sleep)
        counting = openai.DefaultHttpxClient(event_hooks={"request": [self.made.append]})
        url = os.environ["PROXY_URL"]
        self.client = openai.OpenAI(base_url=url, api_key=os.environ["API_KEY"], http_client=counting)

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        request = urllib.request.Request(os.environ["TIME_URL"], headers={"x-seconds": str(seconds)})
        urllib.request.urlopen(request).read()

    def chat(self, model):
        return self.client.chat.completions.create(model=model, messages=HELLO)


def test_it_succeeds_on_its_second_attempt_after_the_time_that_it_was_told(monkeypatch):
    attempts = Attempts(monkeypatch)
    assert attempts.chat("soon").choices[0].message.content
    assert len(attempts.made) == 2
    # The moment was named to the millisecond, and some have passed since.
    (slept,) = attempts.sleeps
    assert 11.5 < slept <= 12


def test_it_makes_one_attempt_where_a_minute_is_not_enough(monkeypatch):
    attempts = Attempts(monkeypatch)
    with pytest.raises(openai.RateLimitError) as refused:
        attempts.chat("late")
    assert refused.value.code == "all_keys_cooling"
    assert int(refused.value.response.headers["retry-after"]) > 60
    assert (len(attempts.made), attempts.sleeps) == (1, [])
