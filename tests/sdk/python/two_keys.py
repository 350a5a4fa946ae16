"""The README's first steps with the real binary: two keys in OPENAI_KEYS, the OpenAI SDK, one answer from each key.

    python two_keys.py KEY-CYCLE-PROXY UPSTREAM-EXAMPLE
"""

import pathlib
import re
import socket
import subprocess
import sys
import tempfile

import openai


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def line_of(process, pattern):
    """Reads what a process writes up to a line that matches, and returns the first group."""
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match[1]
    raise SystemExit(f"ended without a line like {pattern}")


def started(argv, **options):
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def main(binary, upstream):
    folder = pathlib.Path(tempfile.mkdtemp())
    running = [started([upstream, "--listen", f"127.0.0.1:{free_port()}"])]
    try:
        base = line_of(running[0], r"(http://\S+)")
        (folder / "config.toml").write_text(
            f'[upstream]\nbase_url = "{base}"\n[observability]\ndebug_headers = true\nmetrics_bind = "off"\n'
        )
        environment = {"OPENAI_KEYS": "sk-a,sk-b", "NO_COLOR": "1"}
        running.append(started([binary, "--bind", "127.0.0.1:0"], cwd=folder, env=environment))
        address = line_of(running[1], r"listening.* address=(\S+)")
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="any", max_retries=0)
        hello = [{"role": "user", "content": "hello there"}]
        keys = set()
        for _ in range(4):
            answer = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=hello)
            assert answer.parse().choices[0].message.content
            keys.add(answer.headers["x-key-cycle-key"])
        assert len(keys) == 2, keys
        print(f"openai {openai.__version__} was served by the keys {', '.join(sorted(keys))}")
    finally:
        for process in running:
            process.terminate()
            process.wait()


main(*sys.argv[1:])
