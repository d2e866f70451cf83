"""The field's folder layout."""

from __future__ import annotations

import os
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


def test_digest_of_names_that_are_no_text(image_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(image_folder, copy)
    victim = copy / "alpha" / "0_real" / "0.png"
    seen = {digest(copy, scan(copy))}
    for name in (b"\xff.png", b"\xfe.png"):
        victim = victim.rename(victim.with_name(os.fsdecode(name)))
        seen.add(digest(copy, scan(copy)))
    assert len(seen) == 3


def test_the_real_data_set_is_in_the_layout(real_data: Path) -> None:
    """Every generator of every split has both classes."""
    for split in ("train", "val", "test"):
        samples = scan(real_data / split)
        for generator in {s.generator for s in samples}:
            assert {s.label for s in samples if s.generator == generator} == {0, 1}


def test_known_generators_lie_deeper_too(tmp_path: Path) -> None:
    """``diffusion_datasets/guided``, both sets below one folder; other nesting is a category."""
    _touch(
        tmp_path,
        "diffusion_datasets/guided/0_real/a.png",
        "diffusion_datasets/guided/1_fake/a.png",
        "Foren/ProGAN/cat/0_real/a.png",
        "mine/deep/0_real/a.png",
    )
    assert {s.generator for s in scan(tmp_path)} == {"guided", "ProGAN", "mine"}


@pytest.mark.parametrize("split", ["train", "VAL", "test"])
def test_splits_are_no_generators(split: str, tmp_path: Path) -> None:
    """A level too high would mix training and test images; the message names the folder to give."""
    _touch(tmp_path, f"{split}/gan/0_real/a.png", f"{split}/gan/1_fake/a.png")
    with pytest.raises(DataError, match=f"holds splits, not generators; .*--data .*/{split}"):
        scan(tmp_path)
    assert len(scan(tmp_path / split)) == 2


def test_a_split_or_a_category_of_that_name_without_generators(tmp_path: Path) -> None:
    """``train/0_real``: ForenSynths has a category ``train``."""
    _touch(tmp_path, "train/0_real/a.png", "train/1_fake/a.png")
    assert {s.generator for s in scan(tmp_path)} == {"train"}


def test_one_generator_in_two_places(tmp_path: Path) -> None:
    _touch(tmp_path, "a/progan/0_real/a.png", "b/progan/1_fake/a.png")
    with pytest.raises(DataError, match=r"progan lies in .*/a/progan and in .*/b/progan"):
        scan(tmp_path)


def test_the_wrong_layout_is_shown(tmp_path: Path) -> None:
    """Other names of the class folders: the message names an image that was found there."""
    _touch(tmp_path, "gan/real/a.png", "gan/fake/b.png")
    with pytest.raises(DataError, match=r"no images in the layout .*gan/fake/b\.png is in neither"):
        scan(tmp_path)


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images would be missing without a word."""
    _touch(tmp_path, "gan/0_real/a.png", "gan/1_fake/a.png")
    closed = tmp_path / "gan" / "2_closed"
    closed.mkdir()
    monkeypatch.setattr(
        "qmdd.runtime.folder.find_images",
        lambda given: [tmp_path / "gan/0_real/a.png", tmp_path / "gan/1_fake/a.png", closed],
    )
    with pytest.raises(DataError, match="2_closed: this folder may not be listed"):
        scan(tmp_path)


def _release(root: Path) -> None:
    """UniversalFakeDetect as its authors release it: real images in folders of their own."""
    _touch(root, "imagenet/0_real/1.png", "laion/0_real/1.png", "laion/0_real/2.png")
    _touch(root, "guided/1_fake/1.png", "dalle/1_fake/1.png", "ldm_100/1_fake/1.png")


def test_shared_real_images(tmp_path: Path) -> None:
    """``guided`` against imagenet, the others against laion; none of the two is a generator."""
    _release(tmp_path)
    found = scan(tmp_path, shared_reals=True)
    reals = {(s.generator, s.path.relative_to(tmp_path).as_posix()) for s in found if not s.label}
    assert reals == {
        ("guided", "imagenet/0_real/1.png"),
        ("dalle", "laion/0_real/1.png"),
        ("dalle", "laion/0_real/2.png"),
        ("ldm_100", "laion/0_real/1.png"),
        ("ldm_100", "laion/0_real/2.png"),
    }
    assert sorted(s.generator for s in found if s.label) == ["dalle", "guided", "ldm_100"]
    # Training takes every image once.
    assert len(scan(tmp_path)) == 6


def test_real_images_of_ones_own_stay(tmp_path: Path) -> None:
    """A generator with real images takes no others; folders that none takes stay as they are."""
    _release(tmp_path)
    _touch(tmp_path, "guided/0_real/own.png", "dalle/0_real/own.png", "ldm_100/0_real/own.png")
    assert scan(tmp_path, shared_reals=True) == scan(tmp_path)
