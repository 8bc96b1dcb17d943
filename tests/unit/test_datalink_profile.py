"""Link profiles: the form is strict, the schedule is a sum."""

import pytest

from mpc_ops.errors import UsageError
from mpc_ops.transport.profile import LinkProfile, Pacer, parse_profile


@pytest.mark.parametrize(
    "text",
    ["", "80ms", "80ms:", ":300mbit", "80 ms:300mbit", "80ms:300mbit ", "-1ms:300mbit", "80ms:300", "80:300mbit",
     "80ms:300mbps", "80MS:300mbit", "1e2ms:300mbit", "80ms:300mbit:1", "8０ms:300mbit", "nanms:300mbit", "11s:300mbit",
     "80ms:7kbit", "80ms:1001gbit", "1234567ms:300mbit"],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_profile(text)
    assert caught.value.code == "LINK_PROFILE_INVALID"


@pytest.mark.parametrize(
    ("text", "rtt_s", "bytes_per_s"),
    [("80ms:300mbit", 0.08, 37.5e6), ("0ms:1gbit", 0.0, 125e6), ("250us:8kbit", 0.00025, 1e3),
     ("1.5s:0.5mbit", 1.5, 62500.0), ("10s:1000gbit", 10.0, 125e9)],
)  # fmt: skip
def test_profiles_are_read(text, rtt_s, bytes_per_s):
    assert parse_profile(text) == LinkProfile(pytest.approx(rtt_s), pytest.approx(bytes_per_s))


def test_bytes_leave_one_after_the_other_and_arrive_half_a_round_trip_later():
    pacer = Pacer(LinkProfile(0.08, 1000.0))
    assert pacer.due(5.0, 100) == pytest.approx(5.14)
    assert pacer.due(5.0, 200) == pytest.approx(5.34)  # waits until the first has left at 5.1
    assert pacer.due(5.2, 100) == pytest.approx(5.44)  # the line is busy until 5.3
    assert pacer.due(9.0, 1000) == pytest.approx(10.04)  # an idle line saves nothing up
