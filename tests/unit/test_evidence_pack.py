"""The evidence pack: complete and accepted, and refused with the file's name for every kind of tampering."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityKey, Purpose
from mpc_ops.envelope.schema import decode, encode, to_plain
from mpc_ops.evidence.facts import Facts
from mpc_ops.evidence.pack import INDEX_TYPE, IndexedFile, PackIndex, build_pack, federation_files, write_pack
from mpc_ops.evidence.verify import verify_pack
from tests.support.evidence import MadeRun, make_pack, make_run
from tests.support.federation import RECIPIENT, SMALL, make_federation


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("run"), SMALL)


@pytest.fixture(scope="module")
def pack(run, tmp_path_factory) -> Path:
    return make_pack(run, tmp_path_factory.mktemp("pack") / "2026-03")


@pytest.fixture
def copy(pack, tmp_path) -> Path:
    return Path(shutil.copytree(pack, tmp_path / "copy"))


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def refused(folder: Path, federation: Path | None = None) -> tuple[str | None, str]:
    verdict = verify_pack(folder, federation)
    assert not verdict.ok
    assert verdict.words.startswith("REFUSED")
    return verdict.refused[0].file, verdict.refused[0].problems[0]


def test_a_whole_pack_is_accepted_and_says_where_the_keys_came_from(pack, run):
    verdict = verify_pack(pack)
    assert verdict.ok, [check.problems for check in verdict.refused]
    assert (verdict.run, verdict.report, verdict.period) == (run.run, "group_performance", "2026-03")
    assert verdict.outcome == "COMMITTED"
    assert run.made.federation.digest in verdict.trust
    assert "from the pack itself" in verdict.trust
    assert "compliant" not in " ".join(check.done for check in verdict.checks).lower()


def test_the_reviewers_own_terms_are_taken_as_a_folder_or_as_a_file(pack, run):
    for own in (run.made.folder, run.made.folder / "federation.json"):
        verdict = verify_pack(pack, own)
        assert verdict.ok
        assert "reviewer's own" in verdict.trust


def test_one_flipped_byte_of_any_file_is_refused_with_the_files_name(copy):
    names = files_of(copy)
    assert {"page.html", "README.txt", "index.json", "index.json.dsse", "facts.json"} <= set(names)
    for name in names:
        path = copy / name
        whole = path.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            flip(path, position)
            file, problem = refused(copy)
            assert file == name, (name, position, problem)
            path.write_bytes(whole)
    assert verify_pack(copy).ok


def test_every_byte_of_the_signed_index_counts_also_its_key_hint(copy):
    path = copy / "index.json.dsse"
    whole = path.read_bytes()
    hint = whole.index(b'"keyid":"') + len(b'"keyid":"')
    for position in [hint, hint + 5, whole.index(b'"sig":"') + 20, len(whole) - 8, *range(0, len(whole), 997)]:
        flip(path, position)
        assert refused(copy)[0] == "index.json.dsse", position
        path.write_bytes(whole)


def test_a_missing_and_an_added_file_are_refused(copy):
    (copy / "page.html").rename(copy / "page2.html")
    assert refused(copy) == ("page.html", "a file that the index names is missing")
    (copy / "page2.html").rename(copy / "page.html")
    (copy / "notices" / "state" / "extra.dsse").write_text("{}")
    assert refused(copy) == ("notices/state/extra.dsse", "a file is not in the index")
    (copy / "notices" / "state" / "extra.dsse").unlink()
    (copy / "link").symlink_to("/etc/hostname")
    assert refused(copy)[0] == "link"


def resign(folder: Path, key: IdentityKey, changes: dict[str, bytes | None]) -> None:
    """Change files and make an index that fits them, signed by `key`: what a dishonest recipient can do."""
    index = decode((folder / "index.json").read_bytes(), PackIndex, what="index")
    files = dict(index.files)
    for name, data in changes.items():
        if data is None:
            (folder / name).unlink()
            del files[name]
        else:
            (folder / name).write_bytes(data)
            files[name] = IndexedFile(size=len(data), sha256=sha256_hex(data))
    plain = to_plain(index) | {"files": {name: to_plain(file) for name, file in files.items()}}
    data = encode(PackIndex(**plain | {"files": files}))
    (folder / "index.json").write_bytes(data)
    (folder / "index.json.dsse").write_bytes(Envelope.sign(INDEX_TYPE, data, key, Purpose.EVIDENCE).to_bytes())


def test_a_page_that_does_not_follow_from_the_material_is_refused_even_if_signed(copy, run):
    page = (copy / "page.html").read_bytes().replace(b"no check failed", b"all well indeed")
    resign(copy, run.made.keys[RECIPIENT], {"page.html": page})
    assert refused(copy) == ("page.html", "the file does not follow from the signed material")


def test_altered_facts_are_refused_even_if_signed(copy, run):
    facts = (copy / "facts.json").read_bytes().replace(b"0 messages, 0 bytes", b"0 messages, 0 bits!")
    resign(copy, run.made.keys[RECIPIENT], {"facts.json": facts})
    assert refused(copy)[0] == "facts.json"


def test_a_notice_with_anothers_signature_is_refused_even_if_the_index_fits(copy, run):
    name = next(name for name in files_of(copy) if name.startswith("notices/state/"))
    envelope = Envelope.parse((copy / name).read_bytes())
    forged = Envelope(envelope.payload_type, envelope.payload).add_signature(IdentityKey.generate(), Purpose.NOTICE)
    resign(copy, run.made.keys[RECIPIENT], {name: forged.to_bytes()})
    file, problem = refused(copy)
    assert file == name
    assert "SIGNATURE_INVALID" in problem


def test_an_index_signed_by_a_stranger_is_refused(copy):
    resign(copy, IdentityKey.generate(), {})
    assert refused(copy)[0] == "index.json.dsse"


def test_a_pack_of_another_federation_is_refused(pack, tmp_path):
    other = make_federation(tmp_path, SMALL)
    file, problem = refused(pack, other.folder)
    assert file == "federation/federation.json"
    assert "other federation terms" in problem


@pytest.mark.parametrize("what", ["attestations", "ledgers"])
def test_a_missing_attestation_or_log_is_refused_and_the_operator_named(copy, run, what):
    resign(copy, run.made.keys[RECIPIENT], {f"{what}/ch-1.dsse": None})
    verdict = verify_pack(copy)
    assert not verdict.ok
    assert any("ch-1" in problem for check in verdict.refused for problem in check.problems)


def test_a_release_from_another_place_in_the_pack_is_refused(copy, run):
    name = next(name for name in files_of(copy) if name.startswith("notices/approval/"))
    data = (copy / name).read_bytes()
    resign(copy, run.made.keys[RECIPIENT], {"notices/approval/" + "0" * 64 + ".dsse": data})
    file, problem = refused(copy)
    assert file == "notices/approval/" + "0" * 64 + ".dsse"
    assert "another name" in problem


def test_a_pack_without_one_manifest_is_refused(copy, run):
    name = next(name for name in files_of(copy) if name.startswith("notices/manifest/"))
    resign(copy, run.made.keys[RECIPIENT], {name: None})
    assert "exactly one submission close" in refused(copy)[1]


def test_an_empty_folder_and_a_folder_that_is_no_pack(tmp_path):
    assert refused(tmp_path)[0] == "index.json"
    (tmp_path / "index.json").write_text("{}")
    assert refused(tmp_path)[0] == "index.json.dsse"


def test_page_four_compares_with_the_last_pack(run, tmp_path):
    first = make_pack(run, tmp_path / "one")
    previous = decode((first / "facts.json").read_bytes(), Facts, what="facts", limit_bytes=1 << 24)
    second = make_pack(run, tmp_path / "two", previous=previous)
    verdict = verify_pack(second)
    assert verdict.ok, verdict.refused
    assert "nothing changed in parties, rules" in (second / "page.html").read_text()


def test_a_pack_is_replaced_as_a_whole_and_no_other_folder_is(run, tmp_path):
    files = build_pack(run.evidence(), federation_files(run.made.folder), run.made.keys[RECIPIENT])
    write_pack(tmp_path / "p", files)
    write_pack(tmp_path / "p", files)
    assert files_of(tmp_path / "p") == sorted(files)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(Exception, match="FOLDER_NOT_EMPTY"):
        write_pack(tmp_path / "mine", files)
