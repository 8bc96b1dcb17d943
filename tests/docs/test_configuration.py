"""docs/configuration.md and the strict models of the code have the same keys."""

from __future__ import annotations

import re

import msgspec
import pytest

from local_stores.airflow_provider.get_provider_info import get_provider_info
from local_stores.config import site
from local_stores.receive import home
from mpc_ops.federation.assemble import FederationSpec
from mpc_ops.federation.contract import Column, DatasetContract
from mpc_ops.federation.rulepack import Rule, RulePack
from mpc_ops.notices.model import CalendarRow
from mpc_ops.planner.terms import ReportTerms
from mpc_ops.server import config as operator
from mpc_ops.server.sftp import config as sftp
from tests.support.docs import ROOT

PAGE = (ROOT / "docs" / "configuration.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
MODELS: dict[str, type[msgspec.Struct]] = {
    "`site.toml`, section `[site]`": site._SiteSection,
    "`owner.toml`, section `[owner]`": site._Owner,
    "`owner.toml`, each `[[stores]]`": site.StoreConfig,
    "`owner.toml`, section `[control_totals]`": site._ControlTotals,
    "`recipient.toml`, section `[recipient]`": home._Section,
    "`operator.toml`": operator._File,
    "`operator.toml`, section `[limits]`": operator._LimitsFile,
    "`sftp.toml`": sftp._File,
    "`sftp.toml`, section `[limits]`": sftp.SftpLimits,
    "`report.toml`": ReportTerms,
    "`calendar.toml`, each `[[period]]`": CalendarRow,
    "`federation.toml`": FederationSpec,
    "Dataset contract": DatasetContract,
    "Dataset contract, each column": Column,
    "Rule pack": RulePack,
    "Rule pack, each rule": Rule,
}


def keys(section: str) -> list[str]:
    rows = [line.split("|")[1] for line in SECTIONS[section].splitlines() if line.startswith("| `")]
    return [key for row in rows for key in re.findall(r"`([a-z_]+)`", row)]


def test_every_section_has_its_model() -> None:
    assert set(SECTIONS) == {*MODELS, "Airflow, section `[comity]`"}


@pytest.mark.parametrize("section", sorted(MODELS))
def test_the_keys_of_the_page_are_those_of_the_code(section: str) -> None:
    assert sorted(keys(section)) == sorted(MODELS[section].__struct_fields__)


@pytest.mark.parametrize("section", sorted(MODELS))
def test_unknown_keys_are_refused(section: str) -> None:
    assert MODELS[section].__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("section", sorted(MODELS))
def test_simple_defaults_are_the_documented_ones(section: str) -> None:
    model = MODELS[section]
    for line in SECTIONS[section].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| `") else []
        for name, shown in (
            zip(re.findall(r"`([a-z_]+)`", cells[0]), cells[1].split(", "), strict=False) if cells else ()
        ):
            default = next(field.default for field in msgspec.structs.fields(model) if field.name == name)
            if isinstance(default, (int, float)) and not isinstance(default, bool) and re.fullmatch(r"[0-9.]+", shown):
                assert float(shown) == float(default), f"{section}: {name}"
            elif isinstance(default, bool):
                assert shown.strip("`") == str(default).lower()


def test_the_providers_settings() -> None:
    options = get_provider_info()["config"]["comity"]["options"]
    assert sorted(keys("Airflow, section `[comity]`")) == sorted(options)
