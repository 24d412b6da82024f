"""What a model answered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from laconic.errors import LaconicError
from laconic.records import Record

Stop = Literal["stop", "length"]


@dataclass(frozen=True)
class Completion:
    """One response.

    tokens: completion tokens, with the end-of-sequence token that stopped it, if one did.
    stop: `stop` when the model or a stop string ended it, `length` when the token limit or the
    context window did. stop_string: the one that ended it, if the runner knows it.
    text: the response without its end token; special tokens such as </think> are kept.
    prompt_sha256: digest of the prompt as rendered for this model. draw: 0 to n - 1.
    token_ids: the completion's tokens, when the runner knows them. opened: whether the prompt
    ended inside a thought. think_tokens: tokens of the thought, split by their ids; None when the
    runner kept none.
    """

    id: str
    draw: int
    text: str
    tokens: int
    stop: Stop
    prompt_tokens: int
    prompt_sha256: str
    token_ids: tuple[int, ...] | None = None
    stop_string: str | None = None
    opened: bool = False
    think_tokens: int | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What names a completion within a run: its sample and its draw."""
        return self.id, self.draw

    def to_record(self) -> Record:
        """This completion as a JSON object."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Record) -> Completion:
        """Read a completion back. Raises LaconicError naming a field that is missing or wrong."""
        ids = record.get("token_ids")
        return cls(
            id=_field(record, "id", str),
            draw=_field(record, "draw", int),
            text=_field(record, "text", str),
            tokens=_field(record, "tokens", int),
            stop=_stop(record),
            prompt_tokens=_field(record, "prompt_tokens", int),
            prompt_sha256=_field(record, "prompt_sha256", str),
            token_ids=None if ids is None else tuple(ids),
            stop_string=record.get("stop_string"),
            opened=bool(record.get("opened")),
            think_tokens=record.get("think_tokens"),
        )


def _stop(record: Record) -> Stop:
    stop = _field(record, "stop", str)
    if stop not in ("stop", "length"):
        raise LaconicError(f"completion: stop is '{stop}'; expected 'stop' or 'length'")
    return cast(Stop, stop)


def _field(record: Record, name: str, kind: type) -> Any:
    if not isinstance(value := record.get(name), kind):
        raise LaconicError(
            f"completion {record.get('id')!r}: expected field '{name}' ({kind.__name__}), "
            f"got {value!r}"
        )
    return value
