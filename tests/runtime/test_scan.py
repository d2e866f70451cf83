"""A collection to Parquet: every input once, whatever happens in between."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image

from qmdd.runtime import find_inputs
from qmdd.runtime.errors import ScanError
from qmdd.runtime.files import locked, sha256_of
from qmdd.runtime.inputs import Input
from qmdd.runtime.scan import scan as scan_module
from qmdd.runtime.scan import work as work_module
from qmdd.runtime.scan.listing import Part, read_part, write_listing
from qmdd.runtime.scan.scan import ScanResult, scan
from qmdd.runtime.verdicts import score_from_logit

#: Scores of the tiny model: its logits are (255 - 128) / 32 and -128 / 32.
WHITE, BLACK = score_from_logit(127 / 32), score_from_logit(-4)


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images, white and black in turn, and one that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        level = 255 * (number % 2)
        Image.new("RGB", (40, 40), (level,) * 3).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def run(bundle: Path, photos: Path, tmp_path: Path) -> Callable[..., ScanResult]:
    """Scan the photos, in parts of three, on one core."""

    def go(*given: object, **options: Any) -> ScanResult:
        inputs = find_inputs([str(path) for path in given or (photos,)])
        return scan(bundle, inputs, tmp_path / "results", **{"part": 3, "threads": 1, **options})

    return go


def _rows(results: Path) -> list[dict[str, Any]]:
    table = pyarrow.dataset.dataset(results / "parts", format="parquet").to_table()
    return sorted(table.to_pylist(), key=lambda row: row["input"])


def _parts(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (results / "parts").iterdir()}


def test_every_input_is_a_row(run, bundle: Path, photos: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    result = run(report=lambda *args: said.append(args))
    assert (result.files, result.failed, result.fake) == (11, 1, 5)
    assert (result.parts, result.kept, result.damaged) == (4, 0, 0)
    assert json.loads(json.dumps(result.to_dict()))["files"] == 11
    rows = _rows(tmp_path / "results")
    assert [row["input"] for row in rows] == list(range(11))
    assert [row["path"] for row in rows] == [str(p) for p in sorted(photos.iterdir())]
    assert [row["path_bytes"] for row in rows] == [os.fsencode(row["path"]) for row in rows]
    assert [row["verdict"] for row in rows] == ["real", "fake"] * 5 + [None]
    assert [row["score"] for row in rows[:10]] == [BLACK, WHITE] * 5
    assert rows[10]["score"] is None
    assert str(photos / "bad.png") in rows[10]["error"]
    assert {row["bundle"] for row in rows} == {sha256_of(bundle / "manifest.json")}
    assert said[-1] == ("scanning", 11, 11)
    record = json.loads((tmp_path / "results" / "scan.json").read_text())
    assert (record["scan"]["files"], record["scan"]["threshold"]) == (11, 0.5)


def test_the_columns_are_typed(run, tmp_path: Path) -> None:
    """Also where a part holds no value of a kind: every file has the same types."""
    run()
    kinds = [pq.read_schema(path) for path in sorted((tmp_path / "results" / "parts").iterdir())]
    text, count = pa.string(), pa.int64()
    assert all(kind.equals(kinds[0]) for kind in kinds)
    assert dict(zip(kinds[0].names, kinds[0].types, strict=True)) == {
        "input": count,
        "path": text,
        "path_bytes": pa.binary(),
        "score": pa.float64(),
        "verdict": text,
        "error": text,
        **dict.fromkeys(("frames", "fake_frames", "decoded", "broken"), count),
        "first_broken": text,
        "bundle": text,
    }


def test_videos_say_what_they_stand_on(run, tmp_path: Path, make_video) -> None:
    video = make_video(tmp_path / "a.mkv", [255, 255, 0, 0, 255])
    run(video, every=1)
    (row,) = _rows(tmp_path / "results")
    assert (row["frames"], row["fake_frames"], row["decoded"], row["broken"]) == (5, 3, 5, 0)
    assert row["verdict"] == "fake"


def test_the_same_again_does_nothing_more(run, tmp_path: Path, monkeypatch) -> None:
    run()
    before = _parts(tmp_path / "results")
    monkeypatch.setattr(scan_module, "open_detector", None)  # no model is loaded for it
    again = run()
    assert (again.files, again.failed, again.fake, again.kept) == (11, 1, 5, 4)
    assert _parts(tmp_path / "results") == before


def test_names_of_all_kinds(run, photos: Path, tmp_path: Path) -> None:
    """A line end, quotes, and bytes that are no text."""
    names = [b"a\nb.png", b'it\'s "quoted".png', b"\xff\xfe.png", "ä\u2028.png".encode()]
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in names:
        (folder / os.fsdecode(name)).symlink_to(photos / "1.png")
    (folder / os.fsdecode(b"\xfe-bad.png")).write_bytes(b"no image")
    run(folder)
    rows = _rows(tmp_path / "results")
    raw = {row["path_bytes"].rpartition(b"/")[2]: row for row in rows}
    assert raw.keys() == {*names, b"\xfe-bad.png"}
    assert [raw[name]["verdict"] for name in names] == ["fake"] * 4
    assert raw[b"\xff\xfe.png"]["path"].endswith("/\ufffd\ufffd.png")
    assert "\ufffd-bad.png" in raw[b"\xfe-bad.png"]["error"]
    assert run(folder).kept == 2


def test_what_was_given_and_is_no_file(run, photos: Path, tmp_path: Path) -> None:
    """Each is a row with an error, and the same file given twice is two."""
    result = run(
        tmp_path / "gone.png", f"{tmp_path}/none-*.png", photos / "1.png", photos / "1.png"
    )
    assert (result.files, result.failed) == (4, 2)
    rows = _rows(tmp_path / "results")
    assert "none matches it as a pattern" in rows[1]["error"]
    assert [row["verdict"] for row in rows] == [None, None, "fake", "fake"]


def test_relative_paths_are_of_this_folder(
    run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    run("1.png")
    assert _rows(tmp_path / "results")[0]["path"] == str(photos / "1.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScanError, match="a collection that has changed"):
        run("1.png")


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the scan break when so many parts have been written."""
    write = work_module.write_part

    def after(count: int) -> None:
        numbers = itertools.count()

        def written(*args: Any, **options: Any) -> Any:
            if next(numbers) == count:
                raise Interrupted
            return write(*args, **options)

        monkeypatch.setattr(work_module, "write_part", written)

    return after


@pytest.mark.parametrize("done", [0, 1, 3])
def test_an_interrupted_scan_goes_on(run, interrupt, tmp_path: Path, done: int) -> None:
    """The parts that are there stay, byte for byte, and the rows are those of an unbroken scan."""
    interrupt(done)
    with pytest.raises(Interrupted):
        run()
    results = tmp_path / "results"
    before = _parts(results)
    assert len(before) == done
    (results / "parts" / f".part-0000001.parquet.{'0' * 16}").write_bytes(b"half")
    interrupt(99)
    result = run()
    assert (result.files, result.kept, result.damaged) == (11, done, 0)
    after = _parts(results)
    assert {name: after[name] for name in before} == before
    assert len(after) == 4
    assert [row["input"] for row in _rows(results)] == list(range(11))


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty", "folder"])
def test_a_damaged_part_is_done_again(run, tmp_path: Path, damage: str) -> None:
    run()
    results = tmp_path / "results"
    before, path = _parts(results), results / "parts" / "part-0000001.parquet"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "flipped":  # in the middle of the scores
        place = data.index(np.float64(_rows(results)[3]["score"]).tobytes())
        data[place] ^= 1
        path.write_bytes(data)
    elif damage == "other":
        path.write_bytes(before["part-0000002.parquet"])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        (results / "parts" / "part-0000001.parquet").symlink_to(results / "gone")
    result = run()
    assert (result.kept, result.damaged, result.files) == (3, 1, 11)
    assert _parts(results) == before


def test_another_scan_is_not_mixed_in(
    run, make_bundle, tiny_manifest, photos: Path, tmp_path: Path
) -> None:
    run()
    results = tmp_path / "results"
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    other = make_bundle({**tiny_manifest(), "arch": "resnet50"}, name="other")
    inputs = list(find_inputs([str(photos)]))
    with pytest.raises(ScanError, match=r"another bundle; choose another --output, or .*--force"):
        scan(other, inputs, results, part=3)
    for options, said in (
        ({"threshold": 0.7}, r"another threshold \(0\.5\)"),
        ({"every": 3}, r"another --every \(10\)"),
        ({"part": 4}, r"parts of another size \(3\)"),
    ):
        with pytest.raises(ScanError, match=said):
            run(**options)
    Image.new("RGB", (40, 40)).save(photos / "new.png")
    with pytest.raises(ScanError, match=r"another collection \(11 files\)"):
        run()
    (photos / "bad.png").unlink()
    with pytest.raises(ScanError, match="a collection that has changed"):
        run()
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
    result = run(force=True)
    assert (result.files, result.failed, result.kept) == (11, 0, 0)


def test_other_folders_are_not_touched(run, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "thesis.tex").write_text("mine")
    for force in (False, True):
        with pytest.raises(ScanError, match=r"holds other files \(thesis\.tex\)"):
            run(force=force)
    assert [path.name for path in results.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"schema": 1, "scan": {"a": 1}}'])
def test_a_record_that_is_none(run, tmp_path: Path, text: str) -> None:
    run()
    record = tmp_path / "results" / "scan.json"
    record.write_text(text)
    with pytest.raises(ScanError, match="no record of a scan"):
        run()
    record.write_text('{"schema": 2}')
    with pytest.raises(ScanError, match="of another qmdd"):
        run()
    assert run(force=True).kept == 0
    record.unlink()  # a scan that was killed while it began, or while it was taken away
    assert run().kept == 0


@pytest.mark.parametrize(
    ("field", "value"), [("files", "many"), ("files", [1]), ("runtime", 3), ("threshold", "0.5")]
)
def test_a_record_with_a_field_of_another_kind(run, tmp_path: Path, field: str, value) -> None:
    run()
    record = tmp_path / "results" / "scan.json"
    plain = json.loads(record.read_text())
    plain["scan"][field] = value
    record.write_text(json.dumps(plain))
    with pytest.raises(ScanError, match="no record of a scan"):
        run()
    assert json.loads(record.read_text()) == plain


def test_two_scans_at_once(run, tmp_path: Path) -> None:
    run()
    with locked(tmp_path / "results"), pytest.raises(ScanError, match="another scan is writing"):
        run()


def test_nothing_to_scan(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no image or video found"):
        scan(bundle, [], tmp_path / "results")
    with pytest.raises(ScanError, match="part=0"):
        scan(bundle, [Input(Path("a.png"))], tmp_path / "results", part=0)


def test_a_list_that_was_damaged(tmp_path: Path) -> None:
    path = tmp_path / "inputs"
    listing = write_listing(path, [Input(Path("/a"), "why\0not"), Input(Path("/b\n"))], 1)
    assert [part.files for part in listing.parts] == [1, 1]
    assert read_part(path, listing.parts[0]) == [Input(Path("/a"), "why?not")]
    assert read_part(path, listing.parts[1]) == [Input(Path("/b\n"))]
    path.write_bytes(b"/a\0\0/b")
    with pytest.raises(ScanError, match="damaged"):
        read_part(path, listing.parts[1])
    with pytest.raises(ScanError, match="damaged"):
        read_part(path, Part(0, 0, 2, 0, 3))


def test_a_folder_that_changes_meanwhile(
    run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was listed is scored: a file that is gone is a row with an error, a new one is none."""
    opened = scan_module.open_detector

    def change(*args: Any) -> Any:
        (photos / "9.png").unlink()
        Image.new("RGB", (40, 40)).save(photos / "new.png")
        return opened(*args)

    monkeypatch.setattr(scan_module, "open_detector", change)
    result = run()
    assert (result.files, result.failed) == (11, 2)
    assert "9.png" in _rows(tmp_path / "results")[9]["error"]


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    """What stays in memory of 60,000 paths are their parts."""

    given = [Input(Path(f"/a/rather/long/folder/{number:09d}.jpg")) for number in range(100)]
    tracemalloc.start()
    try:
        listing = write_listing(
            tmp_path / "inputs", itertools.chain.from_iterable([given] * 600), 500
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (listing.files, len(listing.parts)) == (60_000, 120)
    assert (tmp_path / "inputs").stat().st_size > 2 << 20
    assert peak < 1 << 19


def test_without_pyarrow(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ScanError, match=r"pyarrow is not installed; run: pip install 'qmdd\[scan"):
        run()


def test_a_part_of_millions_of_rows_is_not_read(run, tmp_path: Path, monkeypatch) -> None:
    """It takes some kilobytes, and would take gigabytes of memory: it is done again unread."""
    run()
    part = min((tmp_path / "results" / "parts").iterdir())
    wanted = pq.read_schema(part)
    rows = pa.concat_tables([pq.read_table(part)] * 20_000)
    pq.write_table(rows.replace_schema_metadata(wanted.metadata), part, compression="zstd")
    read = []
    whole = pq.ParquetFile.read

    def counted(file, *given, **named):
        read.append(file.metadata.num_rows)
        return whole(file, *given, **named)

    monkeypatch.setattr(pq.ParquetFile, "read", counted)
    assert run().damaged == 1
    assert max(read, default=0) < 100
