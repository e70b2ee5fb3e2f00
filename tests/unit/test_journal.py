"""The journal that everything which resumes is read back from."""

from __future__ import annotations

import json

import pytest

from toasterft.errors import UserError
from toasterft.runs import journal
from toasterft.runs.journal import Journal

# All that `str.splitlines` takes for the end of a line and JSON does not escape.
ODD_ENDS = "a\u2028b\u2029c\u0085d"


def test_answers_with_every_kind_of_line_separator_survive(tmp_path):
    rows = [{"text": ODD_ENDS}, {"text": f"{ODD_ENDS}\r\n\x0b\x0c\x1c"}]
    with Journal(tmp_path / "one") as one:
        one.append(rows)
        assert list(one.rows()) == rows
        assert one.whole_batches([row["text"] for row in rows], 1, lambda row: row["text"]) == rows
    for row in rows:
        journal.append(tmp_path / "two", row)
    journal.rewrite(tmp_path / "three", journal.read(tmp_path / "two"))
    assert list(journal.read(tmp_path / "three")) == rows


def test_a_run_s_answers_too(tmp_path):
    from toasterft.runs.run_folder import Run

    run = Run(tmp_path)
    run.sample({"text": ODD_ENDS})
    run.log({"step": 1, "note": ODD_ENDS})
    run.log({"step": 2})
    run.forget_after(1)
    assert run.samples() == [{"text": ODD_ENDS}]
    assert run.metrics() == [{"step": 1, "note": ODD_ENDS}]


@pytest.mark.parametrize("torn", ['{"n": 2, "text": "half', '{"n": 2, "text": "caf\udcc3', ""])
def test_a_torn_line_is_dropped_and_swallows_no_other(torn, tmp_path):
    file = tmp_path / "journal"
    whole = '{"n": 0}\n{"n": 1}\n'
    file.write_bytes((whole + torn).encode(errors="surrogateescape"))
    assert list(journal.read(file)) == [{"n": 0}, {"n": 1}]
    with Journal(file) as mine:
        mine.append([{"n": 3}])
    assert list(journal.read(file)) == [{"n": 0}, {"n": 1}, {"n": 3}]
    with Journal(file) as mine:
        mine.whole_batches([0, 1, 3], 1, lambda row: row["n"])
    assert file.read_text().startswith(whole)
    assert "half" not in file.read_text()


def test_a_last_line_that_only_lost_its_end_is_kept(tmp_path):
    (tmp_path / "journal").write_text('{"n": 0}\n{"n": 1}')
    with Journal(tmp_path / "journal") as mine:
        mine.append([{"n": 2}])
        assert [row["n"] for row in mine.rows()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("written", "total", "kept"),
    [([], 9, 0), (range(3), 9, 0), (range(4), 9, 4), (range(7), 9, 4), (range(9), 9, 9), (range(9), 10, 8),
     ([0, 1, 2, 3, 9, 5, 6, 7], 9, 4), (range(12), 9, 9)],
)  # fmt: skip
def test_whole_batches(written, total, kept, tmp_path):
    with Journal(tmp_path / "journal") as mine:
        mine.append([n, n / 2] for n in written)
        found = mine.whole_batches(range(total), 4, lambda row: row[0])
        assert [row[0] for row in found] == list(range(kept))
        assert list(mine.rows()) == found
        mine.append([[total, 0.0]])
    lines = (tmp_path / "journal").read_text().split("\n")
    assert [json.loads(line)[0] for line in lines[:-1]] == [*range(kept), total]


def test_batches_may_have_a_size_each(tmp_path):
    with Journal(tmp_path / "journal") as mine:
        mine.append([n, 0.0] for n in range(6))
        assert len(mine.whole_batches(range(8), (3, 1, 4), lambda row: row[0])) == 4
        assert len(mine.whole_batches(range(4), (3, 1), lambda row: row[0])) == 4


def test_one_process_at_a_time(tmp_path):
    with Journal(tmp_path / "journal"), pytest.raises(UserError, match="another process"):
        Journal(tmp_path / "journal")
    Journal(tmp_path / "journal").close()
