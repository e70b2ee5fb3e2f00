import os
import time

from toasterft.engine import feature_cache


def store(limit=10_000, key="a"):
    return feature_cache.Store(key, {"model": "m"}, limit)


def test_entries_come_back_and_are_counted():
    kept = store()
    assert kept.get("ab12") is None
    assert kept.put("ab12", b"x" * 100)
    assert kept.get("ab12").read_bytes() == b"x" * 100
    (space,) = feature_cache.spaces()
    assert (space.entries, space.size_bytes, space.about) == (1, 100, {"model": "m"})
    assert feature_cache.clear() == 100
    assert feature_cache.spaces() == []


def test_a_half_written_entry_of_a_killed_process_is_never_read():
    kept = store()
    kept.put("ab12", b"x")
    (kept.folder / "cd").mkdir()
    (kept.folder / "cd" / ".cd34.safetensors.999.tmp").write_bytes(b"half")
    assert kept.get("cd34") is None
    assert feature_cache.spaces()[0].entries == 1


def test_the_least_recently_used_of_earlier_runs_make_room():
    old = store(limit=1000, key="old")
    for number, name in enumerate(["aa1", "bb2", "cc3"]):
        old.put(name, b"x" * 300)
        past = time.time() - 1000 + number
        os.utime(old.path(name), (past, past))
    new = store(limit=1000, key="new")
    assert new.put("dd4", b"y" * 300)
    assert [old.path(name).exists() for name in ("aa1", "bb2", "cc3")] == [False, True, True]
    assert new.get("dd4")


def test_entries_of_this_run_are_never_evicted():
    kept = store(limit=1000)
    assert all(kept.put(f"aa{number}", b"x" * 300) for number in range(3))
    assert not kept.put("bb9", b"x" * 300)
    assert kept.full
    assert all(kept.get(f"aa{number}") for number in range(3))


def test_the_default_limit_is_half_the_free_disk():
    from toasterft import paths

    assert abs(feature_cache.default_limit_bytes() - paths.free_bytes(feature_cache.root()) // 2) < 2e9
