"""The field's test sets: names, order, and who has seen what."""

from __future__ import annotations

import json

import pytest

from qmdd.models import zoo
from qmdd.runtime.errors import DataError
from qmdd.runtime.known_sets import (
    FORENSICS_MINI,
    FORENSYNTHS,
    PROGAN_CATEGORIES,
    SHARED_REALS,
    UNIVERSAL_FAKE_DETECT,
    Seen,
    display_name,
    find_seen,
    generators_from_record,
    in_order,
    is_known,
)

#: The heads of the paper's Tables 2 and 3.
TABLE_2 = "ProGAN StyleGAN StyleGAN2 BigGAN CycleGAN StarGAN GauGAN Deepfake"
TABLE_3 = "DALLE Glide_100_10 Glide_100_27 Glide_50_27 ADM LDM_100 LDM_200 LDM_200_cfg"


def test_names_and_order_are_the_papers() -> None:
    assert " ".join(FORENSYNTHS.table.values()) == TABLE_2
    assert " ".join(UNIVERSAL_FAKE_DETECT.table.values()) == TABLE_3
    assert len(FORENSYNTHS.table) + len(FORENSYNTHS.rest) == 13
    shuffled = ["zeta", "guided", "crn", "progan", "dalle", "alpha", "Deepfake"]
    assert in_order(shuffled) == ["progan", "Deepfake", "crn", "dalle", "guided", "alpha", "zeta"]


def test_folders_are_known_whatever_their_case() -> None:
    assert is_known("ProGAN")
    assert is_known("laion")
    assert not is_known("progan2")
    assert display_name("GUIDED") == "ADM"
    assert display_name("mine") == "mine"


def test_every_diffusion_set_has_its_real_images() -> None:
    users = [name for names in SHARED_REALS.values() for name in names]
    assert sorted(users) == sorted(UNIVERSAL_FAKE_DETECT.table)


def test_seen_as_given_counts_before_all_else() -> None:
    """Folder names and the paper's names, in any case."""
    present = ["progan", "guided", "mine"]
    found = find_seen(present, record=["progan"], given=["adm", "Mine"])
    assert found == Seen(frozenset({"guided", "mine"}), "given")
    assert find_seen(present, given=[]) == Seen(frozenset(), "given")
    with pytest.raises(DataError, match=r"no generator 'stylegan' .* there are progan, guided"):
        find_seen(present, given=["stylegan"])


def test_seen_by_the_record() -> None:
    present = ["progan", "stylegan", "mine"]
    assert find_seen(present, ["mine", "gone"]) == Seen(frozenset({"mine"}), "record")
    assert find_seen(present, ["other"]) == Seen(frozenset(), "record")


def test_categories_of_the_training_set_are_progan() -> None:
    """CNNDetection's training set is ProGAN's, in a folder for each of LSUN's categories."""
    assert len(PROGAN_CATEGORIES) == 20
    present = ["progan", "stylegan"]
    assert find_seen(present, ["car", "cat", "chair", "horse"]).names == {"progan"}
    # With anything else among them they are no more than names.
    assert find_seen(present, ["car", "mine"]).names == frozenset()
    assert find_seen(present, []).names == frozenset()


def test_seen_by_the_rule_only_among_known_sets() -> None:
    rule = FORENSYNTHS.training
    assert find_seen(["progan", "dalle"]) == Seen(frozenset({"progan"}), "rule", rule)
    assert find_seen(["dalle"]) == Seen(frozenset(), "rule", rule)
    assert find_seen(["progan", "mine"]) == Seen(None, "unknown")
    assert find_seen([]) == Seen(None, "unknown")


def test_forensics_mini_is_as_the_zoo_describes_it() -> None:
    """Its generators and which of them were in training; its rule is not the others'."""
    path = zoo.FOLDER / "data-forensics-mini.json"
    described = json.loads(path.read_text(encoding="utf-8"))["generators"]
    assert FORENSICS_MINI.table.keys() == described.keys()
    trained = {name for name, entry in described.items() if entry["trained"]}
    assert FORENSICS_MINI.seen == trained
    present = list(FORENSICS_MINI.table)
    assert find_seen(present) == Seen(frozenset(trained), "rule", FORENSICS_MINI.training)
    # Two rules at once are none.
    assert find_seen([*present, "progan"]) == Seen(None, "unknown")


def test_records() -> None:
    assert generators_from_record(None) is None
    assert generators_from_record('["a", "b"]') == ("a", "b")
    assert generators_from_record(["a"]) == ("a",)
    for bad in ("a, b", "{}", "3", "[" * 100_000, [1], [""], ["x" * 300], ["a"] * 10_001, 7):
        with pytest.raises(DataError, match="record of training generators is not"):
            generators_from_record(bad)
