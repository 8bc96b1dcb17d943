"""The running tag of a link: equal for equal transcripts only, and the whole past is in it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc_ops.randomness import encode_context
from mpc_ops.randomness.link_tag import TAG_BYTES, LinkTag

KEY = bytes(range(32))


def read(*messages, key=KEY):
    tag = LinkTag(key)
    for label, body in messages:
        tag.add(label, body)
    return tag.read()


def test_the_first_tag_is_aes_gcm_over_the_encoded_messages():
    body = bytes(range(100))
    spelt = encode_context("comity/link-tag/v1", 0, b"") + encode_context("step", len(body)) + body
    assert read(("step", body)) == AESGCM(KEY).encrypt(bytes(12), b"", spelt)


def test_a_later_tag_begins_with_the_one_before_and_has_the_next_nonce():
    tag = LinkTag(KEY)
    first = tag.read()
    spelt = encode_context("comity/link-tag/v1", 1, first)
    assert tag.read() == AESGCM(KEY).encrypt((1).to_bytes(12, "big"), b"", spelt)


def test_any_change_of_what_went_over_the_link_changes_the_tag():
    honest = [("a", b"one"), ("b", b"three")]
    others = [
        [],
        honest[:1],
        honest[::-1],
        [("a", b"one"), ("b", b"threE")],
        [("a", b"one"), ("b", b"thre")],
        [("ab", b"one"), ("b", b"three")],
        [("a", b"onethree"), ("b", b"")],
        [*honest, ("c", b"")],
    ]
    assert len({read(*messages) for messages in [honest, *others]}) == 1 + len(others)


def test_the_past_stays_in_every_later_tag():
    one, other = LinkTag(KEY), LinkTag(KEY)
    one.add("a", b"one")
    other.add("a", b"two")
    one.read(), other.read()
    one.add("b", b"same")
    other.add("b", b"same")
    assert one.read() != other.read()


def test_reading_twice_gives_two_tags_at_both_ends_alike():
    ends = [LinkTag(KEY), LinkTag(KEY)]
    reads = []
    for end in ends:
        end.add("a", memoryview(b"one"))
        reads.append((end.read(), end.read()))
    assert reads[0] == reads[1]
    assert reads[0][0] != reads[0][1]
    assert {len(tag) for tag in reads[0]} == {TAG_BYTES}


def test_another_key_gives_another_tag():
    assert read(("a", b"one")) != read(("a", b"one"), key=bytes(32))


@pytest.mark.parametrize("size", [0, 8, 33])
def test_a_key_of_another_length_is_refused(size):
    with pytest.raises(ValueError, match="Invalid key size"):
        LinkTag(bytes(size))


def test_nothing_is_shown():
    assert repr(LinkTag(KEY)) == "LinkTag(<redacted>)"
