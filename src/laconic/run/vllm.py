"""The runner over vLLM: in this process when it can be imported, else a server started here.

vLLM pins other releases of torch and transformers than this package allows, so as a rule it lives
in an environment of its own and only its `vllm` command is found. Written from vLLM's
documentation; the tests use stand-ins for it (docs/engines.md says what was run).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.run.completion import Completion
from laconic.run.runner import SHOWN_IDS, Identity, Key, Runner, Weights, pending
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.server import ModelFolder, ServerRunner, digest_of, seed_of
from laconic.run.serving import Serving, find_command, free_port
from laconic.run.stops import Stops
from laconic.run.tokenizer import Tokenizer, room

CONCURRENCY = 256
START_TIMEOUT = 1800.0


def open_vllm(
    model: str | Path,
    *,
    command: str | None = None,
    tensor_parallel: int = 1,
    max_model_len: int | None = None,
    dtype: str | None = None,
    arguments: Sequence[str] = (),
    tokenizer: str | Path | None = None,
    concurrency: int = CONCURRENCY,
    start_timeout: float = START_TIMEOUT,
) -> Runner:
    """Open a model with vLLM.

    command: the `vllm` program, given when it is not on PATH; giving it means a server even where
    vLLM can be imported. tensor_parallel: GPUs that share each layer. max_model_len: the context
    window; default: the model's own. arguments: passed to `vllm serve` as they are, such as
    --pipeline-parallel-size 2. tokenizer: default: the model's. Raises LaconicError when there is
    no vLLM, or it does not start.
    """
    if tensor_parallel < 1:
        raise LaconicError(f"tensor parallel is {tensor_parallel}; expected 1 or more GPUs")
    window = max_model_len or ModelFolder.of(model).window
    if command is None and importlib.util.find_spec("vllm") is not None and not arguments:
        return VllmRunner(model, tensor_parallel, window, dtype, tokenizer)
    words = find_command(command, "vllm")
    if words is None:
        raise LaconicError(
            "vLLM cannot be imported, and there is no program `vllm` on PATH; install it in an "
            "environment of its own and give its path with --vllm-command, or start a server and "
            "use --engine server"
        )
    settings = {"--max-model-len": window, "--dtype": dtype}
    words += ["serve", "{model}", "--host", "127.0.0.1", "--port", "{port}"]
    words += ["--tensor-parallel-size", str(tensor_parallel), "--generation-config", "vllm"]
    for name, value in settings.items():
        words += [] if value is None else [name, str(value)]
    options = {"tokenizer": tokenizer or model, "concurrency": concurrency, "dtype": dtype}
    return VllmServerRunner(model, [*words, *arguments], start_timeout, options)


class VllmServerRunner:
    """A model behind a `vllm serve` that this object starts; `close` ends it.

    command: its words, with {model} and {port} to be filled in. options: of ServerRunner.
    """

    def __init__(
        self,
        model: str | Path,
        command: Sequence[str],
        start_timeout: float,
        options: dict[str, Any],
    ) -> None:
        self._command, self._timeout, self._options = command, start_timeout, options
        self._serving: Serving | None = None
        self._start(model)

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        """Yield every draw of every sample once, but for those in `done`, as they finish."""
        yield from self._runner.generate(samples, sampling, done)

    def load(self, weights: Weights) -> None:
        """Start the server again on another folder (or Hub id); pairs raise LaconicError."""
        if not isinstance(weights, str | Path):
            raise LaconicError(
                "a vLLM server takes weights from a folder only; merge to a folder, or use "
                "--engine transformers"
            )
        self._start(weights)

    def identity(self, first: Sample) -> Identity:
        """Describe the model."""
        return self._runner.identity(first)

    def close(self) -> None:
        """End the server and all its processes."""
        if self._serving is not None:
            self._serving.close()
            self._serving = None

    def _start(self, model: str | Path) -> None:
        self.close()
        port = free_port()
        filled = {"{model}": str(model), "{port}": str(port)}
        words = [filled.get(word, word) for word in self._command]
        url = f"http://127.0.0.1:{port}"
        self._runner = ServerRunner(model, url=url, dialect="vllm", **self._options)
        self._serving = Serving(words, url, self._timeout)


class VllmRunner:
    """A live vLLM engine in this process. Arguments as for `open_vllm`."""

    def __init__(
        self,
        model: str | Path,
        tensor_parallel: int = 1,
        window: int | None = None,
        dtype: str | None = None,
        tokenizer: str | Path | None = None,
    ) -> None:
        self._name, self._gpus = str(model), tensor_parallel
        self._tokenizer = Tokenizer(tokenizer or model, self._name)
        self._folder: str | Path | None = model
        self._digest: str | None = None
        self._whole = True
        self._dtype = dtype or "auto"
        if tensor_parallel == 1:
            # The model then lives in this very process, where `load` can reach it.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        self._llm = _engine(
            model=self._name,
            tokenizer=str(tokenizer or model),
            tensor_parallel_size=tensor_parallel,
            max_model_len=window,
            dtype=self._dtype,
            generation_config="vllm",
            enable_prefix_caching=False,  # `load` would leave other weights' keys behind
        )
        self._window = int(self._llm.llm_engine.model_config.max_model_len)

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        """Yield every draw of every sample once, but for those in `done`, as they finish."""
        if not self._whole:
            raise LaconicError("the last weights were loaded in part only; load a checkpoint again")
        engine, asked = self._llm.llm_engine, {}
        stops = Stops(sampling.stop, self._tokenizer)
        for number, (sample, draw) in enumerate(pending(samples, sampling, done)):
            prompt = self._tokenizer.prompt(sample)
            limit = room(sample.id, prompt, self._window, self._name, sampling)
            parameters = _parameters(sampling, limit, seed_of(sampling.seed, sample.id, draw))
            asked[str(number)] = ((sample.id, draw), prompt)
            engine.add_request(str(number), {"prompt_token_ids": list(prompt.ids)}, parameters)
        try:
            while asked and engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        key, prompt = asked.pop(output.request_id)
                        out = output.outputs[0]
                        yield stops.completion(key, prompt, out.token_ids, ended=_has_end(out))
        finally:
            if asked:  # the caller stopped early
                engine.abort_request(list(asked))

    def load(self, weights: Weights) -> None:
        """Replace the weights in place: by a folder's (or Hub id's), or by pairs.

        Each of the engine's workers reads a folder by itself. Pairs need the model in this process:
        raises LaconicError when several GPUs share it, and when vLLM cannot take the weights. Then
        nothing is generated until others are loaded.
        """
        folder = weights if isinstance(weights, str | Path) else None
        if folder is None and self._gpus > 1:
            raise LaconicError(
                f"{self._gpus} GPUs share the model, each in a process of its own, which a stream "
                "of tensors cannot reach; merge to a folder and load that"
            )
        self._whole = False  # until the last tensor has come
        try:
            self._reload(weights) if folder is None else self._reload_folder(folder)
        except LaconicError:
            raise
        except Exception as error:  # whatever a release of vLLM raises in its workers
            raise LaconicError(f"vLLM {_version()} cannot take these weights: {error}") from error
        self._whole, self._folder, self._digest = True, folder, None
        self._name = self._name if folder is None else str(folder)

    def _reload_folder(self, folder: str | Path) -> None:
        from laconic.tensors.source import open_source

        path = str(open_source(folder).folder)  # a Hub id is fetched once, not by every worker
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": path})

    def _reload(self, pairs: Any) -> None:
        (missing,) = self._llm.apply_model(partial(_load_into, pairs=pairs))
        if missing:
            raise LaconicError(
                f"weights to load lack {len(missing)} of the live model's parameters, first "
                f"'{missing[0]}'; load a whole checkpoint of this architecture"
            )

    def identity(self, first: Sample) -> Identity:
        """Describe the model; reads the weights' bytes once to name them."""
        if self._digest is None:
            self._digest = self._new_digest()
        return Identity(
            model=self._name,
            weights=self._digest,
            tokenizer=self._tokenizer.digest,
            dtype=self._dtype,
            device=f"vllm, {self._gpus} GPU",
            context_window=self._window,
            first_prompt=self._tokenizer.prompt(first).ids[:SHOWN_IDS],
            versions={"python": platform.python_version(), "vllm": _version()},
        )

    def _new_digest(self) -> str:
        if self._folder is not None:
            return digest_of(self._folder)
        from laconic.run.weights import digest_live

        (digest,) = self._llm.apply_model(digest_live)
        return str(digest)


def _has_end(out: Any) -> bool:
    """Whether an end token ended a response: `stop_reason` is the stop string where one did."""
    return out.finish_reason == "stop" and not isinstance(out.stop_reason, str)


def _engine(**arguments: Any) -> Any:
    try:
        return _vllm().LLM(**{key: value for key, value in arguments.items() if value is not None})
    except Exception as error:  # whatever a model, a driver or too little memory makes it raise
        raise LaconicError(f"vLLM cannot open '{arguments['model']}': {error}") from error


def _parameters(sampling: Sampling, limit: int, seed: int) -> Any:
    return _vllm().SamplingParams(
        max_tokens=limit,
        temperature=sampling.temperature,
        top_p=1.0 if sampling.greedy else sampling.top_p,
        top_k=sampling.top_k if sampling.top_k and not sampling.greedy else -1,
        seed=None if sampling.greedy else seed,
        stop=list(sampling.stop),
        detokenize=bool(sampling.stop),  # vLLM looks for stop strings in its own text
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
    )


def _version() -> str:
    return str(_vllm().__version__)


def _vllm() -> Any:
    """The optional package, which no other file imports."""
    return importlib.import_module("vllm")


def _load_into(model: Any, pairs: Any) -> list[str]:
    """Load pairs into a vLLM model; return its parameters that none of them filled."""
    loaded = model.load_weights(pairs)
    if loaded is None:  # models that do not say
        return []
    return sorted({name for name, _ in model.named_parameters()} - loaded)
