"""`keras-vit serve` under load: requests per second, latencies, lost answers, memory.

    python benchmarks/serve.py MODEL IMAGES [--clients 50] [--requests 10000] [--hostile]

MODEL is a run folder or a bundle, IMAGES a folder of image files. Each client is a thread that sends one
image per request over a connection that stays open; a busy server (503) is asked again after its Retry-After,
and counted. With --hostile, four more clients send, all the while, what no server should take: damaged JSON,
deep nesting, bodies that are too large or never end, decompression bombs, unfinished headers. Each answer is
compared with the first one for the same image.
"""

import argparse
import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--hostile", action="store_true")
    options = parser.parse_args()
    files = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in SUFFIXES)[:200]
    bodies = [body_of(path.read_bytes()) for path in files]
    command = [sys.executable, "-m", "keras_vit", "serve", str(options.model), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = wait_until_ready(server)
        measure(server, port, bodies, options)
    finally:
        server.send_signal(signal.SIGINT)
        print(server.stdout.read().strip())
        print(f"exit code {server.wait(60)}")


def body_of(file):
    return json.dumps({"instances": [{"b64": base64.b64encode(file).decode()}]}).encode()


def wait_until_ready(server):
    began = time.monotonic()
    for line in server.stdout:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            print(f"ready after {time.monotonic() - began:.1f} s")
            return int(found[1])
    raise SystemExit("the server ended")


def measure(server, port, bodies, options):
    name = json.loads(get(port, "/v1/models/vit"))["model_version_status"][0]["version"]
    print(f"version {name}; memory {memory(server.pid):.0f} MB")
    expected = [ask(http.client.HTTPConnection("127.0.0.1", port), body)[1] for body in bodies]
    seconds, busy, wrong, done = [], [0], [0], threading.Event()
    lock, most = threading.Lock(), [0.0]
    numbers = iter(range(options.requests))

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return connection.close()
            began = time.monotonic()
            while True:
                status, answer = ask(connection, bodies[number % len(bodies)])
                if status != 503:
                    break
                with lock:
                    busy[0] += 1
                time.sleep(1)
            took = time.monotonic() - began
            with lock:
                seconds.append(took)
                wrong[0] += status != 200 or not alike(answer, expected[number % len(bodies)])

    def watch():
        while not done.wait(0.2):
            most[0] = max(most[0], memory(server.pid))

    counted = {}
    hostile = [threading.Thread(target=attack, args=(port, i, done, counted, lock)) for i in range(4)]
    for thread in [threading.Thread(target=watch), *(hostile if options.hostile else [])]:
        thread.start()
    began = time.monotonic()
    with ThreadPoolExecutor(options.clients) as pool:
        for found in [pool.submit(client) for _ in range(options.clients)]:
            found.result()
    took = time.monotonic() - began
    done.set()
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    print(
        f"{len(seconds):,} answers for {options.requests:,} requests of {options.clients} clients in "
        f"{took:.1f} s: {len(seconds) / took:.0f}/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest "
        f"{1000 * max(seconds):.0f} ms; {wrong[0]} wrong, {busy[0]} times busy"
    )
    print(f"memory: at most {most[0]:.0f} MB, at the end {memory(server.pid):.0f} MB")
    if options.hostile:
        print("hostile:", ", ".join(f"{what}: {n}" for what, n in sorted(counted.items())))


def ask(connection, body):
    connection.request("POST", "/v1/models/vit:predict", body)
    response = connection.getresponse()
    return response.status, response.read()


def alike(answer, other):
    """Whether two answers are the same but for the last bits, which the size of a batch can change."""
    first, second = (json.loads(text)["predictions"][0] for text in (answer, other))
    close = np.allclose(first["probabilities"], second["probabilities"], atol=1e-5)
    return close and first["label"] == second["label"] and first["reject"] == second["reject"]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read()


def memory(pid):
    """Resident memory of a process in MB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def attack(port, number, done, counted, lock):
    attacks = list(hostile_requests().items())
    at = number
    while not done.is_set():
        what, content = attacks[at % len(attacks)]
        at += 1
        found = send(port, content, 3.0)
        with lock:
            key = f"{what} {found}"
            counted[key] = counted.get(key, 0) + 1


def send(port, content, seconds):
    """The status of a raw request, or how it ended."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(seconds)
            connection.sendall(content)
            head = connection.recv(4096)
        return head.split(b" ", 2)[1].decode() if head else "closed"
    except TimeoutError:
        return "unanswered"
    except (OSError, IndexError) as error:
        return type(error).__name__


def hostile_requests():
    """Raw requests by name."""

    def post(body, length=None, path="/v1/models/vit:predict"):
        size = len(body) if length is None else length
        return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode() + body

    def image(file):
        return post(body_of(file))

    return {
        "not JSON": post(b"{"),
        "deep": post(b'{"instances":' + b"[" * 1_000_000),
        "deep objects": post(b'{"a":' * 300_000),
        "many lists": post(b'{"instances":[' + b"[]," * 8_000_000 + b"[]]}"),
        "too large": post(b"x" * 1000, 10**10),
        "unfinished": post(b'{"instances":', 10_000_000),
        "huge number": post(b'{"signature_name":"images","instances":[[[[1e999999]]]]}'),
        "digits": post(b'{"instances":[' + b"9" * 100_000 + b"]}"),
        "not UTF-8": post(b'{"instances":["\xff\xfe"]}'),
        "bomb": image(bomb(5_700)),
        "large": image(bomb(30_000)),
        "no image": image(b"GIF89a" + b"\xff" * 100_000),
        "half a header": b"POST /v1/models/vit:predict HTTP/1.1\r\nHost: loc",
        "long header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        "not HTTP": b"\x16\x03\x01" + b"\0" * 200,
        "other host": b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    }


def bomb(side):
    """A PNG of side x side black pixels: some kilobytes."""
    from PIL import Image

    written = io.BytesIO()
    Image.MAX_IMAGE_PIXELS = None
    Image.new("1", (side, side)).save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    main()
