"""What a model is asked."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.errors import LaconicError


@dataclass(frozen=True)
class Message:
    """One turn of a chat: role `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True)
class Sample:
    """One prompt: chat `messages`, rendered by the model's chat template, or raw `text`.

    The right answer is not here: a runner cannot leak what it never sees.
    """

    id: str
    messages: tuple[Message, ...] = ()
    text: str | None = None
    level: str | None = None

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.text is not None):
            raise LaconicError(f"sample '{self.id}': expected either messages or text")
