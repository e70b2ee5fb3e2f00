"""A recipe as a SkyPilot task: a rented machine that trains, keeps to the cap, and hands the run folder back. Light.

Two shapes, both SkyPilot's own (facts read from SkyPilot 0.14.1):

    managed   `sky jobs launch`: a spot machine, replaced when it is taken away. Runs lie in a mounted bucket, so the
              next machine resumes them, and the folder comes back from there.
    single    `sky launch --down`: one on-demand machine, for clouds that cannot mount buckets (RunPod, Vast …).
              The folder comes back by rsync before the machine goes; SkyPilot ends it when it idles.

The task holds all it needs: the recipe stands in its `run`, local data and this checkout are its `file_mounts`.
"""

from __future__ import annotations

import datetime
import getpass
import hashlib
import math
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import toasterft
from toasterft import recipe
from toasterft.catalog import Gpu
from toasterft.errors import RecipeError, UserError
from toasterft.jobs.prepare import Job
from toasterft.jobs.uploads import HOME, Uploads
from toasterft.recipe import Dyme, Section, Train, Trained
from toasterft.teachers import directory

# Clouds whose machines cannot mount a bucket (STORAGE_MOUNTING in sky/clouds/*.py).
MOUNTLESS = {"runpod", "vast", "verda", "shadeform", "hyperbolic", "seeweb", "yotta"}
# Names that SkyPilot's catalogs use where they are not ours; any of them will do.
ACCELERATORS = {
    "A6000": ("A6000", "RTXA6000"),
    "A100-40GB": ("A100",),
    "H100-PCIe": ("H100",),
    "H100-SXM": ("H100", "H100-SXM"),
}
# How a folder comes out of a bucket, by the tool that SkyPilot itself uses for it.
FETCH = {"s3": ("aws", "s3", "sync"), "gs": ("gcloud", "storage", "rsync", "-r")}
# Everything but the data: torch and its CUDA libraries, the environment, the container.
SYSTEM_DISK_GB = 60
# A managed job is ended by SkyPilot itself; a single machine waits for its folder to be fetched.
MANAGED_IDLE_MINUTES, SINGLE_IDLE_MINUTES = 5, 30
RUNS = "toasterft-runs"
# What a wheel is built from, where toasterft runs from a checkout.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "recipes", "toasterft")


@dataclass(frozen=True)
class Place:
    """Where a task runs.

    Attributes:
        infra: SkyPilot's cloud, cloud/region or cloud/region/zone; None for the cheapest that it finds.
        bucket: s3://name, gs://name …, with an optional path; None for a single machine.
        created: the bucket is SkyPilot's to make where it does not exist.
    """

    infra: str | None
    bucket: str | None
    created: bool = False
    spot: bool = True

    @property
    def managed(self) -> bool:
        return self.bucket is not None


def place(infra: str | None, bucket: str | None, *, on_demand: bool) -> Place:
    """The shape that a cloud allows.

    Raises:
        UserError: a bucket for a cloud that cannot mount one, or no bucket's address.
    """
    cloud = (infra or "").split("/")[0].lower()
    if cloud in MOUNTLESS:
        if bucket is not None:
            raise UserError(f"machines of {cloud} cannot mount a bucket", next_step="leave --bucket out")
        return Place(infra, None, spot=False)
    if bucket is None:
        # Names of buckets are shared by all the world.
        owner = hashlib.sha256(f"{getpass.getuser()}@{platform.node()}".encode()).hexdigest()[:12]
        store = "gs" if cloud == "gcp" else "s3"
        return Place(infra, f"{store}://{RUNS}-{owner}", created=True, spot=not on_demand)
    if not re.fullmatch(r"[a-z0-9]+://\S+", bucket):
        raise UserError(
            "this is no bucket's address", where=bucket, next_step="--bucket s3://NAME or gs://NAME"
        )
    return Place(infra, bucket.rstrip("/"), spot=not on_demand)


def price_of_hour(gpu: Gpu, chosen: Place) -> dict[str, Any] | None:
    """The catalog's price on this cloud, for a spot machine where `chosen` is one; None where it has none.

    Returns:
        `usd_per_hour`, `source` and `as_of`, as an estimate states its price.
    """
    cloud = (chosen.infra or "").split("/")[0].lower()
    for offer in gpu.offers if cloud else ():
        if offer.provider.lower().startswith(cloud):
            spot = offer.spot_usd_per_hour if chosen.spot else None
            usd = offer.usd_per_hour if spot is None else spot
            source = f"{offer.provider}{'' if spot is None else ' spot'} ({offer.source})"
            return {"usd_per_hour": usd, "source": source, "as_of": offer.as_of}
    return None


@dataclass(frozen=True)
class Order:
    """One task for SkyPilot.

    Attributes:
        name: of the job or the machine.
        run_id: of the run's folder, there and here.
        task: the content of the task YAML.
        secrets: environment variables that are passed on by name.
        uploads_bytes: sizes of what goes there, by local path, toasterft's own sources left out.
        base: a local model folder that adapters of the run refer to.
    """

    name: str
    run_id: str
    place: Place
    task: dict[str, Any]
    secrets: tuple[str, ...]
    uploads_bytes: dict[Path, int] = field(default_factory=dict)
    base: Path | None = None

    @property
    def kept_in(self) -> str:
        """Where the run's folder lies while the machine works."""
        root = self.place.bucket or f"{self.name}:{RUNS}"
        return f"{root}/{self.run_id}"

    def yaml(self) -> str:
        """The task file, its scripts written as scripts."""
        return yaml.dump(self.task, Dumper=_BlockDumper, sort_keys=False, allow_unicode=True)

    def launch(self, sky: str, file: str, *, yes: bool) -> list[str]:
        """The command that starts it and follows its log to the end."""
        kind = ["jobs", "launch", "-n"] if self.place.managed else ["launch", "-c"]
        secrets = [word for name in self.secrets for word in ("--secret", name)]
        return [sky, *kind, self.name, *secrets, *(["--yes"] if yes else []), file]

    def fetch(self, folder: Path) -> list[str] | None:
        """The command that brings the run's folder here; None for a store without one."""
        if self.place.bucket is None:
            return ["rsync", "-a", f"{self.kept_in}/", f"{folder}/"]
        tool = FETCH.get(self.place.bucket.partition("://")[0])
        return None if tool is None else [*tool, self.kept_in, str(folder)]


def order(
    wanted: Section,
    plans: Sequence[Job],
    chosen: Place,
    *,
    usd_per_hour: float | None,
    budget_usd: float | None,
    max_hours: float | None,
    over: bool,
    now: datetime.datetime,
) -> Order:
    """The task for a recipe of a training method, or of a pipeline.

    Args:
        plans: the run, or every stage of it, planned for the GPU to rent.
        usd_per_hour: what the run's meter counts with; no machine that costs more is taken.
        over: start although more than the cap is likely.

    Raises:
        UserError: something of it would not be there: own rewards, a model on a local base.
    """
    assert isinstance(wanted, (Trained, Train))
    gpu, method = plans[0].target.gpu, wanted.method
    stem = _slug(f"{method}-{plans[0].model.name}-{plans[0].data_name}")
    run_id, name = f"{now:%Y%m%d-%H%M%S}-{stem}", f"{HOME}-{stem}-{now:%m%d-%H%M%S}".lower().replace(".", "-")
    uploads = Uploads()
    sent = uploads.pack(wanted)
    sources_mounts, requirement = _package()
    limits = {"--price": usd_per_hour, "--budget": budget_usd, "--max-hours": max_hours}
    caps = [f"{flag} {value:g}" for flag, value in limits.items() if value is not None]
    caps += ["--yes"] if over and method != "train" else []
    # Stages of a pipeline share one feature cache.
    disk_bytes = max(sum(plan.estimate.disk_bytes.values()) for plan in plans if plan.estimate)
    idle = MANAGED_IDLE_MINUTES if chosen.managed else SINGLE_IDLE_MINUTES
    resources = {
        "infra": chosen.infra,
        "accelerators": {each: 1 for each in ACCELERATORS.get(gpu.name, (gpu.name,))},
        "use_spot": chosen.spot,
        "disk_size": SYSTEM_DISK_GB + math.ceil((disk_bytes + sum(uploads.sizes_bytes.values())) / 1e9),
        "max_hourly_cost": usd_per_hour,
        "autostop": {"idle_minutes": idle, "down": True},
    }
    mounts: dict[str, Any] = {
        **sources_mounts,
        **{there: str(here) for there, here in uploads.mounts.items()},
    }
    if chosen.bucket is not None:
        mounts[f"~/{RUNS}"] = _bucket(chosen)
    task = {
        "name": name,
        "resources": {key: value for key, value in resources.items() if value is not None},
        "file_mounts": mounts,
        "setup": _setup(requirement),
        "run": _script(method, run_id, sent, caps),
    }
    return Order(name, run_id, chosen, task, _secrets(plans), uploads.sizes_bytes, uploads.base)


class _BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""

    def represent_str(self, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_BlockDumper.add_representer(str, _BlockDumper.represent_str)


def _bucket(chosen: Place) -> dict[str, Any]:
    # Mode MOUNT cannot append to a file, as metrics do. One transfer at a time: a checkpoint's state file is
    # written last, and must not arrive before the rest of it.
    shared = {"mode": "MOUNT_CACHED", "config": {"mount_cached": {"transfers": 1}}}
    assert chosen.bucket is not None
    if not chosen.created:
        return {"source": chosen.bucket, **shared}
    store, _, name = chosen.bucket.partition("://")
    return {"name": name, "store": {"gs": "gcs"}.get(store, store), **shared}


def _package() -> tuple[dict[str, str], str]:
    """What installs this very toasterft there: its sources from a checkout, else its release."""
    root = Path(toasterft.__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        mounts = {f"~/{HOME}-src/{name}": str(root / name) for name in SOURCES}
        return mounts, f'"$HOME/{HOME}-src[cuda]"'
    return {}, shlex.quote(f"toasterft[cuda]=={toasterft.__version__}")


def _setup(requirement: str) -> str:
    return (
        "set -e\n"
        "command -v uv > /dev/null || pip install --quiet uv\n"
        f'uv venv --python 3.11 "$HOME/{HOME}-venv"\n'
        f'uv pip install --quiet --python "$HOME/{HOME}-venv/bin/python" {requirement}\n'
    )


def _script(method: str, run_id: str, sent: Mapping[str, Any], caps: Sequence[str]) -> str:
    """Start the run, or go on with it where an earlier machine left it."""
    words = " ".join(caps)
    marker = "pipeline.json" if method == "train" else "run.json"
    text = yaml.safe_dump(dict(sent), sort_keys=False, allow_unicode=True)
    assert "\nRECIPE\n" not in text
    return (
        f'export TOASTERFT_CACHE="$HOME/{HOME}-cache"\n'
        f'run="$HOME/{RUNS}/{run_id}"\n'
        f"cat > \"$HOME/recipe.yaml\" <<'RECIPE'\n{text}RECIPE\n"
        f'toasterft="$HOME/{HOME}-venv/bin/toasterft"\n'
        f'if grep -qs \'"status": "done"\' "$run/{marker}"; then exit 0; fi\n'
        f'if [ -f "$run/{marker}" ]; then exec "$toasterft" {method} --resume "$run" {words}; fi\n'
        f'exec "$toasterft" {method} "$HOME/recipe.yaml" --out "$run" {words}\n'
    )


def _secrets(plans: Sequence[Job]) -> tuple[str, ...]:
    """Names of environment variables that are set here and needed there; their values are in no file."""
    names = {"HF_TOKEN"}
    for plan in plans:
        if isinstance(plan.recipe, Dyme):
            services = directory.of_run(plan.recipe, datetime.date.today()).values()
            names |= {service.api_key_env for service in services if service.api_key_env}
        if isinstance(plan.recipe, Trained) and "wandb" in plan.recipe.report_to:
            names.add("WANDB_API_KEY")
    return tuple(sorted(name for name in names if os.environ.get(name)))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:60]


def method_of(source: str) -> str:
    """The `method:` of a recipe file.

    Raises:
        RecipeError: it names none that trains.
    """
    method = recipe.read_yaml(recipe.find(source)).get("method")
    schema = recipe.RECIPES.get(str(method))
    if schema is None or not issubclass(schema, (Trained, Train)):
        why = f"its method is {method!r}"
        raise RecipeError("only trainings can be launched", where=source, why=why, next_step="method: sft")
    return str(method)
