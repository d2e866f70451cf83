"""The built-in checkpoints: every record against its file, every card against its record."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmdd.models import CheckpointError, ModelError, zoo
from qmdd.models.checkpoint import FROZEN, Checkpoint
from qmdd.models.efficiency import config_cost
from qmdd.models.storage import stored_numbers
from qmdd.models.zoo_card import card, cards, zoo_dict, zoo_table
from qmdd.models.zoo_record import Mean, Record, Score, read_data, read_record

NAMES = [path.stem for path in zoo.builtin_checkpoints()]


def record_named(name: str) -> Record:
    return read_record(zoo.FOLDER / f"{name}.json")


@pytest.mark.parametrize("name", NAMES)
def test_the_record_is_of_its_checkpoint(name: str) -> None:
    path = zoo.FOLDER / f"{name}.safetensors"
    record, checkpoint = record_named(name), Checkpoint(path)
    assert record.sha256 == checkpoint.sha256()
    assert record.bytes == path.stat().st_size
    assert record.config == json.loads(checkpoint.config.to_json())
    assert name == f"{record.arch}-w{record.bits}a{record.bits}"
    assert record.recipe == json.loads(checkpoint.metadata["recipe"])
    assert checkpoint.form == FROZEN


@pytest.mark.parametrize("name", NAMES)
def test_the_records_counts_are_the_networks(name: str) -> None:
    checkpoint = Checkpoint(zoo.FOLDER / f"{name}.safetensors")
    record, cost = record_named(name), config_cost(checkpoint.config)
    assert record.parameters == cost.parameters
    assert record.multiply_adds == cost.multiply_adds
    assert record.ops == pytest.approx(cost.ops, rel=1e-12)
    assert record.side == cost.side == 256
    weights = [s for s in stored_numbers(checkpoint.detector()) if s.kind == "weights"]
    assert record.weights == sum(item.numbers for item in weights)
    tables_and_header = record.bytes - cost.bytes
    assert 0 < tables_and_header < 0.1 * record.bytes + 200_000


@pytest.mark.parametrize("name", NAMES)
def test_the_record_scores_every_generator_of_its_data(name: str) -> None:
    record = record_named(name)
    data = read_data(zoo.FOLDER, record.data)
    assert record.results.keys() == data.generators.keys()
    assert record.twin.keys() <= data.generators.keys()
    assert {data.seen(generator) for generator in data.generators} == {True, False}
    for score in record.results.values():
        # Both classes have as many images.
        assert score.acc == pytest.approx((score.real_acc + score.fake_acc) / 2)
        assert (score.acc * score.images) == pytest.approx(round(score.acc * score.images))


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_checkpoint(name: str, real_data: Path) -> None:
    """Measured again on the fakes of one generator: evaluation is exact, so not one may differ."""
    from qmdd.calibration.evaluate import scores_of
    from qmdd.runtime.folder import scan

    generator = "span_shuffle"
    fakes = [s for s in scan(real_data / "test") if s.generator == generator and s.label == 1]
    scores = scores_of(Checkpoint(zoo.FOLDER / f"{name}.safetensors").detector(), fakes)
    assert float((scores > 0.5).mean()) == record_named(name).results[generator].fake_acc


def test_every_card_is_made_of_its_record() -> None:
    made = cards()
    assert [path.stem for path in made] == NAMES
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/make_tables.py"
        assert zoo.card_of(path.stem) == text


def test_nothing_else_lies_in_the_folder() -> None:
    known = {f"{name}{end}" for name in NAMES for end in (".safetensors", ".json", ".md")}
    data = {f"data-{record_named(name).data}.json" for name in NAMES}
    assert {path.name for path in zoo.FOLDER.iterdir()} == known | data | {"card-template.md"}


def test_the_list_of_the_real_ones() -> None:
    found = zoo.entries()
    table = zoo_table(found)
    assert [row[0] for row in table.rows] == NAMES
    assert not table.notes
    for entry in found:
        assert entry.record is not None
        plain = json.loads(json.dumps(zoo_dict(entry)))
        assert plain["record"]["sha256"] == entry.record.sha256
        assert 0 < plain["mean"]["unseen"]["ap"] <= 1


@pytest.fixture
def record() -> Record:
    return record_named(NAMES[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record) -> Path:
    """A zoo of one, of which a test may change what it likes."""
    for path in (*zoo.FOLDER.glob("data-*.json"), *zoo.FOLDER.glob(f"{record.name}.*")):
        shutil.copy(path, tmp_path)
    shutil.copy(zoo.FOLDER / "card-template.md", tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    monkeypatch.setattr("qmdd.models.zoo_card.FOLDER", tmp_path)
    return tmp_path


def test_several_are_listed_each_with_its_own(folder: Path, record: Record) -> None:
    for bits in (3, 4):
        name = f"resnet23-w{bits}a{bits}"
        shutil.copy(folder / f"{record.name}.safetensors", folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(
            dataclasses.replace(record, name=name, parameters=bits).to_json()
        )
    rows = {row[0]: row for row in zoo_table(zoo.entries()).rows}
    assert len(rows) == 3
    assert [rows[f"resnet23-w{bits}a{bits}"][3] for bits in (3, 4)] == ["3", "4"]
    assert len(cards()) == 3


@pytest.mark.parametrize("state", ["altered", "no record"])
def test_a_file_without_its_own_record_has_no_scores(
    folder: Path, record: Record, state: str
) -> None:
    if state == "altered":
        with (folder / f"{record.name}.safetensors").open("ab") as stream:
            stream.write(b"\0")
    else:
        (folder / f"{record.name}.json").unlink()
    (entry,) = zoo.entries()
    assert entry.record is None
    assert entry.config["arch"] == record.arch
    table = zoo_table([entry])
    assert table.rows[0][-4:] == ("", "", "", "")
    assert table.notes == [f"{record.name}: {entry.problem}"]
    assert zoo_dict(entry)["mean"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("schema"), "schema 1"),
        (lambda r: r.update(schema=2), "schema 1"),
        (lambda r: r.pop("ops"), "missing or unknown: ops"),
        (lambda r: r.update(extra=1), "missing or unknown: extra"),
        (lambda r: r.update(sha256="0"), "sha256 is '0'"),
        (lambda r: r.update(bytes=-1), "bytes is '-1'"),
        (lambda r: r.update(bytes=True), "bytes is 'True'"),
        (lambda r: r.update(config={}), "config is"),
        (lambda r: r.update(data="../x"), "data is"),
        (lambda r: r.update(remarks="one"), "remarks is"),
        (lambda r: r.update(name="other"), "by another file's name"),
        (lambda r: r["results"]["dcgan_face"].update(acc=1.5), "acc is '1.5'"),
        (lambda r: r["results"]["dcgan_face"].update(ap=float("nan")), "ap is 'nan'"),
        (lambda r: r["results"]["dcgan_face"].pop("images"), "unknown: images"),
        (lambda r: r["twin"].update(x={"acc": 1}), "unknown: ap"),
    ],
)
def test_a_record_that_is_wrong_says_what(
    folder: Path, record: Record, change: Callable[[Any], object], message: str
) -> None:
    path = folder / f"{record.name}.json"
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(ModelError, match=message) as error:
        zoo.entries()
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, " " * (1 << 20) + "{}"])
def test_a_record_that_is_no_record(folder: Path, record: Record, text: str) -> None:
    (folder / f"{record.name}.json").write_text(text)
    with pytest.raises(ModelError, match=record.name):
        zoo.entries()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (31).to_bytes(8, "little") + b'{"__metadata__":{"config":"1"}}',
    ],
)
def test_a_file_that_is_no_checkpoint(folder: Path, record: Record, data: bytes) -> None:
    path = folder / f"{record.name}.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        zoo.entries()
    assert str(error.value).startswith(str(path))


def test_a_generator_that_is_not_described(folder: Path, record: Record) -> None:
    more = dataclasses.replace(record, results={"unheard": Score(2, 1.0, 1.0, 1.0, 1.0)})
    with pytest.raises(ModelError, match="no generator 'unheard'"):
        card(more, read_data(folder, record.data))


def test_a_record_can_be_read_back(tmp_path: Path, record: Record) -> None:
    more = dataclasses.replace(
        record, twin={"dcgan_face": Mean(0.5, 0.25)}, remarks=("a", "", "| b |"), trained="Long."
    )
    path = tmp_path / f"{record.name}.json"
    path.write_text(more.to_json())
    assert read_record(path) == more


def test_a_card_says_what_the_record_says(record: Record) -> None:
    data = read_data(zoo.FOLDER, record.data)
    other = dataclasses.replace(
        record,
        name="mobilenetv2-w4a4",
        config={**record.config, "arch": "mobilenetv2", "bits": 4, "slr": False, "cqb": False},
        bytes=1_234_567,
        recipe={"start": "mobilenetv2-fp32", "stages": [{"bits": 4, "lr": 0.001}], "seed": 7},
        results={
            "rdn_nearest": Score(80, 0.5, 0.25, 0.75, 0.25),
            "dcgan_face": Score(100, 0.7, 0.8, 0.9, 0.5),
            "style26_nearest": Score(100, 0.9, 0.6, 1.0, 0.8),
        },
        twin={},
        remarks=(),
        trained="",
    )
    text = card(other, data)
    assert text.startswith("# Model card: `mobilenetv2-w4a4`\n")
    assert "A MobileNetV2 deepfake detector on NPR, 4-bit weights" in text
    assert "(N2UQ), frozen" in text
    assert "in 1,234,567 bytes" in text
    assert "It starts from the weights of `mobilenetv2-fp32`." in text
    assert "| 1 | 4 | 0.001 |" in text
    assert "| **mean, seen** |  | 0.500 | 0.250 |" in text
    assert "| **mean, unseen** |  | 0.800 | 0.700 |" in text
    assert "twin" not in text
    assert "\n\n\n" not in text
    assert "$" not in text


def test_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name wins; a path is never a name."""
    monkeypatch.chdir(tmp_path)
    builtin = zoo.FOLDER / f"{NAMES[0]}.safetensors"
    assert zoo.checkpoint_named(Path(NAMES[0])) == builtin
    for other in (f"./x/{NAMES[0]}", "resnet23-w9a9", f"{NAMES[0]}.safetensors"):
        assert zoo.checkpoint_named(Path(other)) == Path(other)
    (tmp_path / NAMES[0]).write_bytes(b"")
    assert zoo.checkpoint_named(Path(NAMES[0])) == Path(NAMES[0])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=f"built in: .*did you mean '{NAMES[0]}'"):
        zoo.entry_of(NAMES[0] + "x")


def test_a_card_that_is_missing(folder: Path, record: Record) -> None:
    (folder / f"{record.name}.md").unlink()
    with pytest.raises(ModelError, match="card cannot be read"):
        zoo.card_of(record.name)
