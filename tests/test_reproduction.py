"""A published recipe done again, its figures beside the published ones."""

from __future__ import annotations

import json

import pytest
import yaml

from laconic.cli import main
from laconic.demo import QUICK
from laconic.errors import LaconicError
from laconic.grade import protocols
from laconic.grade.protocols import Protocol
from laconic.published import recipes
from laconic.recipe import load_recipe, parse_recipe
from laconic.reproduction import NAMES, reproduce
from laconic.run.sampling import Sampling

PAIR = QUICK.parent
RAW = {
    "quick": str(PAIR / "quick"),
    "slow": str(PAIR / "slow"),
    "merge": [{"task_arithmetic": {"alpha": 0.4}}],
}
PUBLISHED = {"arithmetic": [98.8, 38], "average": 98.8, "length_change": -64.7, "IFEval": 80}


@pytest.fixture(autouse=True)
def _plain_protocol(monkeypatch):
    plain = Protocol("plain", "these tests", Sampling(max_tokens=256), instruction="")
    monkeypatch.setitem(protocols.PROTOCOLS, "plain", plain)


def published(**about):
    return parse_recipe({**RAW, "about": {"source": "somewhere", **about}})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:
        plain = Protocol("plain", "these tests", Sampling(max_tokens=256), instruction="")
        patch.setitem(protocols.PROTOCOLS, "plain", plain)
        recipe = published(published=PUBLISHED, protocol="plain")
        found = reproduce(recipe, out, tasks=["arithmetic"], limit=20, progress=False)
    return found, out


def test_the_published_figures_stand_beside_the_measured_ones(done):
    found, _ = done
    (row,) = found.rows
    assert (row.task, row.questions) == ("arithmetic", 20)
    assert (row.published_accuracy, row.published_tokens) == (0.988, 38)
    assert row.accuracy_interval[0] <= row.accuracy <= row.accuracy_interval[1]
    assert 20 < row.tokens < 60  # the demo's merge: 38 on 500 questions
    assert row.agrees is (row.accuracy_interval[0] <= 0.988 <= row.accuracy_interval[1])
    assert (found.published_average, found.published_length_change) == (0.988, -0.647)
    assert found.length_change == row.tokens_change < -0.5
    assert found.average == row.accuracy


def test_what_was_not_measured_is_said(done):
    found, _ = done
    assert found.notes == ("measured on 20 questions per task at most, not on the whole sets",)


def test_the_table_and_the_file_hold_the_same(done):
    found, out = done
    lines = list(found.lines())
    assert "98.8%" in lines[2]
    assert lines[2].split()[-1] == "38"
    assert lines[4].split()[-1] == "-64.7%"
    stored = json.loads((out / "reproduction.json").read_text())
    assert stored["rows"][0]["tokens"] == found.rows[0].tokens
    assert (out / "merged" / "laconic.json").is_file()


def test_done_again_it_generates_nothing(done):
    found, out = done

    def refuse(model):
        class Closed:
            def generate(self, *_):
                raise AssertionError("generated again")

            def identity(self, first):
                return opened.identity(first)

        from laconic.run.transformers import TransformersRunner

        opened = TransformersRunner(model)
        return Closed()

    recipe = published(published=PUBLISHED, protocol="plain")
    options = {"tasks": ["arithmetic"], "limit": 20, "progress": False}
    again = reproduce(recipe, out, runner=refuse, **options)
    assert again == found


def test_a_published_accuracy_outside_the_interval_is_marked(done):
    found, _ = done
    row = found.rows[0]
    low = type(row)(**{**row.__dict__, "published_accuracy": 0.1, "agrees": False})
    marked = type(found)(**{**found.__dict__, "rows": (low,)})
    assert "10.0% *" in list(marked.lines())[2]
    assert " *" not in list(found.lines())[2] or found.rows[0].agrees is False


@pytest.mark.parametrize(
    ("about", "options", "message"),
    [
        ({"published": {"average": 50}}, {}, "no published result of a benchmark"),
        ({"published": {"GSM8K": 90}}, {}, "names no protocol"),
        ({"published": {"GSM8K": 90}, "protocol": "plan"}, {}, "plan"),
        (
            {"published": {"GSM8K": 90}, "protocol": "plain"},
            {"tasks": ["math500"]},
            "no published figure for it",
        ),
        ({"published": {"IFEval": 90}, "protocol": "plain"}, {}, "none of the published"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_before_anything_is_made(
    about, options, message, tmp_path
):
    with pytest.raises(LaconicError, match=message):
        reproduce(published(**about), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_every_published_protocol_and_benchmark_name_exists():
    named = [(name, about) for name, _, about in recipes() if about.protocol]
    assert len(named) > 25
    for name, about in named:
        assert about.protocol in protocols.PROTOCOLS, name
    from laconic.grade.benchmarks import BENCHMARKS

    assert set(NAMES.values()) <= set(BENCHMARKS)


def test_the_command_prints_json(tmp_path, capsys):
    file = tmp_path / "recipe.yml"
    about = {"source": "somewhere", "protocol": "plain", "published": PUBLISHED}
    file.write_text(yaml.safe_dump({**RAW, "about": about}))
    assert load_recipe(file).about.protocol == "plain"
    options = ["--tasks", "arithmetic", "--limit", "5", "--json"]
    with pytest.raises(SystemExit, match="0"):
        main(["reproduce", str(file), "--out", str(tmp_path / "out"), *options])
    assert json.loads(capsys.readouterr().out)["rows"][0]["questions"] == 5
