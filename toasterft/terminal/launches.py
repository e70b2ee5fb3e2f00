"""`launch` in the terminal."""

from __future__ import annotations

from toasterft.jobs.skypilot import SINGLE_IDLE_MINUTES, Order
from toasterft.terminal.output import pairs
from toasterft.units import size


def print_order(order: Order) -> None:
    """What is rented, what goes there, and what the cap leaves out."""
    resources, place = order.task["resources"], order.place
    cards = " or ".join(resources["accelerators"])
    limit = f", no dearer than ${resources['max_hourly_cost']:g}/h" if "max_hourly_cost" in resources else ""
    kept = (
        f"replaced when it is taken away; runs are kept in {place.bucket}"
        if place.bucket is not None
        else "fetched by rsync: this cloud mounts no bucket, so no spot machine either"
    )
    outside = (
        "storage, SkyPilot's own controller"
        if place.managed
        else f"up to {SINGLE_IDLE_MINUTES} idle minutes where nobody waits here to fetch the folder"
    )
    pairs(
        [
            (
                "rents",
                f"one {'spot' if place.spot else 'on-demand'} {cards} on {place.infra or 'any cloud'}{limit}",
            ),
            ("then", kept),
            (
                "uploads",
                ", ".join(f"{path} ({size(count)})" for path, count in order.uploads_bytes.items())
                or "nothing but the recipe",
            ),
            ("passes on", ", ".join(order.secrets) or "no secrets"),
            ("not capped", "setting the machine up (minutes), " + outside),
        ]
    )
