from __future__ import annotations

import pytest

from npuops.devices.drivers import DRIVERS
from npuops.devices.quantities import MEANINGS
from npuops.devices.raw_values import SCALES


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_probe_ends_in_the_unit_of_its_quantity(driver: str) -> None:
    assert [
        probe for probe in DRIVERS[driver].probes if SCALES[probe.raw].unit is not MEANINGS[probe.quantity].unit
    ] == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_probe_stands_twice_and_none_leaves_its_folder(driver: str) -> None:
    probes = DRIVERS[driver].probes
    assert len(set(probes)) == len(probes)
    assert [probe.path for probe in probes if probe.path.startswith("/") or ".." in probe.path] == []
