"""Checkpoints on disk: nothing readable, nothing altered, nothing of another run; a program goes on after a crash."""

from __future__ import annotations

import pytest

from mpc_ops.errors import LocalProtocolError
from mpc_ops.protocol.circuits.products import multiply
from mpc_ops.protocol.core.checkpoint import run_steps
from mpc_ops.protocol.core.rows import Rows
from mpc_ops.server.checkpoints import FileKeeper, checkpoint_key
from tests.support.active import run_flow, share_ring, small_proofs

AMOUNTS = [7, 11, 13]


def keeper(folder, run="a" * 64, cluster="de"):
    return FileKeeper(folder / "run", checkpoint_key(folder / "checkpoint.key"), run=run, cluster=cluster)


def test_what_is_saved_comes_back_and_cannot_be_read_by_others(tmp_path):
    one = keeper(tmp_path)
    assert one.numbers() == []
    one.save(2, b"plaintext of shares" * 50)
    one.save(1, b"first")
    one.save(1, b"first, again")
    assert one.numbers() == [1, 2]
    assert one.read(1) == b"first, again"
    path = tmp_path / "run" / "2.checkpoint"
    assert b"plaintext" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "checkpoint.key").stat().st_mode & 0o777 == 0o600
    assert "plaintext" not in repr(one)


def test_altered_exchanged_foreign_and_missing_checkpoints_are_refused(tmp_path):
    one = keeper(tmp_path)
    one.save(1, b"first")
    one.save(2, b"second")
    path = tmp_path / "run" / "1.checkpoint"
    whole = path.read_bytes()
    (tmp_path / "run" / "3.checkpoint").write_bytes(whole)
    foreign = [keeper(tmp_path, run="b" * 64), keeper(tmp_path, cluster="cn")]
    for action in (lambda: one.read(3), lambda: one.read(9), lambda: foreign[0].read(1), lambda: foreign[1].read(1)):
        with pytest.raises(LocalProtocolError, match="gone or was altered"):
            action()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(LocalProtocolError, match="gone or was altered"):
            one.read(1)
    for short in (b"", whole[:5], whole[:12], whole[:-1]):
        path.write_bytes(short)
        with pytest.raises(LocalProtocolError, match="gone or was altered"):
            one.read(1)


def test_drafts_of_a_crash_do_not_count_and_erasing_takes_all(tmp_path):
    one = keeper(tmp_path)
    one.save(1, b"first")
    (tmp_path / "run" / ".2.checkpoint.4711").write_bytes(b"half")
    (tmp_path / "run" / "0.checkpoint").write_bytes(b"")
    assert one.numbers() == [1]
    one.save(2, b"second")
    one.drop(2)
    one.drop(9)
    assert one.numbers() == [1]
    one.erase()
    assert not (tmp_path / "run").exists()
    one.erase()
    assert one.numbers() == []


def test_more_than_one_piece_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mpc_ops.server.checkpoints.MAX_CHECKPOINT_BYTES", 4)
    one = keeper(tmp_path)
    with pytest.raises(LocalProtocolError, match="more than one checkpoint can hold"):
        one.save(1, b"12345")


def test_a_program_goes_on_from_disk_after_one_operator_died(tmp_path, monkeypatch):
    small_proofs(monkeypatch)

    def square(flow, rows):
        return rows.plus({"x": (yield from multiply(flow.stage, rows.ring("x"), rows.ring("x")))})

    def dies(flow, rows):
        if flow.stage.party == 1:
            raise LocalProtocolError("STAGE_ORDER", "killed here")
        return (yield from square(flow, rows))

    def run(steps, seed):
        shares = share_ring(AMOUNTS, seed)

        def program(flow):
            party = flow.stage.party
            kept = keeper(tmp_path / str(party))
            rows = yield from run_steps(flow, kept, "p" * 64, Rows({"x": shares[party]}), steps)
            return (yield from flow.open([rows.ring("x")]))

        return run_flow(program, seed=seed)

    for party in range(3):
        (tmp_path / str(party)).mkdir()
    assert run([square, square, dies], "first").errors
    assert [keeper(tmp_path / str(party)).numbers() for party in range(3)] == [[1, 2]] * 3

    def never(flow, rows):
        raise AssertionError("this step was accepted before")

    out = run([never, never, square], "second")
    assert not out.errors
    assert out.results[0][0].tolist() == [amount**8 for amount in AMOUNTS]
