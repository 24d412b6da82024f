"""One HTTP request: JSON out, JSON in.

With the standard library alone: a client library would bring its own retries, which would have to
be turned off, since here a retry is counted, and its failure names the sample.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from laconic.errors import LaconicError

RETRIED = (408, 409, 425, 429)
"""Statuses below 500 that may pass when asked again."""
READ_BYTES = 1 << 16
SHOWN = 300
"""Characters of a reply in a message."""


class RefusedError(Exception):
    """The server understood and refused: asking again would not help."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {_shown(text)}")
        self.status, self.text = status, text


class FailedError(Exception):
    """The request may succeed when repeated, after `wait` seconds if the server said so.

    status: of the reply, None when none came.
    """

    def __init__(self, message: str, wait: float | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.wait, self.status = wait, status


@dataclass(frozen=True)
class Address:
    """Where a server is: `path` is what its own paths are appended to."""

    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL such as http://localhost:8000; a /v1 at its end is left out."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise LaconicError(f"--url {url}: expected a URL such as http://localhost:8000")
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/").removesuffix("/v1"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """A connection, not yet opened."""
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=timeout, context=ssl.create_default_context()
        )


def ask(
    address: Address,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout: float,
    key: str | None = None,
) -> dict[str, Any]:
    """GET a path, or POST a body to it; return the JSON object of the reply.

    timeout: seconds for the whole exchange. key: sent as a bearer token. Raises RefusedError or
    FailedError.
    """
    connection = address.connect(timeout)
    headers = {"Accept": "application/json", "Connection": "close"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        deadline = time.monotonic() + timeout
        connection.request("GET" if body is None else "POST", address.path + path, data, headers)
        reply = connection.getresponse()
        return _read(reply, _body(reply, deadline))
    except TimeoutError:
        raise FailedError(f"no whole reply within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise FailedError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
    finally:
        connection.close()


def _body(reply: http.client.HTTPResponse, deadline: float) -> bytes:
    """All bytes of a reply; a socket's own timeout begins anew with every byte."""
    chunks = []
    while chunk := reply.read1(READ_BYTES):
        chunks.append(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks)


def _read(reply: http.client.HTTPResponse, data: bytes) -> dict[str, Any]:
    text = data.decode(errors="replace")
    if reply.status in RETRIED or reply.status >= 500:
        wait = _seconds(reply.getheader("Retry-After"))
        raise FailedError(f"HTTP {reply.status}: {_shown(text)}", wait, reply.status)
    if reply.status != 200:
        raise RefusedError(reply.status, text)
    try:
        value = json.loads(text)
    except ValueError:
        raise FailedError(f"its reply is not JSON: {_shown(text)}") from None
    if not isinstance(value, dict):
        raise FailedError(f"its reply is not a JSON object: {_shown(text)}")
    return value


def _seconds(header: str | None) -> float | None:
    """The value of Retry-After: a number of seconds, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _shown(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= SHOWN else short[:SHOWN] + "..."
