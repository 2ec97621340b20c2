from __future__ import annotations

import configparser
from importlib.resources import files

import pytest

from npuops.targets.ethos_u_configs import CONFIG_FILE, CONFIGURATIONS, MEMORY_MODES, SYSTEM_CONFIGS


def test_variants_are_exactly_those_that_vela_compiles_for() -> None:
    architecture = pytest.importorskip("ethosu.vela.architecture_features", reason="extra ethos-u is not installed")
    assert sorted(CONFIGURATIONS) == sorted(architecture.Accelerator.member_list())


def test_every_named_configuration_stands_in_velas_own_file() -> None:
    ethosu = pytest.importorskip("ethosu.vela", reason="extra ethos-u is not installed")
    parser = configparser.ConfigParser()
    parser.read_string((files(ethosu) / ".." / "config_files" / CONFIG_FILE).read_text())
    sections = set(parser.sections())
    assert {f"System_Config.{name}" for row in SYSTEM_CONFIGS.values() for name in row} == {
        section for section in sections if section.startswith("System_Config.")
    }
    assert {f"Memory_Mode.{name}" for row in MEMORY_MODES.values() for name in row} == {
        section for section in sections if section.startswith("Memory_Mode.")
    }
