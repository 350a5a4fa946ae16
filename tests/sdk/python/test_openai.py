"""The OpenAI SDK directly at an upstream and through the proxy: the same objects, the same exceptions.

`cargo test --test sdk` starts both and runs this file. It takes from the environment:
DIRECT_URL and PROXY_URL, two upstreams of equal behaviour, the latter behind the proxy; FAULTS_URL, an upstream whose
keys each fail in a way of their own, which the proxy uses for the models of the same names; API_KEY, good for both.
"""

import os

import openai
import pytest

KEY = os.environ["API_KEY"]
DIRECT = openai.OpenAI(base_url=os.environ["DIRECT_URL"], api_key=KEY)
PROXIED = openai.OpenAI(base_url=os.environ["PROXY_URL"], api_key=KEY)
HELLO = [{"role": "user", "content": "hello there, how are you?"}]


def same(call):
    """What `call` returns, which is the same directly and through the proxy."""
    direct, proxied = call(DIRECT), call(PROXIED)
    assert proxied == direct
    return proxied


def same_failure(kind, call, direct=DIRECT):
    """The exception that `call` raises through the proxy, which is of the same class directly."""
    failures = []
    for client in (direct, PROXIED):
        with pytest.raises(openai.OpenAIError) as raised:
            call(client)
        failures.append(raised.value)
    assert [type(failure) for failure in failures] == [kind, kind]
    return failures


def faults(fault):
    """A client of the failing upstream itself, with a key that fails in this way."""
    return openai.OpenAI(base_url=os.environ["FAULTS_URL"], api_key=f"direct-{fault}", max_retries=0)


def test_chat():
    chat = same(lambda c: c.chat.completions.create(model="gpt-4o", messages=HELLO).model_dump())
    assert chat["choices"][0]["message"]["content"] == "hello there, how are you?"
    assert chat["usage"]["completion_tokens"] == 5


def test_chat_stream():
    def chunks(client):
        stream = client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        return [chunk.model_dump() for chunk in stream]

    # The opening, five words, the reason to finish, the usage.
    assert len(same(chunks)) == 8


def test_a_stream_arrives_piece_by_piece():
    # This upstream falls silent after two pieces and never ends: what waited for the end would wait for ever.
    def first_two(client):
        with client.chat.completions.create(model="stalling", messages=HELLO, stream=True) as stream:
            return [next(stream).model_dump(), next(stream).model_dump()]

    assert first_two(PROXIED) == first_two(faults("stalling"))


def test_responses():
    response = same(lambda c: c.responses.create(model="gpt-4o", input="say this").model_dump())
    assert response["output"][0]["content"][0]["text"] == "say this"
    same(lambda c: c.responses.retrieve(response["id"]).model_dump())
    same(lambda c: c.responses.create(model="gpt-4o", input="more", previous_response_id=response["id"]).model_dump())


def test_responses_stream():
    def events(client):
        return [event.model_dump() for event in client.responses.create(model="gpt-4o", input="say this", stream=True)]

    assert same(events)[-1]["type"] == "response.completed"


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("encoding", [openai.omit, "float", "base64"])
def test_embeddings(encoding):
    def create(client):
        return client.embeddings.create(
            model="text-embedding-3-small", input=["one", "two"], dimensions=8, encoding_format=encoding
        ).model_dump()

    assert len(same(create)["data"]) == 2


def test_models():
    # The proxy lists what its keys name as well.
    configured = ("limited", "failing", "breaking", "stalling")
    listed = same(lambda c: [model.model_dump() for model in c.models.list() if model.id not in configured])
    assert len(listed) > 3
    assert same(lambda c: c.models.retrieve("gpt-4o").model_dump())["id"] == "gpt-4o"


def test_transcription():
    sound = bytes(range(256)) * 400

    def transcribe(client):
        return client.audio.transcriptions.create(model="whisper-1", file=("sound.wav", sound)).model_dump()

    assert same(transcribe)["text"] == "102400 bytes of sound"
    text = same(lambda c: c.audio.transcriptions.create(model="whisper-1", file=sound, response_format="text"))
    assert "102400" in text


def test_speech():
    def speak(client):
        return client.audio.speech.create(model="tts-1", voice="alloy", input="hello").read()

    assert same(speak) == bytes(range(256)) * 32

    def speak_in_pieces(client):
        with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="hello") as sound:
            return b"".join(sound.iter_bytes())

    assert same(speak_in_pieces) == bytes(range(256)) * 32


def test_files():
    lines = b'{"custom_id": "1"}\n' * 1000

    def life(client):
        file = client.files.create(file=("batch.jsonl", lines), purpose="batch")
        listed = [other.model_dump() for other in client.files.list()]
        assert file.model_dump() in listed
        again = client.files.retrieve(file.id)
        content = client.files.content(file.id).read()
        deleted = client.files.delete(file.id)
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file.id)
        return file.model_dump(), again.model_dump(), content, deleted.model_dump()

    file, _, content, deleted = same(life)
    assert (file["filename"], content, deleted["deleted"]) == ("batch.jsonl", lines, True)


def test_moderations():
    result = same(lambda c: c.moderations.create(input=["peace", "violence"]).model_dump())
    assert [result["flagged"] for result in result["results"]] == [False, True]


def test_images():
    image = same(lambda c: c.images.generate(model="gpt-image-1", prompt="a grey pixel").model_dump())
    assert image["data"][0]["b64_json"]


def test_a_bad_request_is_told_as_the_upstream_tells_it():
    direct, proxied = same_failure(
        openai.BadRequestError, lambda c: c.chat.completions.create(model="gpt-4o", messages=[])
    )
    assert (proxied.body, proxied.code) == (direct.body, "empty_array")


def test_a_wrong_client_key():
    def chat(client):
        return client.with_options(api_key="wrong").chat.completions.create(model="gpt-4o", messages=HELLO)

    direct, proxied = same_failure(openai.AuthenticationError, chat)
    assert proxied.code == direct.code == "invalid_api_key"


def ask_for_no_such_model():
    direct, proxied = same_failure(
        openai.NotFoundError, lambda c: c.chat.completions.create(model="no-such-model", messages=HELLO)
    )
    assert (direct.code, proxied.code) == ("model_not_found", "model_not_found")
    return direct, proxied


def test_a_model_that_does_not_exist():
    direct, proxied = ask_for_no_such_model()
    assert proxied.body == direct.body


def test_a_model_that_does_not_exist_stays_not_found():
    for _ in range(4):
        ask_for_no_such_model()


def test_when_all_keys_are_limited_the_sdk_is_told_how_long_and_does_not_try_again():
    attempts = []
    counting = openai.DefaultHttpxClient(event_hooks={"request": [attempts.append]})
    with pytest.raises(openai.RateLimitError) as direct:
        faults("limited").chat.completions.create(model="limited", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as proxied:
        PROXIED.with_options(http_client=counting).chat.completions.create(model="limited", messages=HELLO)
    assert int(direct.value.response.headers["retry-after"]) > 60
    assert 60 < int(proxied.value.response.headers["retry-after"]) <= 120
    assert proxied.value.code == "all_keys_cooling"
    assert len(attempts) == 1


def test_a_server_error():
    def chat(client):
        return client.with_options(max_retries=0).chat.completions.create(model="failing", messages=HELLO)

    direct, proxied = same_failure(openai.InternalServerError, chat, faults("failing"))
    assert (proxied.status_code, proxied.body) == (direct.status_code, direct.body)


def test_a_stream_that_breaks_is_not_taken_for_a_whole_one():
    def chunks(client):
        seen = []
        with pytest.raises(Exception) as raised:
            for chunk in client.chat.completions.create(model="breaking", messages=HELLO, stream=True):
                seen.append(chunk.model_dump())
        return seen, type(raised.value)

    seen, kind = chunks(PROXIED)
    assert (seen, kind) == chunks(faults("breaking"))
    assert len(seen) == 2
