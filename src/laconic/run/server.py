"""The runner over a server that speaks the OpenAI interface: vLLM, SGLang, transformers, ...

With a tokenizer at hand, prompts are rendered here and sent to /v1/completions, so that prompt
ids are known and equal those of the other runners. Without one, messages go to
/v1/chat/completions and the server renders them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.run.completion import Completion, Stop
from laconic.run.crowd import Patience, spread
from laconic.run.dialects import Dialect, Fields, get_dialect
from laconic.run.host import Host
from laconic.run.runner import SHOWN_IDS, Identity, Key, Weights, pending
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.thoughts import opens_thought, thought_tokens
from laconic.run.tokenizer import Prompt, Tokenizer, ends_of, room
from laconic.run.wire import Address, FailedError, RefusedError
from laconic.tags import THINK, THINK_END

CONCURRENCY = 32
TIMEOUT = 3600.0
AUTO = "auto"
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class _Request:
    """One draw of one sample: `prompt` is None when the server renders the chat."""

    sample: Sample
    draw: int
    prompt: Prompt | None
    limit: int
    body: Fields

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if "messages" in self.body else "/v1/completions"


class ServerRunner:
    """A model behind an OpenAI-compatible server.

    model: the name the server knows it by. url: such as http://localhost:8000. tokenizer: folder
    or Hub id of the model's tokenizer; default: `model`, when that is a folder here. weights:
    folder with the weights that are served, to name them in the run file by their digest; same
    default. dialect: `vllm`, `sglang`, `transformers`, `openai` or `auto` (ask the server).
    concurrency: requests at a time. timeout: seconds per response. patience: how failures are
    retried. context_window: in tokens; default: what the server or the model's config says.
    api_key: default: the environment's OPENAI_API_KEY.

    Raises LaconicError for a bad option or a tokenizer that cannot be loaded; nothing is sent
    before `identity` or `generate`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        url: str,
        tokenizer: str | Path | None = None,
        weights: str | Path | None = None,
        dialect: str = AUTO,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        patience: Patience | None = None,
        context_window: int | None = None,
        dtype: str | None = None,
        api_key: str | None = None,
    ) -> None:
        if concurrency < 1:
            raise LaconicError(f"concurrency is {concurrency}; expected 1 or more requests")
        if not timeout > 0:
            raise LaconicError(f"timeout is {timeout}; expected more than 0 seconds")
        self._name = str(model)
        self._host = Host(
            Address.parse(url),
            self._name,
            api_key or os.environ.get(KEY_VARIABLE),
            patience or Patience(),
        )
        self._where = str(self._host.address)
        here = Path(model) if Path(model).is_dir() else None
        self._weights = weights or here
        folder = tokenizer or here
        self._tokenizer = None if folder is None else Tokenizer(folder, self._name)
        self._config = ModelFolder.of(folder)
        self._dialect = None if dialect == AUTO else get_dialect(dialect)
        self._concurrency, self._timeout = concurrency, timeout
        self._asked_window, self._dtype = context_window, dtype

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        """Yield every draw of every sample once, but for those in `done`, as they finish.

        Each draw is a request of its own with a seed of its own. Raises LaconicError naming the
        sample for which the server failed too often; what finished before has been yielded.
        """
        asked = pending(samples, sampling, done)
        dialect = self._get_dialect()
        self._refuse_lost_tags(dialect)
        prompts = self._prompts({sample.id: sample for sample, _ in asked})
        requests = [
            self._request(sample, draw, prompts.get(sample.id), sampling, dialect)
            for sample, draw in asked
        ]
        stop = threading.Event()
        yield from spread(
            lambda request: self._answer(request, stop), requests, self._concurrency, stop
        )

    def load(self, weights: Weights) -> None:
        """A server's weights cannot be replaced from here: raises LaconicError."""
        raise LaconicError(
            f"the weights behind {self._where} cannot be replaced from here; merge to a folder "
            "and start the server on it"
        )

    def identity(self, first: Sample) -> Identity:
        """Describe the model, as far as the server and the tokenizer at hand tell."""
        served = f"served as {self._name}"
        tokenizer = self._tokenizer
        kind, version = self._get_dialect().name, self._host.version()
        return Identity(
            model=self._name,
            weights=served if self._weights is None else digest_of(self._weights),
            tokenizer=f"of the server, {served}" if tokenizer is None else tokenizer.digest,
            dtype=self._dtype or "unknown",
            device=self._where,
            context_window=self._window(),
            first_prompt=() if tokenizer is None else tokenizer.prompt(first).ids[:SHOWN_IDS],
            versions={
                "python": platform.python_version(),
                "server": f"{kind} {version}" if version else kind,
            },
        )

    def _prompts(self, samples: dict[str, Sample]) -> dict[str, Prompt]:
        if self._tokenizer is None:
            return {}
        return {id: self._tokenizer.prompt(sample) for id, sample in samples.items()}

    def _request(
        self, sample: Sample, draw: int, prompt: Prompt | None, sampling: Sampling, dialect: Dialect
    ) -> _Request:
        limit = sampling.max_tokens
        if prompt is not None:
            limit = room(sample.id, prompt, self._window(), self._name, sampling)
        body: Fields = {"model": self._name}
        body |= dialect.parameters(sampling, limit, self._ends())
        if not sampling.greedy:
            body["seed"] = seed_of(sampling.seed, sample.id, draw)
        if prompt is not None:
            body["prompt"] = list(prompt.ids) if dialect.takes_ids else self._text(prompt)
        elif sample.text is not None:
            body["prompt"] = sample.text
        else:
            body["messages"] = [
                {"role": turn.role, "content": turn.content} for turn in sample.messages
            ]
        return _Request(sample, draw, prompt, limit, body)

    def _text(self, prompt: Prompt) -> str:
        """The text that a server turns into the prompt's ids when it adds special tokens."""
        tokenizer = self._tokenizer
        if tokenizer is None or tokenizer.ids(prompt.text) == prompt.ids:
            return prompt.text
        for word in sorted(tokenizer.special, key=len, reverse=True):
            rest = prompt.text.removeprefix(word)
            if rest != prompt.text and tokenizer.ids(rest) == prompt.ids:
                return rest
        return prompt.text  # the count of prompt tokens in the reply will not agree, and say so

    def _answer(self, request: _Request, stop: threading.Event) -> Completion:
        sample, patience = request.sample, self._host.patience
        try:
            return patience.persist(lambda: self._complete(request), stop)
        except FailedError as error:
            raise LaconicError(
                f"sample '{sample.id}', draw {request.draw}: no usable reply from {self._where} "
                f"in {patience.retries + 1} tries; the last: {error}. Finished responses are kept: "
                "see to the server and give the same command again"
            ) from error
        except RefusedError as error:
            raise LaconicError(
                f"sample '{sample.id}', draw {request.draw}: {self._where} refused the request: "
                f"{error}"
            ) from error

    def _complete(self, request: _Request) -> Completion:
        reply = self._host.ask(request.path, request.body, self._timeout)
        try:
            choice, usage = reply["choices"][0], reply["usage"]
            text = _text_of(choice)
            tokens, prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
            stop = _stop_of(choice)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise FailedError(
                f"its reply lacks a part or has it in another form ({type(error).__name__}: "
                f"{error}): {json.dumps(reply)[:200]}"
            ) from None
        self._check(request, tokens, prompt_tokens)
        found = Completion(
            id=request.sample.id,
            draw=request.draw,
            text=self._without_end(text, stop),
            tokens=tokens,
            stop=stop,
            prompt_tokens=prompt_tokens,
            prompt_sha256=_prompt_digest(request),
            stop_string=_stop_string(choice, text, request.body.get("stop", ())),
            opened=request.prompt is not None and opens_thought(request.prompt),
        )
        return self._with_ids(_without_word(found), choice.get("token_ids"))

    def _with_ids(self, found: Completion, ids: list[int] | None) -> Completion:
        """The completion with its tokens, when the server sent them and they can be read here."""
        if not ids:
            return found
        if self._tokenizer is None:
            return replace(found, token_ids=tuple(ids))
        if found.stop_string is not None:
            ids = ids[: self._tokenizer.count(ids, found.text)]
        thought = thought_tokens(self._tokenizer, ids, found.text, found.opened)
        return replace(found, tokens=len(ids), token_ids=tuple(ids), think_tokens=thought)

    def _check(self, request: _Request, tokens: object, prompt_tokens: object) -> None:
        """Refuse a reply that shows another reading of the request than the one meant."""
        sample = request.sample
        if not isinstance(tokens, int) or not isinstance(prompt_tokens, int):
            raise FailedError(f"its token counts are {tokens!r} and {prompt_tokens!r}")
        if tokens > request.limit:
            raise LaconicError(
                f"sample '{sample.id}': {self._where} made {tokens} tokens, but at most "
                f"{request.limit} were asked for: it ignores max_tokens"
            )
        prompt = request.prompt
        if prompt is not None and prompt_tokens != len(prompt.ids):
            raise LaconicError(
                f"sample '{sample.id}': {self._where} read the prompt as {prompt_tokens} "
                f"tokens, the tokenizer at hand as {len(prompt.ids)}; give the tokenizer of the "
                "model that is served"
            )

    def _without_end(self, text: str, stop: Stop) -> str:
        """The text without the end token, which some servers leave on it."""
        if self._tokenizer is None or stop != "stop":
            return text
        for word in (self._tokenizer.text([id]) for id in self._ends()):
            text = text.removesuffix(word)
        return text

    def _ends(self) -> frozenset[int]:
        if self._tokenizer is None:
            return frozenset()
        return ends_of(self._tokenizer.end, *self._config.ends)

    def _refuse_lost_tags(self, dialect: Dialect) -> None:
        special = frozenset() if self._tokenizer is None else self._tokenizer.special
        if THINK_END in special and not dialect.keeps_special:
            raise LaconicError(
                f"{self._where} leaves special tokens out of its text, and </think> is one in "
                f"model '{self._name}'; use vLLM, SGLang, or --engine transformers"
            )

    def _window(self) -> int | None:
        if self._asked_window is not None:
            return self._asked_window
        return self._host.window() or self._config.window

    def _get_dialect(self) -> Dialect:
        if self._dialect is None:
            self._dialect = get_dialect(self._host.dialect())
        return self._dialect


@dataclass(frozen=True)
class ModelFolder:
    """What a model's folder (or Hub id) says beside its tokenizer.

    window: the context window in tokens. ends: values of eos_token_id.
    """

    window: int | None = None
    ends: tuple[Any, ...] = ()

    @classmethod
    def of(cls, folder: str | Path | None) -> ModelFolder:
        """Read config.json and generation_config.json; what is missing is left out."""
        import transformers

        if folder is None:
            return cls()
        found = []
        for kind in (transformers.AutoConfig, transformers.GenerationConfig):
            try:
                found.append(kind.from_pretrained(folder))
            except (OSError, ValueError):  # a folder with a tokenizer only
                continue
        texts = [c.get_text_config() for c in found if hasattr(c, "get_text_config")]
        windows = [getattr(config, "max_position_embeddings", None) for config in texts]
        ends = tuple(getattr(config, "eos_token_id", None) for config in found)
        return cls(next(iter(windows), None), ends)


def seed_of(seed: int, sample_id: str, draw: int) -> int:
    """The seed of one draw, in [0, 2^31): no two draws share one but by chance."""
    key = hashlib.sha256(f"{seed}\0{sample_id}\0{draw}".encode()).digest()
    return int.from_bytes(key[:4], "big") >> 1


def digest_of(folder: str | Path) -> str:
    """The digest of a model's weight files, from its folder or Hub id."""
    from laconic.run.weights import digest_files
    from laconic.tensors.source import open_source

    return digest_files(open_source(folder).files)


def _prompt_digest(request: _Request) -> str:
    if request.prompt is not None:
        return request.prompt.sha256
    sent = request.body.get("prompt") or json.dumps(request.body["messages"], sort_keys=True)
    return hashlib.sha256(sent.encode()).hexdigest()


def _text_of(choice: dict[str, Any]) -> str:
    """The text of a choice, with the thought that some chat servers put beside it."""
    if "message" not in choice:
        return _string(choice["text"])
    message = choice["message"]
    text = _string(message["content"] or "")
    thought = message.get("reasoning_content") or message.get("reasoning")
    return f"{THINK}{_string(thought)}{THINK_END}{text}" if thought else text


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _stop_string(choice: dict[str, Any], text: str, stops: Sequence[str]) -> str | None:
    """The stop string that ended a response: said by the server, or left on the text."""
    said = choice.get("stop_reason")
    left = next((word for word in stops if text.endswith(word)), None)
    return said if isinstance(said, str) else left


def _without_word(found: Completion) -> Completion:
    """Without the stop string, which some servers leave on the text."""
    word = found.stop_string
    return found if word is None else replace(found, text=found.text.removesuffix(word))


def _stop_of(choice: dict[str, Any]) -> Stop:
    reason = choice["finish_reason"]
    if reason == "stop":
        return "stop"
    if reason == "length":
        return "length"
    raise ValueError(f"finish_reason is {reason!r}; expected 'stop' or 'length'")
