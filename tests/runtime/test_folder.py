"""The field's folder layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qmdd.runtime.errors import DataError
from qmdd.runtime.folder import Sample, digest, scan


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_flat_and_nested_layouts(image_folder: Path) -> None:
    """``alpha/0_real`` and ForenSynths' ``beta/cat/0_real``: the first folder is the generator."""
    samples = scan(image_folder)
    assert len(samples) == 12
    assert [s.path for s in samples] == sorted(s.path for s in samples)
    for label, name in enumerate(("0_real", "1_fake")):
        for generator, folder in (("alpha", "alpha"), ("beta", "beta/cat")):
            want = [
                Sample(image_folder / folder / name / f"{i}.png", label, generator)
                for i in range(3)
            ]
            assert [s for s in samples if (s.label, s.generator) == (label, generator)] == want


def test_a_single_generators_folder(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--data alpha`` itself, or ``.`` from inside: the generator takes the folder's name."""
    monkeypatch.chdir(image_folder / "alpha")
    assert {s.generator for s in scan(".")} == {"alpha"}
    samples = scan(image_folder / "alpha")
    assert {s.generator for s in samples} == {"alpha"}
    assert [s.label for s in samples] == [0, 0, 0, 1, 1, 1]


def test_only_images_in_class_folders_count(tmp_path: Path) -> None:
    """Notes, images elsewhere and folders that merely sound alike are left out."""
    _touch(
        tmp_path,
        "gan/0_real/a.png",
        "gan/0_real/deep/b.JPEG",
        "gan/1_fake/c.webp",
        "gan/1_fake/notes.txt",
        "gan/2_other/d.png",
        "gan/0_realistic/e.png",
        "cover.png",
    )
    found = [(s.path.name, s.label) for s in scan(str(tmp_path))]
    assert found == [("a.png", 0), ("b.JPEG", 0), ("c.webp", 1)]


@pytest.mark.parametrize(("kept", "missing"), [("0_real", "1_fake"), ("1_fake", "0_real")])
def test_a_class_without_images(kept: str, missing: str, tmp_path: Path) -> None:
    """Training on one class is pointless; the message names the other."""
    _touch(tmp_path, f"gan/{kept}/a.png")
    (tmp_path / "gan" / missing).mkdir()
    with pytest.raises(DataError, match=f"no image in any {missing} folder"):
        scan(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    """Missing, a file, empty, and images in no layout at all: each says what is expected."""
    with pytest.raises(DataError, match="no such folder; --data takes <generator>/0_real"):
        scan(tmp_path / "none")
    _touch(tmp_path, "file.png")
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "file.png")
    with pytest.raises(DataError, match="no images in the layout <generator>/0_real"):
        scan(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in the layout"):
        scan(tmp_path / "empty")


def test_digest_tells_data_apart(image_folder: Path, tmp_path: Path) -> None:
    """The same wherever the folder lies; another with a file renamed, resized or gone."""
    copy = tmp_path / "copy"
    shutil.copytree(image_folder, copy)
    first = digest(image_folder, scan(image_folder))
    assert digest(copy, scan(copy)) == first
    assert digest(str(copy), scan(str(copy))) == first

    seen = {first}
    victim = copy / "alpha" / "0_real" / "0.png"
    victim.write_bytes(victim.read_bytes() + b"\0")
    seen.add(digest(copy, scan(copy)))
    victim.rename(victim.with_name("00.png"))
    seen.add(digest(copy, scan(copy)))
    victim.with_name("00.png").unlink()
    seen.add(digest(copy, scan(copy)))
    assert len(seen) == 4


def test_the_real_data_set_is_in_the_layout(real_data: Path) -> None:
    """Every generator of every split has both classes."""
    for split in ("train", "val", "test"):
        samples = scan(real_data / split)
        for generator in {s.generator for s in samples}:
            assert {s.label for s in samples if s.generator == generator} == {0, 1}
