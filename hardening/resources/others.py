"""Checkpoints, configurations, lists and folders that ask for memory."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .case import Case

_IMPORT = ("import", "{}/file", "-o", "{}/out")
_FREEZE = ("freeze", "{}/file", "-o", "{}/out")


def other_cases(bundle: Path) -> Iterator[Case]:
    """Every case; folders are scored with ``bundle``."""
    yield Case("a checkpoint whose header states 1 TB", _header(1 << 40), _FREEZE)
    yield Case("a checkpoint with a header of 100 MB", _long_header, _FREEZE)
    yield Case("a checkpoint whose tensor states 2^62 numbers", _stated, _FREEZE)
    yield Case("a checkpoint of 1.9 GB of zeros", _sparse("file", 1_900_000_000), _FREEZE)
    yield Case("a checkpoint of 5 GB", _sparse("file", 5 << 30), _FREEZE, says="larger than")
    yield Case("a checkpoint with 1.9 GB of weights", _weights(1_900_000_000), _FREEZE)
    yield Case("a .pth that unpacks to 2 GB", _zip_bomb, _IMPORT)
    yield Case("a .pth of 60,000 entries", _entries, _IMPORT)
    yield Case("a .pth with 1.9 GB of weights", _pth(1_900_000_000), _IMPORT)
    yield Case("a pickle of 10^6 nested lists", _pickle(b"(" * 1_000_000), _IMPORT)
    yield Case("a pickle of 10^7 memos", _pickle(b"]q\x00" * 5_000_000), _IMPORT)
    yield Case("a .pth of 5 GB", _sparse("file", 5 << 30), _IMPORT, says="larger than")
    yield Case("a recipe of 1 GB", _sparse("file", 1 << 30), _train("{}/file"))
    yield Case("a recipe of 10^6 brackets", _text("a = " + "[" * 1_000_000), _train("{}/file"))
    yield Case(
        "a recipe of 3 MB of keys",
        _text("".join(f"k{i} = 1\n" for i in range(300_000))),
        _train("{}/file"),
    )
    yield Case("widths by layer of 1 GB", _sparse("file", 1 << 30), _calibrate("{}/file"))
    yield Case("widths by layer of 10^6 brackets", _text("[" * 1_000_000), _calibrate("{}/file"))
    yield Case("a list of hosts of 1 GB", _sparse("file", 1 << 30), _deploy(bundle))
    yield Case("a list of 100,000 hosts", _text("a\n" * 100_000), _deploy(bundle))
    yield Case(
        "a folder of 200,000 damaged images",
        _many(200_000),
        ("detect", str(bundle), "{}", "--json"),
        says="",
        lines=200_000,
    )
    yield Case("a folder 1,000 deep", _deep(1000), ("detect", str(bundle), "{}"), says="")
    yield Case(
        "a bench result of 1 GB",
        _sparse("file", 1 << 30),
        ("report", str(bundle), "--golden", "--bench-json", "{}/file", "-o", "{}/out.html"),
    )
    for suffix in ("mp4", "mkv", "avi", "webm", "mpg"):
        yield Case(
            f"a video of 1 GB of zeros, .{suffix}",
            _sparse(f"clip.{suffix}", 1 << 30),
            ("detect", str(bundle), "{}"),
        )
    yield Case("a video that states 65535x65535", _large_video, ("detect", str(bundle), "{}"))


def _train(recipe: str) -> tuple[str, ...]:
    return ("train", "--recipe", recipe, "--data", "{}", "-o", "{}/run")


def _calibrate(widths: str) -> tuple[str, ...]:
    return ("calibrate", "resnet23-fp32", "--data", "{}", "--layer-bits", widths, "-o", "{}/out")


def _deploy(bundle: Path) -> tuple[str, ...]:
    return ("deploy", str(bundle), "--hosts", "{}/file", "--dry-run")


def _sparse(name: str, size: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with (folder / name).open("wb") as stream:
            stream.truncate(size)

    return make


def _text(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "file").write_text(text)

    return make


def _header(size: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "file").write_bytes(struct.pack("<Q", size) + b"{}")

    return make


def _long_header(folder: Path) -> None:
    names = {
        f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(1_400_000)
    }
    text = json.dumps(names).encode()
    (folder / "file").write_bytes(struct.pack("<Q", len(text)) + text)


def _stated(folder: Path) -> None:
    text = json.dumps(
        {"t": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 4]}}
    ).encode()
    (folder / "file").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))


def _weights(size: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        size_ = size // 4 * 4
        metadata = {"format": "qmdd-latent", "version": "2", "config": "{}"}
        text = json.dumps(
            {
                "__metadata__": metadata,
                "t": {"dtype": "F32", "shape": [size_ // 4], "data_offsets": [0, size_]},
            }
        ).encode()
        with (folder / "file").open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            stream.truncate(8 + len(text) + size_)

    return make


def _zip_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "file", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as entry:
            for _ in range(2_000):
                entry.write(bytes(1 << 20))
        archive.writestr("archive/version", "3\n")


def _entries(folder: Path) -> None:
    with zipfile.ZipFile(folder / "file", "w") as archive:
        for number in range(60_000):
            archive.writestr(f"archive/data/{number}", b"")


def _pth(size: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import torch

        torch.save({"state_dict": {"w": torch.zeros(size // 4)}}, folder / "file")

    return make


def _pickle(body: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "file").write_bytes(b"\x80\x02" + body + b".")

    return make


def _many(count: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for number in range(count):
            (folder / f"{number}.png").write_bytes(b"no")

    return make


def _deep(levels: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        here = os.getcwd()
        try:
            os.chdir(folder)
            for _ in range(levels):
                os.mkdir("d" * 200)
                os.chdir("d" * 200)
            Path("a.png").write_bytes(b"no")
        finally:
            os.chdir(here)

    return make


def _large_video(folder: Path) -> None:
    import av

    with av.open(str(folder / "clip.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=1)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
    data = (folder / "clip.avi").read_bytes()
    small, large = struct.pack("<II", 64, 64), struct.pack("<II", 65_535, 65_535)
    (folder / "clip.avi").write_bytes(data.replace(small, large))
