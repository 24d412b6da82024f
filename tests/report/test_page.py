from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grade.scripts import TASK
from laconic.errors import LaconicError
from laconic.grade.comparisons import compare
from laconic.grade.evaluation import evaluate
from laconic.grade.tasks import Task
from laconic.report import responses
from laconic.report.charts import Lengths, _name_places, accuracy_within
from laconic.report.page import report
from laconic.report.responses import clip
from laconic.report.svg import Frame, Scale, tag
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner

HOSTILE = "</script><script>document.title='pwned'</script><img src=x onerror=\"alert('&')\">"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def number_of(sample: Sample) -> int:
    return int(sample.id.split("/")[1])


def slow(sample: Sample, draw: int) -> str:
    number = number_of(sample)
    return f"<think>{'Wait. ' * (3 + number)}</think>\\boxed{{{number + 1}}}"


def quick(sample: Sample, draw: int) -> str:
    number = number_of(sample)
    return f"{HOSTILE} \\boxed{{{number + 1 + (number in (2, 5))}}}"


def make_runs(folder: Path) -> list[Path]:
    runs = []
    for name, script in (("slow", slow), (f"quick {HOSTILE}", quick)):
        out = folder / f"run{len(runs)}"
        evaluate("m", TASK, out=out, runner=ScriptedRunner(script), name=name, progress=False)
        runs.append(out)
    return runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(runs, tmp_path_factory.mktemp("page") / "page.html", against=runs[0])


def embedded(page: Path) -> dict[str, list[list[object]]]:
    found = re.search(r'<script id="data"[^>]*>(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_page_loads_nothing_from_anywhere(page: Path) -> None:
    text = page.read_text()
    assert "://" not in text
    assert not re.search(r"<(?:link|img|script|iframe)[^>]*(?:src|href)=\"(?!data:,)", text)
    assert "default-src 'none'" in text


def test_what_a_model_or_a_user_wrote_is_never_markup(page: Path) -> None:
    text = page.read_text()
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert html.escape(f"quick {HOSTILE}", quote=False)[:30] in text  # the name, in the table


def test_every_response_and_verdict_is_there(page: Path) -> None:
    data = embedded(page)
    assert len(data["items"]) == 8
    assert data["texts"][1][0] == quick(Sample("sums/0", text="x"), 0)
    assert [cell[0] for cell in data["cells"][1]] == [1, 1, 0, 1, 1, 0, 1, 1]  # type: ignore[index]
    assert [cell[1] for cell in data["cells"][0]] == [5 + n for n in range(8)]  # type: ignore[index]


def test_table_has_the_numbers_of_the_comparison(page: Path) -> None:
    text = page.read_text()
    for cell in ("75.0%", "100.0%", "-25.0 pp", "reference", "p (Holm)", "0.500"):
        assert cell in text
    assert "AES (weights 1, 3, 5)" in text
    assert "token change, mean of tasks" not in text  # there is one task


def test_reflection_by_level_has_intervals(page: Path) -> None:
    drawing = re.search(r"Reflection by level</h2>(.*?)</section>", page.read_text(), re.DOTALL)
    assert drawing is not None
    assert "slow, 0: 100% [51.01%, 100%], 4 questions" in drawing[1]  # Wilson, 4 of 4
    assert ", 1: 0% [0%, 48.99%], 4 questions" in drawing[1]
    assert drawing[1].count('class="bar"') == 4  # two runs, two levels


def test_two_tasks_have_both_changes_of_length(tmp_path: Path) -> None:
    few = Task("few", "test", TASK.questions[:2], "", "")
    runs = []
    for name, script in (("slow", slow), ("quick", quick)):
        runs.append(tmp_path / name)
        runner = ScriptedRunner(script)
        evaluate(name, [TASK, few], out=runs[-1], runner=runner, progress=False)
    text = report(runs, tmp_path / "page.html", against=runs[0]).read_text()
    row = compare(runs, against=runs[0]).rows[1]
    assert row.paired is not None
    assert row.paired.across is not None
    changes = row.paired.across.length
    assert changes.mean_of_ratios != changes.ratio_of_means
    for change in (row.tokens_change, changes.mean_of_ratios, changes.ratio_of_means):
        assert f"<td>{100 * (change or 0):+.1f}%" in text
    assert "token change, mean of tasks" in text
    assert "token change, tasks&#39; means" in text


def test_budget_by_hand() -> None:
    run = Lengths("a", np.array([10.0, 20, 30, 40]), np.array([1.0, 0, 1, np.nan]))
    assert [accuracy_within(run, b) for b in (9, 10, 29, 30, 99)] == [
        0.0,
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    ]
    assert accuracy_within(replace(run, right=np.full(4, np.nan)), 99) is None


def test_long_text_loses_its_middle_and_says_so() -> None:
    short = clip("a" * 4000 + "b" * 4000, 3000)
    assert short.startswith("a" * 2000 + "\n[... 5,000 characters left out ...]\n")
    assert short.endswith("b" * 1000)
    assert clip("abc", 3) == "abc"


def test_full_page_keeps_what_is_interesting(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "PAGE_CHARACTERS", 400)
    data = embedded(report(runs, tmp_path / "page.html"))
    kept = {n for n, text in enumerate(data["texts"][0]) if text is not None}
    assert kept == {2, 5}  # where the two differ
    text = (tmp_path / "page.html").read_text()
    assert "the text is kept for 2 of 8, first where the models differ" in text
    monkeypatch.setattr(responses, "CELLS", 6)
    data = embedded(report(runs, tmp_path / "page.html"))
    assert len(data["items"]) == 3
    assert "3 of 8 answered questions are listed" in (tmp_path / "page.html").read_text()


def test_several_draws(tmp_path: Path) -> None:
    sampling = Sampling(temperature=1.0, n=3)
    runner = ScriptedRunner(lambda sample, draw: f"\\boxed{{{draw}}}")
    evaluate("m", TASK, out=tmp_path / "run", runner=runner, sampling=sampling, progress=False)
    page = report([tmp_path / "run"], tmp_path / "page.html")
    assert embedded(page)["items"][7:9] == [[7, 0], [0, 1]]  # first draws of all come first
    assert "3 responses per question" in page.read_text()


def test_questions_without_levels_and_a_run_without_verdicts(tmp_path: Path) -> None:
    bare = tuple(replace(q, level=None, answer="") for q in TASK.questions[:2])
    task = replace(TASK, questions=bare)
    runner = ScriptedRunner(lambda sample, draw: "")
    evaluate("m", task, out=tmp_path / "run", runner=runner, progress=False)
    text = report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "by level" not in text


def test_unfinished_run_and_impossible_path(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match="is a folder; expected the path of a page"):
        report(runs, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LaconicError, match="cannot be written"):
        report(runs, tmp_path / "file" / "page.html")
    half = shutil.copytree(runs[0], tmp_path / "half")
    (half / "summary.json").unlink()
    with pytest.raises(LaconicError, match="the run is not complete"):
        report([half], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_attributes_and_text_of_a_drawing_are_escaped() -> None:
    assert tag("a", "<b>", x='"') == '<a x="&#34;">&lt;b&gt;</a>'


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Scale(0, 1, 0, 100), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Scale(0, 230, 0, 100), [0, 50, 100, 150, 200]),
        (Scale(7, 160, 0, 100, log=True), [10, 20, 50, 100]),
        (Scale(1, 1e6, 0, 100, log=True), [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
    ],
)
def test_round_ticks(scale: Scale, expected: list[float]) -> None:
    assert scale.ticks() == pytest.approx(expected)


def test_names_of_points_on_one_spot_do_not_cover_each_other() -> None:
    boxes = _name_places(Frame(), ["first name", "second", "third one"], [(200, 60)] * 3, [])
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart


def browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")


def document(page: Path, profile: Path, more: Sequence[str] = ()) -> str:
    """The page's document after its script ran."""
    command = [browser(), *QUIET, f"--user-data-dir={profile}", *more, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    # The tests' own script uses the page as a reader would, and notes what it then shows.
    use = """
    <script>
    const note = {};
    const cards = () => [...document.querySelectorAll(".item")].map(
        card => card.querySelector(".asked > span:last-child").textContent.split(" ")[0]);
    const pick = (id, value) => { element(id).value = value; element(id).onchange(); };
    note.all = cards();
    pick("which", "differ"); note.differ = cards();
    pick("which", "wrong1"); note.wrong = cards();
    pick("which", "all"); pick("order", "longest"); note.longest = cards()[0];
    pick("group", "level 1"); note.level = cards();
    pick("group", ""); element("search").value = "6+1"; draw(); note.found = cards();
    note.text = document.querySelectorAll(".answer pre")[1].textContent;
    note.title = document.title;
    document.body.replaceChildren(JSON.stringify(note));
    </script></body>"""
    used = tmp_path / "used.html"
    used.write_text(page.read_text().replace("</body>", use))
    shown = document(used, tmp_path / "profile")
    found = re.search(r"<body>(.*)</body>", shown, re.DOTALL)
    assert found is not None, shown[:500]
    note = json.loads(html.unescape(found[1]))
    assert note["all"] == [f"sums/{n}" for n in range(8)]
    assert note["differ"] == note["wrong"] == ["sums/2", "sums/5"]
    assert note["longest"] == "sums/7"
    assert note["level"] == ["sums/7", "sums/5", "sums/3", "sums/1"]
    assert note["found"] == ["sums/6"]
    assert note["text"] == quick(Sample("sums/6", text="x"), 0)
    assert note["title"] == "laconic: sums"


def test_laptop_screen_shows_the_whole_table_in_light_and_dark(page: Path, tmp_path: Path) -> None:
    grounds = []
    for theme in ("light", "dark"):
        measure = f"""
        <script>
        document.documentElement.dataset.theme = "{theme}";
        const box = document.querySelector(".scroll");
        const ground = getComputedStyle(document.body).backgroundColor;
        const wide = document.documentElement.scrollWidth > innerWidth;
        document.body.replaceChildren(JSON.stringify([ground, wide, innerWidth]));
        </script></body>"""
        used = tmp_path / f"{theme}.html"
        used.write_text(page.read_text().replace("</body>", measure))
        shown = document(used, tmp_path / "profile", ["--window-size=1366,768"])
        ground, wide, width = json.loads(re.findall(r"<body>(.*)</body>", shown, re.DOTALL)[0])
        assert not wide
        assert width == 1366
        grounds.append(ground)
    assert grounds == ["rgb(246, 247, 249)", "rgb(18, 21, 27)"]
