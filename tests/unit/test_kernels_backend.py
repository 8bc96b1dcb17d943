"""Which kernels are used, what is said about it, and what the compiled ones refuse."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from mpc_ops import kernels
from mpc_ops.errors import ConfigError, LocalProtocolError
from mpc_ops.kernels import calls, choice
from mpc_ops.ring.field61 import P61
from tests.support.kernels import needs_compiled


@pytest.fixture(autouse=True)
def _undecided(monkeypatch):
    monkeypatch.setattr("mpc_ops.kernels.choice._chosen", None)
    monkeypatch.delenv("COMITY_KERNELS", raising=False)


def test_the_variable_decides(monkeypatch) -> None:
    monkeypatch.setenv("COMITY_KERNELS", "numpy")
    assert kernels.backend() == "numpy"
    monkeypatch.setenv("COMITY_KERNELS", "compiled")
    assert kernels.backend() == "numpy"  # decided once in a process
    assert not kernels.compiled()


def test_unset_takes_what_is_there(monkeypatch, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(calls, "PRESENT", True)
        assert kernels.backend() == "compiled"
    assert not caplog.records


def test_without_an_extension_numpy_works_and_says_so_once(monkeypatch, caplog) -> None:
    monkeypatch.setattr(calls, "PRESENT", False)
    with caplog.at_level(logging.WARNING):
        assert [kernels.backend(), kernels.backend()] == ["numpy", "numpy"]
    assert [record.message.split(":")[0] for record in caplog.records] == ["No compiled kernels here"]


def test_asking_for_numpy_is_no_matter_for_a_notice(monkeypatch, caplog) -> None:
    monkeypatch.setattr(calls, "PRESENT", False)
    monkeypatch.setenv("COMITY_KERNELS", "numpy")
    with caplog.at_level(logging.WARNING):
        assert kernels.backend() == "numpy"
    assert not caplog.records


@pytest.mark.parametrize(("value", "code"), [("compiled", "KERNELS_MISSING"), ("cuda", "KERNELS_UNKNOWN")])
def test_what_is_not_there_is_refused(monkeypatch, value: str, code: str) -> None:
    monkeypatch.setattr(calls, "PRESENT", False)
    monkeypatch.setenv("COMITY_KERNELS", value)
    with pytest.raises(ConfigError, match=code):
        kernels.backend()


def test_using_lasts_as_long_as_its_block(monkeypatch) -> None:
    monkeypatch.setenv("COMITY_KERNELS", "numpy")
    with choice.using("compiled"):
        assert kernels.compiled()
    assert not kernels.compiled()


W = np.zeros(512, dtype=np.uint64)
SIDE = (W, W, W)
WEIGHTS = np.zeros(64, dtype=np.uint64)
BAD_CALLS = {
    "short side": lambda: calls.and_cross(SIDE, (W, W, W[:511].copy())),
    "other type": lambda: calls.and_cross(SIDE, (W, W, W.view(np.int64))),
    "not contiguous": lambda: calls.and_cross(SIDE, (W, W, np.zeros(1024, dtype=np.uint64)[::2])),
    "no array": lambda: calls.field_dot(W, [0] * 512),
    "few coefficients": lambda: calls.and_fold(SIDE, WEIGHTS[:63].copy(), np.zeros((4, 512), np.uint64), right=False),
    "small output": lambda: calls.and_fold(SIDE, WEIGHTS, np.zeros((4, 511), np.uint64), right=False),
    "output is input": lambda: calls.and_words((W, W), (W, W), (W, W), W),
    "output overlaps": lambda: calls.to_planes(W, W.reshape(64, 8)),
    "lengths differ": lambda: calls.field_cross(W, W[:8].copy(), 8),
    "no lanes": lambda: calls.field_cross(W, W, 0),
    "too many lanes": lambda: calls.field_cross(W, W, 65),
    "no weights": lambda: calls.field_fold(W, WEIGHTS[:0]),
    "empty polynomial": lambda: calls.field_convolve(W[:0], W),
    "no element": lambda: calls.field_evaluate(W, P61),
    "negative": lambda: calls.field_powers(-1, 4),
    "negative count": lambda: calls.field_powers(1, -1),
    "odd words": lambda: calls.field_uniform(W[:5]),
    "wide planes": lambda: calls.to_planes(W[:64].copy(), np.zeros((65, 1), np.uint64)),
    "few planes words": lambda: calls.from_planes(np.zeros((3, 7), np.uint64), np.zeros(512, np.uint64)),
    "few columns of a key": lambda: calls.row_tags(np.zeros((3, 8), np.uint64), W[:2].copy(), np.zeros(512, np.uint64)),
    "tags overlap planes": lambda: calls.row_tags(W.reshape(64, 8), WEIGHTS, W),
    "no such level": lambda: calls.limit_level(3),
}


@needs_compiled
@pytest.mark.parametrize("name", BAD_CALLS)
def test_arguments_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="KERNEL_ARGUMENT"):
        BAD_CALLS[name]()


@needs_compiled
def test_a_read_only_output_is_refused() -> None:
    fixed = np.zeros(512, dtype=np.uint64)
    fixed.flags.writeable = False
    with pytest.raises((LocalProtocolError, BufferError, ValueError)):
        calls.and_words((W, W), (W, W), (W, W), fixed)
