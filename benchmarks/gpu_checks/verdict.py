"""From the figures of `gpu.py`'s parts to verdicts, comparisons, calibrations. Pure functions, no torch.

A `check` is what is kept of one part: `status` (done, failed, timed out, not run), `seconds`, and its figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from toasterft.estimation import memory, seconds
from toasterft.estimation.calibration import Calibration

Check = dict[str, Any]
METHODS = ("sft", "grpo", "dyme")
# Measured over estimated, and allocated over simulated, may be off by these shares.
MEMORY_GOAL, SIMULATION_GOAL = 0.10, 0.05
# A phase that is timed as a whole and took less says more about its first call than about its pace.
SHORTEST_SECONDS = 1.0
FEWEST_TURNS = 3


@dataclass(frozen=True)
class Goal:
    """One figure and what it should be; `held` is None where it cannot be judged."""

    name: str
    value: float | None
    wanted: str
    held: bool | None


def ratio(measured: float | None, predicted: float | None) -> float | None:
    return measured / predicted if measured and predicted else None


def within(name: str, measured: float | None, predicted: float | None, share: float, *, judge: bool) -> Goal:
    """A measured figure within a share of a predicted one, above or below."""
    found = ratio(measured, predicted)
    held = None if found is None or not judge else abs(found - 1) <= share + 1e-9
    return Goal(name, None if found is None else round(found, 4), f"within {share:.0%}", held)


def at_most(name: str, value: float | None, bound: float) -> Goal:
    return Goal(name, value, f"at most {bound:g}", None if value is None else value <= bound)


def true(name: str, value: bool | None) -> Goal:
    return Goal(name, None if value is None else float(value), "yes", value)


def goals(check: Check, simulated: Check | None, *, rehearsal: bool) -> list[Goal]:
    """What one check promises.

    Args:
        simulated: the check that replayed the same model's runs, or None.
        rehearsal: memory is a CPU process's: shown, not judged.
    """
    if check["status"] != "done":
        return []
    kind = check["kind"]
    if kind == "agree":
        pairs = ["features_against_pixels", "half_against_float32"]
        pairs += ["four_bit_against_plain"] if check["engine"] != "plain" else []
        found = [at_most(name, check.get(name, {}).get("largest"), check["tolerance"]) for name in pairs]
        return [*found, true("finite", check["finite"])]
    if kind not in METHODS:
        return []
    paged = check["optimizer"].get("paged") is True and check["optimizer"].get("bits") == 8
    found = [
        true("finite losses", check["finite"]),
        true("engine as asked", check["ran_on"] == check["engine"]),
        true("4-bit weights", check["four_bit_layers"] > 0),
        true("paged 8-bit AdamW", paged),
        true("checkpointing", check["checkpointing"] is not None),
    ]
    for row in phases(check, simulated):
        name, judge = row["phase"], not rehearsal
        pairs = (row["measured_bytes"], row["estimated_bytes"], MEMORY_GOAL)
        found.append(within(f"memory {name}", *pairs, judge=judge))
        if row["simulated_bytes"] and row["allocated_bytes"]:
            pairs = (row["allocated_bytes"], row["simulated_bytes"], SIMULATION_GOAL)
            found.append(within(f"simulation {name}", *pairs, judge=judge))
    return found


def verdict(check: Check, held: Sequence[Goal]) -> str:
    """`pass`, `FAIL` with what missed, `measured` where there is nothing to hold it against, or why there is nothing."""
    if check["status"] != "done":
        return f"{check['status']}: {check['reason']}"
    missed = [
        f"{goal.name} {goal.value:.3g} ({goal.wanted})"
        for goal in held
        if goal.held is False and goal.value is not None
    ]
    if missed:
        return "FAIL " + ", ".join(missed)
    return "pass" if any(goal.held for goal in held) else "measured"


def phases(check: Check, simulated: Check | None) -> list[dict[str, Any]]:
    """Memory and time of each phase of a run of ours; bytes include what lies outside the allocator."""
    replayed = (simulated or {}).get(check["kind"], {})
    estimate, taken = check["estimate"], check["phases"]
    whole = sum(row["seconds"] for row in taken.values())
    return [
        {
            "phase": name,
            "seconds": row["seconds"],
            "share": round(row["seconds"] / whole, 4) if whole else None,
            "measured_bytes": row["peak_bytes"] + _outside(check),
            "estimated_bytes": estimate["phase_bytes"].get(name, {}).get("peak"),
            "allocated_bytes": check["allocated_bytes"].get(name),
            "simulated_bytes": replayed.get(name),
        }
        for name, row in taken.items()
    ]


def _outside(check: Check) -> int:
    """Measured, else what the estimate takes for it; a CPU process's resident memory holds everything."""
    if not check["allocated_bytes"]:
        return 0
    return int(check.get("outside_bytes") or memory.CUDA_CONTEXT_BYTES)


# --- comparisons -------------------------------------------------------------------------------


# Other people's loops: what they train, and what they are called.
PEERS = {
    "trl_sft": ("sft", "TRL SFTTrainer"),
    "trl_grpo": ("grpo", "TRL GRPOTrainer"),
    "notebook": ("sft", "Unsloth notebook"),
}


def speed(checks: Mapping[str, Check]) -> list[dict[str, Any]]:
    """Steps and tokens per second of every loop, beside ours on the plain engine; encoding counts in `cold`."""
    rows = []
    for check in done(checks):
        if not check.get("step_seconds"):
            continue
        kind, loop = PEERS.get(check["kind"], (check["kind"], f"ours, {check['engine']}"))
        ours = next((one for one in done(checks) if _is(one, kind, check["model"], "plain")), None)
        rows.append(
            {
                "method": kind,
                "model": check["model"],
                "loop": loop,
                "step_seconds": round(check["step_seconds"], 4),
                "cold_step_seconds": _cold(check),
                "steps_per_second": round(1 / check["step_seconds"], 3),
                "tokens_per_second": rounded(check.get("tokens_per_second")),
                "peak_bytes": check["peak_bytes"] if "peak_bytes" in check else _peak(check),
                "times_ours": rounded(ratio(check["step_seconds"], ours and ours["step_seconds"])),
                "times_ours_cold": rounded(
                    ratio(check["step_seconds"], _cold(ours) if ours and check["kind"] in PEERS else None)
                ),
            }
        )
    return sorted(rows, key=lambda row: (row["model"], METHODS.index(row["method"])))


def _peak(check: Check) -> int:
    """Of a run of ours from its first picture on; peers are measured once they are loaded, too."""
    return max(row["peak_bytes"] for name, row in check["phases"].items() if name != "start")


def _cold(check: Check) -> float | None:
    """Seconds of a step of the first epoch, whose pictures are encoded for it; peers' steps always are."""
    encode = check.get("phases", {}).get("encode")
    if encode is None or not check.get("images"):
        return None
    prompts = check["rows_per_step"] if check["kind"] == "sft" else 1 / check["iterations"]
    return round(check["step_seconds"] + encode["seconds"] / check["images"] * prompts, 4)


def decoding(checks: Mapping[str, Check]) -> dict[str, dict[str, Any]]:
    """Model → ways to decode with tokens per second, and the fastest of them."""
    found: dict[str, dict[str, Any]] = {}
    for check in done(checks):
        for way, row in check.get("ways", {}).items():
            name = "unsloth" if (check["kind"], check["engine"]) == ("decode", "unsloth") else way
            found.setdefault(check["model"], {"ways": {}})["ways"][name] = row
    for rows in found.values():
        known = {
            name: row["tokens_per_second"]
            for name, row in rows["ways"].items()
            if row.get("tokens_per_second")
        }
        rows["fastest"] = max(known, key=lambda name: known[name]) if known else None
    return found


# --- calibrations --------------------------------------------------------------------------------


def calibrations(checks: Mapping[str, Check], date: str, versions: Mapping[str, str]) -> list[Calibration]:
    """Measured over predicted, by phase, of each method and model: what `estimate --measure` keeps.

    On the engine that `engine=auto` takes: Unsloth's where it has run.
    """
    runs: dict[tuple[str, str], Check] = {}
    for check in done(checks):
        run = (check["kind"], check["model"])
        if check["kind"] in METHODS and (run not in runs or check["engine"] == "unsloth"):
            runs[run] = check
    return [
        Calibration.of_phases(check["machine"], method, f"SmolVLM-{model}", date, _pairs(check), versions)
        for (method, model), check in runs.items()
    ]


def _pairs(check: Check) -> dict[str, dict[str, float | None]]:
    rows = {}
    for row in phases(check, None):
        name, taken = row["phase"], check["phases"][row["phase"]]
        # Steps are repeated and their median does; what is timed once needs to be long enough to say something.
        steady = name in ("train", "rollout") and taken["turns"] >= FEWEST_TURNS
        turns = check["optimizer_steps"] // (check["iterations"] if name == "rollout" else 1)
        measured = taken["median_seconds"] * turns if steady else taken["seconds"]
        if not steady and measured < SHORTEST_SECONDS:
            measured = None
        predicted = check["estimate"]["phase_seconds"].get(name)
        rows[name] = {
            "predicted_seconds": None if predicted is None else round(predicted["likely"], 4),
            "measured_seconds": None if measured is None else round(measured, 4),
            "predicted_bytes": row["estimated_bytes"],
            "measured_bytes": row["measured_bytes"],
        }
    return rows


def efficiencies(checks: Mapping[str, Check]) -> list[dict[str, Any]]:
    """What the constants of `estimation/seconds.py` would have to be for the likely time to be the measured one."""
    found = []
    for check in done(checks):
        if check["kind"] not in METHODS:
            continue
        for phase, row in _pairs(check).items():
            off = ratio(row["measured_seconds"], row["predicted_seconds"])
            name = _constant(phase, check["estimate"]["pace"].get(phase))
            if off is None or name is None:
                continue
            assumed = getattr(seconds, name)[seconds.LIKELY]
            implied = assumed / off if name.endswith("EFFICIENCY") else assumed * off
            found.append(
                {
                    "constant": name,
                    "assumed": assumed,
                    "implied": round(implied, 5),
                    "from": f"{phase} of {check['name']}",
                }
            )
    return found


def _constant(phase: str, pace: str | None) -> str | None:
    """The constant that sets a phase's time; None where several do."""
    names = {
        ("train", "gpu"): "TRAIN_EFFICIENCY", ("train", "launches"): "LAYER_SECONDS",
        ("encode", "gpu"): "FORWARD_EFFICIENCY", ("encode", "cpu"): "PREPARE_SECONDS_PER_MPX",
        ("start", None): "START_SECONDS",
    }  # fmt: skip
    return names.get((phase, pace))


# --- inside ------------------------------------------------------------------------------------


def as_json(found: Sequence[Goal]) -> list[dict[str, Any]]:
    return [asdict(goal) for goal in found]


def done(checks: Mapping[str, Check]) -> list[Check]:
    """Those that have figures."""
    return [check for check in checks.values() if check["status"] == "done"]


def _is(check: Check, kind: str, model: str, engine: str) -> bool:
    return (check["kind"], check["model"], check["engine"]) == (kind, model, engine)


def rounded(value: float | None) -> float | None:
    """To hundredths, as a table shows it."""
    return None if value is None else round(value, 2)
