from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from laconic.run.runner import Key
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner
from laconic.run.stops import Stops
from laconic.run.thoughts import opens_thought, thought_tokens
from laconic.run.tokenizer import Prompt, Tokenizer
from laconic.run.transformers import TransformersRunner
from run.tiny import samples

# Words in the alphabet that byte-level tokenizers write bytes in: Ġ a space, Ċ a line's end.
WORDS = (
    *("<end>", "It", "Ġis", "Ġ4", ".ĊĊ", "Question", ":", "Ã", "©"),
    *("<think>", "so", "</th", "ink>", "ink>4", "no.ĊĊQuestion:Ġyes</s>"),
)
IDS = {word: id for id, word in enumerate(WORDS)}
STOP = "\n\nQuestion:"
KEY: Key = ("q", 0)
PROMPT = Prompt("Answer:", (1, 2))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    core = Core(models.WordLevel(IDS, unk_token="<end>"))
    core.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("words")
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>").save_pretrained(folder)
    return Tokenizer(folder, "m")


def ids(*found: str) -> list[int]:
    return [IDS[word] for word in found]


def test_a_stop_string_is_reached_with_the_token_that_completes_it(words: Tokenizer) -> None:
    said = ids("It", "Ġis", "Ġ4", ".ĊĊ", "Question", ":", "Ġis")
    stops = Stops((STOP,), words)
    assert [stops.reached(said[:n]) for n in range(1, 7)] == [False] * 5 + [True]
    assert not Stops((), words).reached(said)


def test_what_stands_before_the_string_is_kept_with_its_tokens(words: Tokenizer) -> None:
    cut = Stops((STOP, "</s>"), words).cut(ids("It", "Ġis", "Ġ4", ".ĊĊ", "Question", ":"))
    assert (cut.text, cut.word) == ("It is 4.", STOP)
    assert cut.ids == tuple(ids("It", "Ġis", "Ġ4", ".ĊĊ"))  # the last one holds the full stop
    nothing = Stops((STOP,), words).cut(ids(".ĊĊ", "Question"))
    assert (nothing.text, nothing.word, len(nothing.ids)) == (".\n\nQuestion", None, 2)
    at_once = Stops(("It",), words).cut(ids("It"))
    assert (at_once.text, at_once.ids) == ("", ())


def test_the_first_of_several_strings_in_one_token_ends_it(words: Tokenizer) -> None:
    cut = Stops(("</s>", STOP), words).cut(ids("so", "no.ĊĊQuestion:Ġyes</s>"))
    assert (cut.text, cut.word, len(cut.ids)) == ("sono.", STOP, 2)


def test_a_character_of_several_tokens_is_read_whole(words: Tokenizer) -> None:
    said = ids(*["Ã", "©"] * 6)
    stops = Stops(("éé",), words)
    assert [stops.reached(said[:n]) for n in range(1, 5)] == [False, False, False, True]
    assert stops.reached(said)  # the tokens looked at begin in the middle of a character
    assert Stops(("é4",), words).cut([*said[:2], *ids("Ġ4")]).word is None


def test_completions_say_what_ended_them(words: Tokenizer) -> None:
    def made(said: list[int], ended: bool) -> tuple[str, int, str, str | None]:
        one = Stops((STOP,), words).completion(KEY, PROMPT, said, ended=ended)
        assert one.token_ids is not None
        assert one.tokens == len(one.token_ids)
        return one.text, one.tokens, one.stop, one.stop_string

    said = ids("It", "Ġis", "Ġ4")
    assert made([*said, 0], True) == ("It is 4", 4, "stop", None)
    assert made(said, False) == ("It is 4", 3, "length", None)
    assert made([*said, *ids(".ĊĊ", "Question", ":")], False) == ("It is 4.", 4, "stop", STOP)


@pytest.mark.parametrize(
    ("said", "opened", "thought"),
    [
        (("<think>", "so", "</th", "ink>", "Ġ4"), False, 4),
        (("<think>", "so", "</th", "ink>4", "Ġis"), False, 4),  # holds the end of the tag
        (("so", "</th", "ink>", "so", "</th", "ink>", "Ġ4"), True, 6),  # the last tag
        (("<think>", "so"), False, 2),
        (("so", "so"), True, 2),  # cut inside the thought that the prompt opened
        (("so", "so"), False, 0),
    ],
)
def test_thoughts_are_counted_in_their_own_tokens(
    words: Tokenizer, said: tuple[str, ...], opened: bool, thought: int
) -> None:
    found = ids(*said)
    assert thought_tokens(words, found, words.text(found), opened) == thought


def test_prompts_that_open_a_thought() -> None:
    assert opens_thought(Prompt("<|Assistant|><think>\n", (1,)))
    assert not opens_thought(Prompt("<think>\n\n</think>\n\n", (1,)))


def test_runner_stops_generating_and_cuts(runner: TransformersRunner) -> None:
    asked, limit = samples(12), 40
    whole = {one.key: one for one in runner.generate(asked, Sampling(limit))}
    steps: list[int] = []
    runner._model.register_forward_hook(lambda *_: steps.append(1))
    stops = ("65", "cc", "b")
    found = {one.key: one for one in runner.generate(asked, Sampling(limit, stop=stops))}
    for key, one in found.items():
        full = whole[key]
        ends = [place for stop in stops if (place := full.text.find(stop)) >= 0]
        if not ends:
            assert one == full
            continue
        assert one.text == full.text[: min(ends)]
        assert full.text[min(ends) :].startswith(str(one.stop_string))
        assert one.stop == "stop"
        assert full.token_ids is not None
        assert one.token_ids == full.token_ids[: one.tokens]
        assert runner._tokenizer.text(one.token_ids) == one.text  # one token per word here
    assert len({one.stop_string for one in found.values()}) == 4  # each of them, and none
    steps.clear()
    list(runner.generate(asked, Sampling(limit, stop=tuple("0123456789abcdefghij=+- <"))))
    assert len(steps) < 12  # six rows at a time, none longer than a token or two


def test_stopped_completions_do_not_depend_on_the_batch(
    runner: TransformersRunner, checkpoint: Path
) -> None:
    sampling = Sampling(30, 1.0, n=2, stop=("6", "ab"))
    alone = TransformersRunner(checkpoint, device="cpu", batch_size=1)
    together = {one.key: one for one in runner.generate(samples(9), sampling)}
    assert {one.key: one for one in alone.generate(samples(9), sampling)} == together
    assert any(one.stop_string == "6" for one in together.values())


def test_a_string_completed_by_the_last_token_allowed_ends_it(runner: TransformersRunner) -> None:
    (full,) = runner.generate(samples(3)[2:], Sampling(5))
    last = full.text[-2:]
    assert (full.stop, full.text.find(last)) == ("length", len(full.text) - 2)
    (one,) = runner.generate(samples(3)[2:], Sampling(5, stop=(last,)))
    assert (one.stop, one.stop_string, one.text) == ("stop", last, full.text[:-2])


def test_scripts_are_cut_too() -> None:
    runner = ScriptedRunner(lambda sample, draw: "1 2 3\n\nQuestion: 4")
    (one,) = runner.generate([Sample("a", text="?")], Sampling(stop=("</s>", STOP)))
    assert (one.text, one.tokens, one.stop, one.stop_string) == ("1 2 3", 3, "stop", STOP)
    (cut,) = runner.generate([Sample("a", text="?")], Sampling(2, stop=(STOP,)))
    assert (cut.text, cut.tokens, cut.stop, cut.stop_string) == ("1 2", 2, "length", None)
