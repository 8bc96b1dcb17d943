"""Configuration of the embedded SFTP server: TOML, strict, every limit with a default and a unit.

```
listen_host = "127.0.0.1"
listen_port = 0                # 0: the system chooses; the READY line tells
host_key = "keys/ssh_host"     # relative to this file; OpenSSH Ed25519 private key, mode 0600
spool = "spool"

[[accounts]]
name = "de-a"                  # the owner's id
keys = ["ssh-ed25519 AAAA..."] # one or two, as pinned in the directory

[limits]
max_file_bytes = 1073741824
```
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mpc_ops.envelope.schema import from_plain
from mpc_ops.errors import ConfigError
from mpc_ops.federation.pki import ssh_fingerprint
from mpc_ops.ids import check_name

__all__ = ["SftpConfig", "SftpLimits", "load_config"]

_CONFIG_LIMIT = 16 << 20  # room for thousands of owners

_Count = Annotated[int, Meta(ge=1, le=1 << 48)]
_Seconds = Annotated[float, Meta(gt=0, le=86400)]


class SftpLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds on what strangers may use.

    Attributes:
        max_file_bytes: largest file of the inbox, bytes.
        max_account_bytes: all files of one account's inbox together, bytes.
        max_account_files: number of files in one account's inbox.
        min_free_bytes: free space of the spool's disk below which nothing is taken (DISK_FULL), bytes.
        max_connections: connections at once, authenticated or not.
        max_account_connections: authenticated connections at once of one account.
        auth_s: seconds from connecting to being authenticated.
        idle_s: seconds without a request, or without progress of an answer, until a connection ends.
    """

    max_file_bytes: _Count = 1 << 30
    max_account_bytes: _Count = 8 << 30
    max_account_files: _Count = 20_000
    min_free_bytes: Annotated[int, Meta(ge=0, le=1 << 48)] = 256 << 20
    max_connections: _Count = 64
    max_account_connections: _Count = 8
    auth_s: _Seconds = 20.0
    idle_s: _Seconds = 300.0


class _Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    keys: Annotated[list[Annotated[str, Meta(max_length=400)]], Meta(min_length=1, max_length=2)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    host_key: Annotated[str, Meta(min_length=1, max_length=4096)]
    spool: Annotated[str, Meta(min_length=1, max_length=4096)]
    listen_host: Annotated[str, Meta(min_length=1, max_length=253)] = "127.0.0.1"
    listen_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    accounts: Annotated[list[_Account], Meta(max_length=20_000)] = []
    limits: SftpLimits = SftpLimits()


@dataclass(frozen=True, kw_only=True)
class SftpConfig:
    """What the file says, with absolute paths.

    Attributes:
        accounts: fingerprints (`SHA256:...`) of the pinned Ed25519 keys, by account.
    """

    listen_host: str
    listen_port: int
    host_key: Path
    spool: Path
    accounts: dict[str, frozenset[str]] = field(default_factory=dict)
    limits: SftpLimits = field(default_factory=SftpLimits)


def load_config(path: Path) -> SftpConfig:
    """Read the configuration file.

    Raises:
        ConfigError: FILE_MISSING, CONFIG_INVALID, SCHEMA_INVALID, NAME_INVALID, KEY_INVALID, ACCOUNT_TWICE.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_LIMIT + 1)
    except OSError:
        raise ConfigError("FILE_MISSING", "a file cannot be read", ids={"file": str(path)}) from None
    if len(data) > _CONFIG_LIMIT:
        raise ConfigError("CONFIG_INVALID", "the file is too long", expected=f"at most {_CONFIG_LIMIT} bytes")
    try:
        plain = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError("CONFIG_INVALID", "not valid TOML", got=str(error)[:120], ids={"file": str(path)}) from None
    parsed = from_plain(plain, _File, what="the SFTP server's configuration")
    home = path.resolve().parent
    accounts: dict[str, frozenset[str]] = {}
    for account in parsed.accounts:
        if check_name(account.name, "account") in accounts:
            raise ConfigError("ACCOUNT_TWICE", "an account is listed twice", got=account.name)
        accounts[account.name] = frozenset(ssh_fingerprint(key) for key in account.keys)
    return SftpConfig(
        listen_host=parsed.listen_host,
        listen_port=parsed.listen_port,
        host_key=home / parsed.host_key,
        spool=home / parsed.spool,
        accounts=accounts,
        limits=parsed.limits,
    )
