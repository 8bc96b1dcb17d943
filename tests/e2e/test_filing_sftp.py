"""A filing over real SFTP: three server processes, endpoints and host keys from the signed directory."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from local_stores import filing
from mpc_ops.errors import ConfigError, PeerUnavailable
from mpc_ops.federation.assemble import add_directory
from mpc_ops.federation.cards import directory_entry
from mpc_ops.federation.pki import SshKey
from tests.support.federation import make_federation, make_plan
from tests.support.sftp import SftpSite
from tests.support.sites import Region, make_owner_site

PERIOD = "2026-03"
OWNER = "de-nord"


@dataclass
class SftpRegion(Region):
    servers: dict[str, SftpSite] = field(default_factory=dict)

    def inbox(self, operator: str) -> Path:
        return self.servers[operator].inbox(OWNER)

    def outbox(self, operator: str) -> Path:
        return self.servers[operator].outbox(OWNER)


def server_of(made, operator) -> SftpSite:
    keys = made.homes[operator] / "keys"
    home = made.homes[operator] / "sftp"
    home.mkdir()
    (home / "ssh_host").write_bytes((keys / "ssh_host_ed25519").read_bytes())
    (home / "ssh_host").chmod(0o600)
    host_key = SshKey(b"", (keys / "ssh_host_ed25519.pub").read_text().strip())
    return SftpSite(home, host_key, {OWNER: made.homes[OWNER] / "keys/ssh_client_ed25519"})


def publish_endpoints(made, servers, version):
    entries = [
        directory_entry(made.federation, made.homes[name], name, version, sftp=f"127.0.0.1:{server.port}")
        for name, server in servers.items()
    ]
    return add_directory(made.folder, entries)


@pytest.mark.e2e
def test_filing_over_real_sftp(tmp_path):
    made = make_federation(tmp_path / "f")
    plan = make_plan(made.federation)
    with ExitStack() as stack:
        servers = {name: server_of(made, name) for name in ("de-1", "de-2", "de-3")}
        for server in servers.values():
            stack.enter_context(server.running())
        made = replace(made, federation=publish_endpoints(made, servers, 2))
        one = make_owner_site(tmp_path / "site", made, plan, open_period=False)
        one.region = SftpRegion(made, OWNER, tmp_path / "region", servers=servers)
        one.region.open_period(plan, PERIOD)
        assert filing.check_release(*one.call, PERIOD)["edition"] == 1
        snapshots = {"sales_line": filing.take_snapshot(one.site, OWNER, "sales_line", PERIOD)}
        contribution = filing.local_plan(*one.call, PERIOD, snapshots)
        for name, key in one.signers().items():
            filing.sign_off(*one.call, PERIOD, signer=name, key=key)
        parcel = filing.share_and_seal(*one.call, PERIOD, contribution)
        for _ in range(2):
            already = [filing.deliver(one.site, OWNER, parcel, name)["already"] for name in servers]
        assert already == [True] * 3
        assert one.region.receive(plan).any()
        one.region.receipt(parcel["filing"])
        assert sorted(filing.receipts_ready(one.site, OWNER, parcel)["receipts"]) == list(servers)
    with pytest.raises(PeerUnavailable) as caught:
        filing.deliver(one.site, OWNER, parcel, "de-1")
    assert caught.value.transient


@pytest.mark.e2e
def test_filing_refuses_another_host_key(tmp_path):
    made = make_federation(tmp_path / "f")
    plan = make_plan(made.federation)
    server = SftpSite.make(made.homes["de-1"] / "sftp", (OWNER,))  # not the host key of the directory
    with server.running():
        made = replace(made, federation=publish_endpoints(made, {"de-1": server}, 2))
        one = make_owner_site(tmp_path / "site", made, plan, open_period=False)
        with pytest.raises(ConfigError, match="HOST_KEY_MISMATCH"):
            filing.sync_outbox(one.site, OWNER)
