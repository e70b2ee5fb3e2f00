import datetime

import pytest

from toasterft import catalog
from toasterft.errors import UserError


def test_rows_have_sources_and_sane_numbers():
    for row in catalog.gpus().values():
        assert row.source
        assert 4 <= row.vram_gb <= 200
        assert 20 <= row.half_tflops <= 3000
        assert all(offer.source and offer.usd_per_hour >= 0 for offer in row.offers)
    assert not catalog.gpu("T4").bf16
    for data in catalog.datasets().values():
        assert data.rows > 0
        assert "measured" in data.provenance or "assumed" in data.provenance


@pytest.mark.parametrize(
    ("name", "memory_mib", "row"),
    [
        ("NVIDIA A40", 46068, "A40"),
        ("Tesla T4", 15360, "T4"),
        ("NVIDIA A100-SXM4-80GB", 81920, "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 40960, "A100-40GB"),
        ("NVIDIA A10G", 23028, "A10G"),
        ("NVIDIA A10", 23028, "A10"),
        ("NVIDIA L40S", 46068, "L40S"),
        ("NVIDIA L4", 23034, "L4"),
        ("NVIDIA H100 80GB HBM3", 81559, "H100-SXM"),
        ("NVIDIA H100 PCIe", 81559, "H100-PCIe"),
        ("NVIDIA H200", 143771, "H200"),
        ("NVIDIA RTX A6000", 49140, "A6000"),
        ("NVIDIA GeForce RTX 4090", 24564, "RTX4090"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 6144, None),  # half the memory of the card
        ("NVIDIA GeForce GTX 1080", 8192, None),
    ],
)
def test_nvidia_smi_names_are_recognised(name, memory_mib, row):
    found = catalog.recognise_gpu(name, memory_mib)
    assert (found.name if found else None) == row


def test_names_forgive_case_and_spaces_and_suggest():
    assert catalog.gpu("rtx 4090").name == "RTX4090"
    with pytest.raises(UserError, match="did you mean A40"):
        catalog.gpu("A400")


def test_old_and_undated_prices_are_flagged():
    day = datetime.date(2026, 8, 19)
    offer = catalog.Offer("x", 0.44, day, "s")
    assert offer.flag(day + datetime.timedelta(days=90)) is None
    assert offer.flag(day + datetime.timedelta(days=91)) == "91 days old"
    assert catalog.Offer("x", 0.44, None, "s").flag(day) == "undated"


def test_a_familys_name_is_its_first_current_teacher():
    found = catalog.find_teacher("gemini")
    current = [
        row
        for name, row in catalog.teachers().items()
        if name.startswith("gemini-") and row.status == "current"
    ]
    assert found == current[0]
    assert catalog.find_teacher("gemini-2.5-flash").name == "gemini-2.5-flash"
    assert catalog.find_teacher("gem") is None
