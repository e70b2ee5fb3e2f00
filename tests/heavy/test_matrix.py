"""Models x prompt conditions on toast-tiny: killed and gone on with, missing models, sweeps, one table of all."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import yaml
from fake_runs import folders, samples
from PIL import Image

from toasterft import recipe
from toasterft.errors import RecipeError
from toasterft.evaluation import answer
from toasterft.evaluation import matrix as evaluation_matrix
from toasterft.scoring import wilson

SETTINGS = {"method": "eval", "max_completion_length": 12, "per_device_eval_batch_size": 2}
BOTH = {"plain": {}, "+step": {"step": True}}


@pytest.fixture
def matrix(tmp_path):
    """Write a matrix's recipe."""

    def write(models, data, prompts=BOTH, **settings):
        file = tmp_path / "study.yaml"
        axes = {"models": models, "prompts": prompts}
        file.write_text(
            yaml.safe_dump({**SETTINGS, "data": str(data), "matrix": axes, **settings}, sort_keys=False)
        )
        return file

    return write


@pytest.fixture
def generated(monkeypatch):
    """Counts answers that a model is made to write."""
    counts = [0]
    honest = answer.complete

    def counting(inputs, items, *given, **settings):
        counts[0] += len(items)
        return honest(inputs, items, *given, **settings)

    monkeypatch.setattr(answer, "complete", counting)
    return counts


def test_a_killed_matrix_goes_on_and_asks_nothing_twice(
    matrix, charts_folder, run_cli, homes, generated, forked
):
    file = matrix({"tiny": "toast-tiny"}, charts_folder, split="train", limit=14)
    runs = homes / "runs"
    process = forked("-m", "toasterft", "eval", "--matrix", file, "--quiet")
    while not _half_way(runs):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    first, second = folders(runs)
    done = {name: (first / name).read_bytes() for name in ("run.json", "samples.jsonl")}
    # The last line may be half written, and so may the last batch be.
    with (second / "samples.jsonl").open("a") as torn:
        torn.write('{"id": "torn')
    kept = [line for line in (second / "samples.jsonl").read_text().splitlines()[:-1]]
    whole = len(kept) - len(kept) % SETTINGS["per_device_eval_batch_size"]
    asked = len(done["samples.jsonl"].splitlines())
    assert 0 < whole < asked

    found = run_cli("eval", "--matrix", file, "--json", "--quiet")
    assert found.code == 0, found.err
    assert folders(runs) == [first, second]
    assert {name: (first / name).read_bytes() for name in done} == done
    assert (second / "samples.jsonl").read_text().splitlines()[:whole] == kept[:whole]
    assert generated[0] == asked - whole
    table = found.json()
    assert table["complete"]
    assert [cell["run"] for cell in table["cells"]] == [first.name, second.name]
    assert [cell["eval"]["n"] for cell in table["cells"]] == [asked, asked]

    # What was interrupted says what it would have said undisturbed.
    words = [f"{key}={value}" for key, value in SETTINGS.items() if key != "method"]
    alone = homes / "alone"
    run_cli(
        "eval",
        "toast-tiny",
        "--data",
        charts_folder,
        "split=train",
        "limit=14",
        "--step",
        "--out",
        alone,
        *words,
    )
    assert [row["text"] for row in samples(second)] == [row["text"] for row in samples(alone)]
    assert json.loads((alone / "run.json").read_text())["eval"] == table["cells"][1]["eval"]

    generated[0] = 0
    again = run_cli("eval", "--matrix", file, "--json", "--quiet")
    assert (again.code, generated[0], again.json()) == (0, 0, table)


def _half_way(runs: Path) -> bool:
    """Whether the second cell has answered two batches and more."""
    found = folders(runs)
    if len(found) < 2 or not (found[1] / "samples.jsonl").exists():
        return False
    return (found[1] / "samples.jsonl").read_text().count("\n") >= 5


def test_one_table_of_cells_that_are_there_and_cells_that_are_not(
    matrix, questions, run_cli, homes, generated, monkeypatch
):
    from toasterft.engine import transformers_engine

    loads = []
    honest = transformers_engine.load
    monkeypatch.setattr(transformers_engine, "load", lambda request: loads.append(request) or honest(request))
    models = {
        "tiny": "toast-tiny",
        "256M-3k": "toaster-256m-3k",
        "same": {"model": "toast-tiny"},
        "gone": str(homes / "gone"),
    }
    file = matrix(models, questions)
    words = ["--suffix", "Be brief.", "--suffix", "In one word.", "--price", 0.36]
    done = run_cli("eval", "--matrix", file, *words, "--json")
    assert done.code == 2  # something is missing, and the user can mend it
    table = done.json()
    states = {cell["model"]: cell["status"] for cell in table["cells"]}
    assert states == {"tiny": "done", "256M-3k": "missing", "same": "done", "gone": "missing"}
    prompts = ["plain", "+step", "+ 'Be brief.'", "+ 'In one word.'"]
    assert [cell["prompt"] for cell in table["cells"][:4]] == prompts
    assert [cell["asked"]["suffix"] for cell in table["cells"][:4]] == [
        None,
        None,
        "Be brief.",
        "In one word.",
    ]
    # One model is opened once, and the same model under another name is not asked again.
    assert (len(loads), generated[0]) == (1, 4 * 6)
    assert [cell["run"] for cell in table["cells"][8:12]] == [cell["run"] for cell in table["cells"][:4]]
    problem = table["cells"][4]["problem"]
    assert problem["next_step"] == f"toasterft sft toaster-256m-3k --out {homes / 'runs' / 'toaster-256m-3k'}"
    assert not table["complete"]

    cell = table["cells"][0]
    rate = cell["eval"]["scores"]["relaxed"]
    assert (rate["low"], rate["high"]) == wilson(round(rate["value"] * 6), 6)
    assert {kind: row["n"] for kind, row in cell["eval"]["by_kind"].items()} == {"augmented": 3, "human": 3}
    spent = cell["seconds_per_1000_answers"]
    assert cell["usd_per_1000_answers"] == pytest.approx(spent / 3600 * 0.36)
    record = json.loads((homes / "runs" / cell["run"] / "run.json").read_text())
    assert spent == pytest.approx(record["measured"]["phases"]["evaluate"]["seconds"] / 6 * 1000, rel=0.01)

    folder = homes / "runs" / "study"
    assert json.loads((folder / "table.json").read_text()) == table
    with Image.open(folder / "accuracy.png") as picture:
        assert picture.format == "PNG"
    page = (folder / "table.md").read_text()
    for expected in (
        "| tiny | + 'In one word.' |",
        "human (3)",
        "augmented (3)",
        "missing",
        "(accuracy.png)",
    ):
        assert expected in page
    shown = run_cli("eval", "--matrix", file, *words, "--quiet").out
    assert max(map(len, shown.splitlines())) <= 80
    for expected in (
        "robust",
        "relaxed",
        "contains",
        "format kept",
        "s / 1,000",
        "$ / 1,000",
        "not trained yet",
    ):
        assert expected in shown, shown

    names = [cell["run"] for cell in table["cells"][:2]]
    compared = run_cli("compare", *names, "--json").json()
    assert (compared["n"], [run["step"] for run in compared["runs"]]) == (6, [False, True])


def test_four_bits_stand_beside_sixteen(matrix, questions, run_cli, generated):
    file = matrix({"tiny": "toast-tiny"}, questions, {"plain": {}})
    asked = ["matrix.load_in_4bit=[false, true]", "--limit", 2]
    found = run_cli("eval", "--matrix", file, *asked, "--json").json()
    assert [cell["load_in_4bit"] for cell in found["cells"]] == [False, True]
    assert len({cell["run"] for cell in found["cells"]}) == 2
    # 16 bits are what a base model has when nobody says anything: that cell is there already.
    assert generated[0] == 4
    plain = run_cli("eval", "--matrix", file, "--limit", 2, "--json").json()
    assert (plain["cells"][0]["run"], generated[0]) == (found["cells"][0]["run"], 4)
    assert "bits" in run_cli("eval", "--matrix", file, *asked, "--quiet").out


def test_what_changed_is_asked_again(matrix, questions, run_cli, generated, tmp_path, tiny_model):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_model(), model)
    file = matrix({"mine": str(model)}, questions, {"plain": {}})

    def again():
        generated[0] = 0
        assert run_cli("eval", "--matrix", file, "--quiet").code == 0
        return generated[0]

    assert (again(), again()) == (6, 0)
    weights = next(model.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    assert (again(), again()) == (6, 0)
    Image.new("RGB", (64, 64), "blue").save(questions / "x.png")
    assert (again(), again()) == (6, 0)


def test_a_bug_in_one_cell_leaves_the_others_alone(matrix, questions, homes, monkeypatch):
    wanted = recipe.load("eval", str(matrix({"tiny": "toast-tiny"}, questions)), matrix=True)
    seen = []

    def evaluate(job):
        seen.append(job.recipe.step)
        raise ZeroDivisionError("ours")

    tables = evaluation_matrix.run(wanted, homes / "study", homes / "runs", evaluate, on_cell=lambda _: None)
    found = [next(tables), next(tables)]
    with pytest.raises(ZeroDivisionError):
        next(tables)
    assert seen == [False, True]
    assert [cell["status"] for cell in found[-1]["cells"]] == ["failed", "failed"]


def test_a_cell_that_another_process_is_at_is_left_to_it(matrix, questions, run_cli, homes, generated):
    from toasterft.runs.run_folder import Run

    file = matrix({"tiny": "toast-tiny"}, questions)
    first = run_cli("eval", "--matrix", file, "--json", "--quiet").json()["cells"][0]
    other = Run(
        homes / "runs" / first["run"], json.loads((homes / "runs" / first["run"] / "run.json").read_text())
    )
    other.update(status="running")
    other.lock()
    generated[0] = 0
    done = run_cli("eval", "--matrix", file, "--json", "--quiet")
    other.unlock()
    assert (done.code, generated[0]) == (2, 0)
    assert [cell["status"] for cell in done.json()["cells"]] == ["refused", "done"]
    assert "another process" in done.json()["cells"][0]["problem"]["what"]
    assert len(samples(other.path)) == 6


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"models": {}}, "models"),
        ({"models": {"a": {"load_in_4bit": True}}}, "names no model"),
        ({"models": {"a": "x"}, "prompts": {"p": {"data": "other"}}}, "same questions"),
        ({"models": {"a": "x"}, "prompts": {"p": {"stp": True}}}, "did you mean step"),
        ({"models": {"a": "x"}, "promts": {}}, "did you mean matrix.prompts"),
    ],
)
def test_mistakes_in_a_matrix_are_named(tmp_path, axes, says):
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump({"method": "eval", "matrix": axes}))
    with pytest.raises(RecipeError, match=says):
        recipe.load("eval", str(file), matrix=True)


def test_a_list_of_models_names_itself(tmp_path):
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump({"method": "eval", "matrix": {"models": ["runs/a", "toast-tiny"]}}))
    wanted = recipe.load("eval", str(file), ["limit=3"], matrix=True)
    assert [(cell.model, cell.prompt, cell.recipe.model) for cell in evaluation_matrix.cells(wanted)] == [
        ("a", "plain", "runs/a"),
        ("toast-tiny", "plain", "toast-tiny"),
    ]
    assert {cell.recipe.limit for cell in evaluation_matrix.cells(wanted)} == {3}


def test_the_shipped_matrix_is_the_published_one():
    cells = evaluation_matrix.cells(recipe.load("eval", "eval-toaster-12", matrix=True))
    assert len({cell.name for cell in cells}) == 12
    assert sum(cell.recipe.step for cell in cells) == 6


def test_flags_that_do_not_go_together(matrix, questions, run_cli, homes):
    file = matrix({"tiny": "toast-tiny"}, questions)
    for words, says in [
        (["toast-tiny", file], "--matrix"),
        (["--matrix", file, "--step"], "stand in its recipe"),
        (["--matrix", file, "toast-tiny"], "stand in its recipe"),
        (["--matrix", "sft-smolvlm"], "for `sft`"),
        (["toast-tiny", "--suffix", "a", "--suffix", "b"], "--matrix"),
        ([], "nothing to evaluate"),
        (["--matrix", file, "--data", homes / "none"], "no such data"),
    ]:
        done = run_cli("eval", *words)
        assert done.code == 2, (words, done.out)
        assert says in done.err, (words, done.err)
    other = homes / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    done = run_cli("eval", "--matrix", file, "--out", other)
    assert done.code == 2
    assert "holds something else" in done.err
    assert not folders(homes / "runs")
