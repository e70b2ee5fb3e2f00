"""Resolve a teacher's name to an API service: a catalog row, a YAML row of one's own, or a model at an address."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from toasterft import catalog, units
from toasterft.catalog import Teacher
from toasterft.errors import UserError, did_you_mean
from toasterft.recipe import LOCAL_REFINERS, Dyme
from toasterft.teachers import api
from toasterft.teachers.api import Service

RULES = "rules"
HERE = Path(__file__).parent
# Keys of a row file beside the price: address and model.
_PLACE = ("base_url", "model_id", "api_key_env", "parameters")
_PRICE = {field.name for field in fields(Teacher)}


@dataclass(frozen=True)
class Address:
    """Address and price from the command line; None leaves it to the teachers' rows."""

    base_url: str | None = None
    model_id: str | None = None
    input_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None
    api_key_env: str | None = None


def find(name: str, address: Address, today: datetime.date) -> Service:
    """Resolve a teacher's name to its service, at today's price.

    Raises:
        UserError: no such row, no address, no price, or a model that was shut down.
    """
    file = Path(name).expanduser()
    if file.suffix in (".yaml", ".yml"):
        service = _of_file(file, today)
    elif (row := catalog.find_teacher(name)) is not None:
        service = _of_row(row.at(today), address, today)
    elif address.base_url is None:
        known = [*catalog.teachers(), RULES]
        raise UserError(
            f"no teacher {name!r}{did_you_mean(name, known)}",
            why=f"there are: {', '.join(known)}",
            next_step="name one, give a row as a .yaml file, or say where it is: --base-url URL --model-id ID",
        )
    else:
        service = _given(name, address)
    given = {key: value for key, value in vars(address).items() if value is not None}
    usd = {key: given.pop(key) for key in ("input_usd_per_mtok", "output_usd_per_mtok") if key in given}
    if usd:
        own: dict[str, Any] = {
            "source": "given on the command line",
            "status": "given",
            "as_of": None,
            "later": None,
        }
        given["price"] = replace(service.price, **usd, **own)
    return replace(service, **given)


def of_run(recipe: Dyme, today: datetime.date) -> dict[str, Service]:
    """Resolve the API models of a DyME run, by role: `judge` and `refiner`, where it names them.

    Raises:
        UserError: as `find`.
    """
    named = {"judge": recipe.judge, "refiner": None if recipe.refiner in LOCAL_REFINERS else recipe.refiner}
    return {role: find(name, Address(), today) for role, name in named.items() if name is not None}


def _of_row(row: Teacher, address: Address, today: datetime.date) -> Service:
    place = next((place for place in _places() if row.name.startswith(place["names"])), None)
    if place is None and address.base_url is None:
        raise UserError(
            f"no address is known for {row.name}",
            next_step="--base-url URL --api-key-env NAME",
        )
    if row.gone is not None and today >= row.gone and "may be" not in row.status and address.base_url is None:
        raise UserError(
            f"{row.name} is gone ({row.status} since {row.gone})",
            next_step="toasterft estimate cot --data …   compares the others",
        )
    if address.base_url is not None:
        # A key must not travel to an address that its row does not name.
        return Service(row.name, address.base_url, row.name, row)
    assert place is not None
    return Service(row.name, place["base_url"], row.name, row, place["api_key_env"])


def _given(name: str, address: Address) -> Service:
    assert address.base_url is not None
    if address.input_usd_per_mtok is None or address.output_usd_per_mtok is None:
        raise UserError(
            f"no price known for {name!r}",
            why="the budget cannot be held without one",
            next_step="give --price-in and --price-out in dollars per million tokens (0 for a server of your own)",
        )
    return api.custom_service(address.base_url, address.model_id or name, name=name)


def _of_file(file: Path, today: datetime.date) -> Service:
    """Read a row file: `name`, `base_url`, prices per million tokens, and what else a catalog row has."""
    try:
        row = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read ({str(error).splitlines()[0]})", where=str(file)) from None
    if not isinstance(row, dict):
        raise UserError("a teacher's row is a mapping of names to values", where=str(file))
    needed = ("name", "base_url", "input_usd_per_mtok", "output_usd_per_mtok")
    faults = [f"{key} is missing" for key in needed if key not in row]
    faults += [
        f"unknown key {key!r}{did_you_mean(str(key), [*_PRICE, *_PLACE])}"
        for key in row
        if key not in _PRICE and key not in _PLACE
    ]
    for key in set(needed[2:]) & set(row):
        try:
            row[key] = units.amount(row[key], free=True)
        except ValueError as problem:
            faults.append(f"{key}: {problem}")
    if faults:
        raise UserError("this is no teacher's row", where=str(file), details=faults)
    price: dict[str, Any] = {key: value for key, value in row.items() if key in _PRICE}
    if "image_tokens" not in price and "tile_tokens" not in price:
        price["image_tokens"] = api.MOST_IMAGE_TOKENS
    known = {"as_of": None, "source": str(file), "status": "given"} | price
    return Service(
        name=str(row["name"]),
        base_url=str(row["base_url"]),
        model_id=str(row.get("model_id", row["name"])),
        price=Teacher(**known).at(today),
        api_key_env=row.get("api_key_env"),
        parameters=row.get("parameters") or {},
    )


def _places() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load((HERE / "endpoints.yaml").read_text(encoding="utf-8"))
    return rows
