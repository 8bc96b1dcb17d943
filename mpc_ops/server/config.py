"""An operator's home folder and its `operator.toml`: strict, unknown keys are refused.

```
operator.toml            this configuration
keys/                    identity.pem, sealing.key, tls/ (0600)
state/                   operator.sqlite (journal, ledger), periods/ (period keys), lock
spool/inbox/<owner>/     written by the SFTP server, read here
spool/outbox/<owner>/    written here, read by the owner through the SFTP server
```
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import from_plain
from mpc_ops.errors import ConfigError
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.federation.pki import write_public
from mpc_ops.ids import check_name

__all__ = ["Limits", "OperatorConfig", "create_operator_home", "load_config", "parse_address"]

_CONFIG_LIMIT = 64 << 10
_DEFAULT_LISTEN = "127.0.0.1:0"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds and intervals; every one has a default.

    Attributes:
        scan_s: pause between two looks into the spool.
        tick_s: pause between two looks at timers.
        ask_s: how often a session that waits for its peers asks again; doubles up to `ask_cap_s`.
        stage_timeout_s: a PREPARED attempt without progress for this long starts anew.
        stall_s: a run without progress for this long is shown as STALLED.
        settle_s: how long notices that a filing or manifest names may take to arrive before it is refused.
        max_part_bytes: largest sealed part.
        max_notices: most notices held in all; `max_notices_per_author` by one author.
        max_body_bytes: largest request body of the recipient's API.
    """

    scan_s: float = 0.2
    tick_s: float = 0.5
    ask_s: float = 2.0
    ask_cap_s: float = 30.0
    stage_timeout_s: float = 60.0
    stall_s: float = 60.0
    settle_s: float = 15.0
    max_part_bytes: int = 1 << 30
    max_notices: int = 500_000
    max_notices_per_author: int = 50_000
    max_body_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise ConfigError("CONFIG_INVALID", f"limit {item.name} must be positive")


class _LimitsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    scan_s: float | int = Limits.scan_s
    tick_s: float | int = Limits.tick_s
    ask_s: float | int = Limits.ask_s
    ask_cap_s: float | int = Limits.ask_cap_s
    stage_timeout_s: float | int = Limits.stage_timeout_s
    stall_s: float | int = Limits.stall_s
    settle_s: float | int = Limits.settle_s
    max_part_bytes: int = Limits.max_part_bytes
    max_notices: int = Limits.max_notices
    max_notices_per_author: int = Limits.max_notices_per_author
    max_body_bytes: int = Limits.max_body_bytes


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: Annotated[str, Meta(min_length=1, max_length=63)]
    federation: Annotated[str, Meta(min_length=1, max_length=4096)]
    link: Annotated[str, Meta(max_length=300)] = _DEFAULT_LISTEN
    api: Annotated[str, Meta(max_length=300)] = _DEFAULT_LISTEN
    spool: Annotated[str, Meta(min_length=1, max_length=4096)] = "spool"
    state: Annotated[str, Meta(min_length=1, max_length=4096)] = "state"
    keys: Annotated[str, Meta(min_length=1, max_length=4096)] = "keys"
    limits: _LimitsFile = _LimitsFile()


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """What `operator.toml` says, with absolute paths.

    Attributes:
        link, api: (host, port) to listen on; port 0 lets the system choose. `api` is used by group operators only.
    """

    id: str
    home: Path
    federation: Path
    link: tuple[str, int]
    api: tuple[str, int]
    spool: Path
    state: Path
    keys: Path
    limits: Limits


def parse_address(text: str, what: str) -> tuple[str, int]:
    """Split `host:port`; raise ConfigError CONFIG_INVALID."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError("CONFIG_INVALID", f"{what} is not an address", expected="host:port", got=repr(text[:80]))
    return host.strip("[]"), int(port)


def load_config(home: Path) -> OperatorConfig:
    """Read `operator.toml` of a home folder.

    Raises:
        ConfigError: FILE_MISSING, CONFIG_INVALID, SCHEMA_INVALID (unknown key or wrong type), NAME_INVALID.
    """
    path = home / "operator.toml"
    data = read_file(path, limit_bytes=_CONFIG_LIMIT)
    try:
        plain: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # tomllib names line and column only
        raise ConfigError("CONFIG_INVALID", "not valid TOML", got=str(error)[:120], ids={"file": str(path)}) from None
    file = from_plain(plain, _File, what="operator.toml")
    home = home.resolve()
    return OperatorConfig(
        id=check_name(file.id, "operator id"),
        home=home,
        federation=(home / file.federation).resolve(),
        link=parse_address(file.link, "link"),
        api=parse_address(file.api, "api"),
        spool=(home / file.spool).resolve(),
        state=(home / file.state).resolve(),
        keys=(home / file.keys).resolve(),
        limits=Limits(**msgspec.structs.asdict(file.limits)),
    )


def create_operator_home(
    home: Path,
    operator: str,
    federation: Path,
    *,
    link: str = _DEFAULT_LISTEN,
    api: str = _DEFAULT_LISTEN,
    limits: dict[str, float] | None = None,
) -> OperatorConfig:
    """Write `operator.toml` and make the folders of an operator's home; keys are made by `comity federation keys`.

    Args:
        home: folder of the operator, may hold its keys already.
        operator: id in the federation terms.
        federation: federation folder; the owners' spool folders are made from its membership list.
        link: `host:port` for party links; port 0 lets the system choose.
        api: the same for the recipient's API of a group operator.
        limits: entries of the `[limits]` table that differ from the defaults.

    Raises:
        ConfigError: CONFIG_EXISTS, PARTY_UNKNOWN and whatever loading the federation raises.
    """
    path = home / "operator.toml"
    if path.exists():
        raise ConfigError("CONFIG_EXISTS", "the home folder has a configuration already", ids={"file": str(path)})
    loaded = Federation.load(federation)
    if operator not in loaded.terms.operators:
        raise ConfigError("PARTY_UNKNOWN", "no such operator in this federation", ids={"operator": operator})
    for folder in ("state", "spool/inbox", "spool/outbox"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "state").chmod(0o700)
    lines = [
        f"id = {json.dumps(operator)}",
        f"federation = {json.dumps(str(federation.resolve()))}",
        f"link = {json.dumps(link)}",
        f"api = {json.dumps(api)}",
    ]
    if limits:
        lines += ["", "[limits]", *(f"{name} = {value}" for name, value in sorted(limits.items()))]
    write_public(path, ("\n".join(lines) + "\n").encode("utf-8"))
    return load_config(home)
