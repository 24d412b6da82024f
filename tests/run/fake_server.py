"""A small OpenAI-compatible server on the loopback interface that can misbehave as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeServer(ThreadingHTTPServer):
    """Answers a prompt with its own text reversed, one token per character and an end token.

    faults: what happens to the first requests for a completion, one word each: `drop`, `half`,
    `429`, `500`, `400`, `garbage`, `list`, `empty`, `counts`, `reason`, `hang`, or `ok`.
    `always`: the fault of every request whose prompt holds the key. `stops`: whether a stop string
    is left out of the text (`cut`, as vLLM does) or left on it (`leave`).
    """

    daemon_threads = True

    def __init__(
        self,
        faults: Sequence[str] = (),
        always: dict[str, str] | None = None,
        card: dict[str, Any] | None = None,
        extra_prompt_tokens: int = 0,
        ignore_limit: bool = False,
        lists: bool | None = True,
        model: str = "m",
        port: int = 0,
        stops: str = "cut",
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.faults, self.always, self.card = list(faults), always or {}, card or {}
        self.ignore_limit, self.lists = ignore_limit, lists
        self.model, self.stops = model, stops
        self.extra_prompt_tokens = extra_prompt_tokens
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.most_at_once, self._now = 0, 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Without a traceback: clients that went away are part of the tests."""

    def begin(self, path: str, body: dict[str, Any]) -> str:
        prompt = json.dumps(body.get("prompt") or body.get("messages"))
        with self.lock:
            self.bodies.append(body)
            self.paths.append(path)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            lasting = [fault for key, fault in self.always.items() if key in prompt]
            if lasting:
                return lasting[0]
            return self.faults.pop(0) if self.faults else "ok"

    def end(self) -> None:
        with self.lock:
            self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models" and self.server.lists is None:
            self._send(200, ["m"])
        elif self.path == "/v1/models" and not self.server.lists:
            self._send(500, {"detail": "no models"})
        elif self.path == "/v1/models":
            self._send(200, {"data": [{"id": self.server.model} | self.server.card]})
        elif self.path == "/version" and self.server.card.get("owned_by") == "vllm":
            self._send(200, {"version": "0.1"})
        else:
            self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "laconic" in body:  # the probe for the kind of server
            self._send(422, {"detail": "Unexpected fields in the request: {'laconic'}"})
            return
        self.server.keys.append(self.headers.get("Authorization"))
        fault = self.server.begin(self.path, body)
        try:
            self._misbehave(fault) or self._answer(body, fault)
        finally:
            self.server.end()

    def _misbehave(self, fault: str) -> bool:
        if fault == "drop":
            self.close_connection = True
        elif fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [{"te')
            self.close_connection = True
        elif fault == "hang":
            threading.Event().wait(0.6)
            self.close_connection = True
        elif fault == "429":
            self._send(429, {"error": "slow down"}, {"Retry-After": "0.3"})
        elif fault in ("400", "500"):
            self._send(int(fault), {"error": f"says {fault}"})
        elif fault == "garbage":
            self._send_bytes(200, b'{"choices": [')
        elif fault == "list":
            self._send(200, [1])
        elif fault == "empty":
            self._send(200, {"choices": [], "usage": {}})
        else:
            return False
        return True

    def _answer(self, body: dict[str, Any], fault: str) -> None:
        threading.Event().wait(0.02)  # so that requests meet
        prompt = body.get("prompt")
        if prompt is None:
            prompt = "".join(message["content"] for message in body["messages"])
        text = "".join(map(str, prompt))[::-1]
        limit = len(text) + 1 if self.server.ignore_limit else body["max_tokens"]
        words = [w for w in body.get("stop", ()) if w in text]
        whole = text.partition(words[0])[0] + words[0] if words else text
        made = len(whole) + (not words)  # with an end token, or with the stop string
        cut = made > limit
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if cut else "stop"}
        text = whole.removesuffix(words[0]) if words and self.server.stops == "cut" else whole
        if self.server.card.get("owned_by") == "vllm":
            choice["stop_reason"] = words[0] if words and not cut else None
            choice["token_ids"] = [3 + int(digit) for digit in whole[:limit] if digit.isdigit()]
        if fault == "reason":
            choice["finish_reason"] = "abort"
        answer = text[:limit] if cut else text
        if "messages" in body:
            choice["message"] = {"content": answer, "reasoning_content": "thought"}
        else:
            choice["text"] = answer
        usage = {
            "completion_tokens": "7" if fault == "counts" else min(made, limit),
            "prompt_tokens": len(prompt) + self.server.extra_prompt_tokens,
        }
        self._send(200, {"choices": [choice], "usage": usage})  # one choice, whatever `n` says

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(value).encode(), headers)

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(**options: Any) -> Iterator[FakeServer]:
    server = FakeServer(**options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
