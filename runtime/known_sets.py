"""The field's test sets: their folder names, how the paper calls them, and in which order.

* ForenSynths, the test set of Wang et al., "CNN-generated images are surprisingly easy to spot...
  for now", CVPR 2020 (github.com/PeterWang512/CNNDetection, README "Testset": one folder for each
  of 13 generators, 0_real and 1_fake in it, under a category where there are several).
* UniversalFakeDetect, the diffusion sets of Ojha et al., "Towards Universal Fake Image Detectors
  that Generalize Across Generative Models", CVPR 2023
  (github.com/WisconsinAIVision/UniversalFakeDetect). Its release keeps real images apart:
  ``guided`` is measured against ``imagenet``, the others against ``laion`` (dataset_paths.py at
  76a0e3e). Others hand it on with 0_real in every generator's folder
  (github.com/chuangchuangtan/NPR-DeepfakeDetection, README). Both are read.
* forensics-mini, the small set of our own that the built-in checkpoints are trained and measured on
  (models/zoo_data/data-forensics-mini.json).

Names and order of the first two are those of the paper's Tables 2 and 3; what these leave out comes
after.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .errors import DataError


class KnownSet(NamedTuple):
    """A test set of the field.

    Attributes:
        name: what it is called.
        table: folder names to display names, as in the paper's table, in its order.
        rest: generators of the same release that the paper leaves out.
        seen: those that a detector trained on ``training`` has seen.
        training: what detectors measured on this set are trained on as a rule.
    """

    name: str
    table: dict[str, str]
    rest: dict[str, str]
    seen: frozenset[str]
    training: str


_PROGAN = "ForenSynths' ProGAN, as the field's are"

FORENSYNTHS = KnownSet(
    "ForenSynths",
    {
        "progan": "ProGAN",
        "stylegan": "StyleGAN",
        "stylegan2": "StyleGAN2",
        "biggan": "BigGAN",
        "cyclegan": "CycleGAN",
        "stargan": "StarGAN",
        "gaugan": "GauGAN",
        "deepfake": "Deepfake",
    },
    {
        "whichfaceisreal": "WhichFaceIsReal",
        "crn": "CRN",
        "imle": "IMLE",
        "san": "SAN",
        "seeingdark": "SITD",
    },
    frozenset({"progan"}),
    _PROGAN,
)
UNIVERSAL_FAKE_DETECT = KnownSet(
    "UniversalFakeDetect",
    {
        "dalle": "DALLE",
        "glide_100_10": "Glide_100_10",
        "glide_100_27": "Glide_100_27",
        "glide_50_27": "Glide_50_27",
        "guided": "ADM",
        "ldm_100": "LDM_100",
        "ldm_200": "LDM_200",
        "ldm_200_cfg": "LDM_200_cfg",
    },
    {},
    frozenset(),
    _PROGAN,
)
_MINI_SEEN = ("rdn_nearest", "realesrgan_rrdb", "span_shuffle", "waifu2x_deconv")
_MINI_UNSEEN = ("dcgan_face", "realcugan_unet", "selfae_bilinear", "style26_nearest")
FORENSICS_MINI = KnownSet(
    "forensics-mini",
    {name: name for name in (*_MINI_SEEN, *_MINI_UNSEEN)},
    {},
    frozenset(_MINI_SEEN),
    "forensics-mini's train folder, as the built-in checkpoints are",
)
KNOWN_SETS = (FORENSYNTHS, UNIVERSAL_FAKE_DETECT, FORENSICS_MINI)

#: UniversalFakeDetect's folders of real images, and whose fakes each is measured against.
SHARED_REALS = {
    "imagenet": ("guided",),
    "laion": tuple(name for name in UNIVERSAL_FAKE_DETECT.table if name != "guided"),
}
#: ForenSynths' training set has a folder for each of LSUN's categories, all of them ProGAN's.
# fmt: off
PROGAN_CATEGORIES = frozenset({
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
})
# fmt: on

_DISPLAY = {
    folder: shown for known in KNOWN_SETS for folder, shown in (known.table | known.rest).items()
}
_RULES = {name: known.training for known in KNOWN_SETS for name in known.table | known.rest}
_ORDER = {folder: index for index, folder in enumerate(_DISPLAY)}
#: A record of training with more names, or longer ones, is none of ours.
_MAX_NAMES, _MAX_NAME = 10_000, 255


def is_known(folder: str) -> bool:
    """Whether ``folder`` is a folder name of a known set (its folders of real images included)."""
    return folder.lower() in _DISPLAY or folder.lower() in SHARED_REALS


def display_name(folder: str) -> str:
    """The paper's name of a known generator; any other folder's own name."""
    return _DISPLAY.get(folder.lower(), folder)


def in_order(folders: Iterable[str]) -> list[str]:
    """Known generators in the order of the paper's tables, then the others by name."""
    return sorted(folders, key=lambda name: (_ORDER.get(name.lower(), len(_ORDER)), name))


class Seen(NamedTuple):
    """Which generators a detector has seen in training.

    Attributes:
        names: of the generators at hand, those that it has seen; ``None``: not known.
        origin: ``given``, ``record``, ``rule`` or ``unknown``.
        training: what the rule presumes that the detector was trained on.
    """

    names: frozenset[str] | None
    origin: str
    training: str = ""


def find_seen(
    present: Sequence[str], record: Sequence[str] | None = None, given: Sequence[str] | None = None
) -> Seen:
    """Which of the generators ``present`` were seen in training.

    Args:
        present: folder names.
        record: what the detector's own record says it was trained on; ``None`` without one.
        given: what the user says; counts before the record.

    Without both, the known sets' rule holds, if all generators are of known sets that one rule
    covers.

    Raises:
        DataError: ``given`` names a generator that is not there.
    """
    by_name = {name.lower(): name for name in present}
    by_name |= {display_name(name).lower(): name for name in present}
    if given is not None:
        missing = [name for name in given if name.lower() not in by_name]
        if missing:
            raise DataError(
                f"no generator {missing[0]!r} to group as seen; there are {', '.join(present)}"
            )
        return Seen(frozenset(by_name[name.lower()] for name in given), "given")
    if record is not None:
        trained = {name.lower() for name in record}
        if trained and trained <= PROGAN_CATEGORIES:
            trained = {"progan"}
        return Seen(frozenset(by_name[name] for name in trained if name in by_name), "record")
    rules = {_RULES.get(name.lower(), "") for name in present}
    if len(rules) == 1 and "" not in rules:
        (rule,) = rules
        seen = {name for known in KNOWN_SETS if known.training == rule for name in known.seen}
        return Seen(frozenset(name for name in present if name.lower() in seen), "rule", rule)
    return Seen(None, "unknown")


def generators_from_record(record: object) -> tuple[str, ...] | None:
    """The names that a checkpoint (as JSON text) or a manifest (as a list) says it was trained on.

    Raises:
        DataError: it is neither; ``None``, no record, is allowed.
    """
    if record is None:
        return None
    if isinstance(record, str):
        try:
            record = json.loads(record)
        except (ValueError, RecursionError) as error:
            raise DataError(f"its record of training generators is not JSON ({error})") from error
    if (
        not isinstance(record, list)
        or len(record) > _MAX_NAMES
        or not all(isinstance(name, str) and 0 < len(name) <= _MAX_NAME for name in record)
    ):
        raise DataError("its record of training generators is not a list of names")
    return tuple(record)
