"""A server as it presents itself: what kind it is, and what it says of a model."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from laconic.errors import LaconicError
from laconic.run.crowd import Patience
from laconic.run.dialects import DIALECTS, Fields
from laconic.run.wire import Address, FailedError, RefusedError, ask

GREETING_TIMEOUT = 60.0
"""Seconds for a question that needs no generation, or one token."""


@dataclass
class Host:
    """The server at an address; `model` is the name it knows a model by."""

    address: Address
    model: str
    key: str | None
    patience: Patience
    _card: dict[str, Any] | None = field(default=None, init=False)

    def ask(self, path: str, body: Fields | None, timeout: float) -> dict[str, Any]:
        """One request, not repeated. Raises RefusedError or FailedError."""
        return ask(self.address, path, body, timeout=timeout, key=self.key)

    def window(self) -> int | None:
        """The context window in tokens, if the server tells."""
        window = self._model_card().get("max_model_len")
        return window if isinstance(window, int) else None

    def dialect(self) -> str:
        """The kind of server, as far as it can be told; `openai` otherwise."""
        owner = str(self._model_card().get("owned_by", ""))
        return owner if owner in DIALECTS else self._probe()

    def version(self) -> str | None:
        """The version, if the server tells."""
        try:
            version = self.ask("/version", None, GREETING_TIMEOUT).get("version")
        except (RefusedError, FailedError):
            return None
        return None if version is None else str(version)

    def _model_card(self) -> dict[str, Any]:
        """What the server's list of models says of this one; empty when it is not on the list."""
        if self._card is None:
            try:
                listed = self._greet("/v1/models").get("data")
            except RefusedError:
                listed = None
            cards = listed if isinstance(listed, list) else []
            named = [c for c in cards if isinstance(c, dict) and c.get("id") == self.model]
            self._card = named[0] if named else {}
        return self._card

    def _probe(self) -> str:
        """Tell `transformers serve` by its refusal of a field it does not know; one token."""
        body = {"model": self.model, "prompt": "1", "max_tokens": 1, "laconic": True}
        try:
            self._greet("/v1/completions", body)
        except RefusedError as error:
            if error.status == 422 and "Unexpected fields" in error.text:
                return "transformers"
        return "openai"

    def _greet(self, path: str, body: Fields | None = None) -> dict[str, Any]:
        """Ask for something small. Raises LaconicError when no server answers, or RefusedError."""

        def once() -> dict[str, Any]:
            try:
                return self.ask(path, body, GREETING_TIMEOUT)
            except FailedError as error:
                # `transformers serve` fails to list models when no model was ever downloaded.
                if error.status == 500:
                    raise RefusedError(500, str(error)) from None
                raise

        try:
            return self.patience.persist(once, threading.Event())
        except FailedError as error:
            raise LaconicError(
                f"no server answers at {self.address}: {error}; start one, or check --url"
            ) from error
