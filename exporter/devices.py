"""Devices as data: what a data sheet says they can do at most, each number with its source.

A rate is derived, so that a reader can check it::

    operations / s  =  streaming multiprocessors  x  clock  x  operations a clock of one of them

A multiply-add is two operations, as vendors count. All rates are *dense*: what vendors quote for
Ampere and later is mostly *sparse*, twice as much, and no network of ours has that sparsity. Rates
of a module's deep-learning accelerators (DLA) are not in them: nothing of ours runs there.

Whether a number was found again when this table was written, in its source or in a page that quotes
it, stands beside it (:attr:`Fact.checked`); the others are from memory, and their source was not at
hand. A test derives the figures that vendors quote from the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .errors import ExportError

#: Widths in which a convolution can be computed, in the order in which they are shown.
PRECISIONS = ("int8", "fp16", "fp32")


@dataclasses.dataclass(frozen=True)
class Fact:
    """A number, where it stands, and whether it was found there when the table was written."""

    value: float
    source: str
    checked: bool = True


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What one streaming multiprocessor does in one clock.

    Attributes:
        name: of the architecture, with its compute capability.
        per_clock: dense operations by width: ``int4``, ``int8`` and ``fp16`` on tensor cores where
            there are any, ``fp32`` on CUDA cores (no TF32: it would not be exact). A width that is
            missing does not exist in hardware.
    """

    name: str
    per_clock: Mapping[str, Fact]


@dataclasses.dataclass(frozen=True)
class Mode:
    """A power mode.

    Attributes:
        name: as ``nvpmodel`` calls it; ``boost`` of a card.
        clock_mhz: highest clock of the GPU.
        bandwidth: of the memory, GB/s (10^9 bytes).
        jetpack: the first JetPack that has it.
        quoted: the vendor's figures for this mode, as quoted: ``int8 sparse``, ``fp32``, ...; in
            TOPS or TFLOPS, of the GPU alone.
    """

    name: str
    clock_mhz: Fact
    bandwidth: Fact
    jetpack: str | None = None
    quoted: Mapping[str, Fact] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Device:
    """A module or card.

    Attributes:
        name: by which a target names it.
        title: the vendor's name.
        architecture: of its GPU.
        multiprocessors: their number.
        memory_gb: size of the memory; a module's is shared with the CPU.
        cache_mib: the GPU's second-level cache.
        modes: power modes, the slowest first.
        notes: what else must be known.
    """

    name: str
    title: str
    architecture: Architecture
    multiprocessors: Fact
    memory_gb: Fact
    cache_mib: Fact
    modes: tuple[Mode, ...]
    notes: tuple[str, ...] = ()

    @property
    def precisions(self) -> tuple[str, ...]:
        """The widths of :data:`PRECISIONS` that it computes in."""
        return tuple(p for p in PRECISIONS if p in self.architecture.per_clock)

    def mode(self, name: str | None = None, jetpack: str | None = None) -> Mode:
        """The mode called ``name``, or the fastest that ``jetpack`` (default: any) has.

        Raises:
            ExportError: there is none such; the message says which there are.
        """
        known = [
            mode
            for mode in self.modes
            if jetpack is None or mode.jetpack is None or _order(mode.jetpack) <= _order(jetpack)
        ]
        if name is None and known:
            return known[-1]
        for mode in known:
            if mode.name.lower() == str(name).lower():
                return mode
        older = f" with JetPack {jetpack}" if jetpack else ""
        names = ", ".join(mode.name for mode in known) or "none"
        raise ExportError(f"{self.title} has no power mode {name!r}{older}; there are: {names}")

    def rate(self, width: str, mode: Mode) -> float:
        """Dense operations a second at ``width`` (``int4``, ``int8``, ``fp16``, ``fp32``).

        Raises:
            ExportError: the device does not compute in this width.
        """
        if width not in self.architecture.per_clock:
            raise ExportError(
                f"{self.title} ({self.architecture.name}) does not compute in {width}; "
                f"it has {', '.join(self.precisions)}"
            )
        return (
            self.multiprocessors.value
            * mode.clock_mhz.value
            * 1e6
            * self.architecture.per_clock[width].value
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, every number with its source."""
        return dataclasses.asdict(self)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def find_device(name: str) -> Device:
    """The device called ``name``; :class:`ExportError` lists the names otherwise."""
    if name not in DEVICES:
        raise ExportError(f"no data of a device {name!r}; there is data of {', '.join(DEVICES)}")
    return DEVICES[name]


# Sources that several numbers share.
_NANO_SHEET = (
    "NVIDIA Jetson Orin Nano Series data sheet "
    "(https://www.scribd.com/document/673174036/Orin-nano-datasheet)"
)
_SUPER = (
    "https://developer.nvidia.com/blog/nvidia-jetpack-6-2-brings-super-mode-to-"
    "nvidia-jetson-orin-nano-and-jetson-orin-nx-modules/"
)
_NANO_SUPER = (
    "https://www.nvidia.com/en-us/autonomous-machines/embedded-systems/jetson-orin/"
    "nano-super-developer-kit/"
)
_ORIN_BRIEF = (
    "NVIDIA Jetson AGX Orin Series technical brief (summarised at http://mzph.cn/web/30785.shtml)"
)
_ORIN_PAGE = "https://www.nvidia.com/en-us/autonomous-machines/embedded-systems/jetson-orin/"
_NX_QUERY = "deviceQuery: https://gist.github.com/atinfinity/8cede915acda05d0ff427c09604735dd"
_AGX_QUERY = "device query: https://github.com/tmcdonell/cuda/issues/77"
_THOR_QUERY = (
    "device query: https://forums.developer.nvidia.com/t/clarification-on-cuda-core-and-tensor-"
    "core-counts-for-jetson-agx-thor/356355"
)
_THOR_CLOCK = "https://torring.dev/blog/2026/rtx-spark-throttling/ (20 SMs at 1570 MHz give 2.07 P)"
_THOR_PAGE = "https://www.nvidia.com/en-us/autonomous-machines/embedded-systems/jetson-thor/"
_XAVIER_NX_SHEET = (
    "NVIDIA Jetson Xavier NX data sheet DA-09366-001 (https://documents.pub/document/data-sheet-"
    "preliminary-nvidia-jetson-xavier-nx-system-on-xavier-nx-data-sheetpdf.html)"
)
_XAVIER_BLOG = "https://developer.nvidia.com/blog/nvidia-jetson-agx-xavier-32-teraops-ai-robotics/"
_NANO_QUERY = "deviceQuery: https://github.com/Technica-Corporation/Tegra-Docker/issues/12"
_NANO_PAGE = "https://developer.nvidia.com/embedded/jetson-nano"
_GA102 = (
    "NVIDIA Ampere GA102 white paper v2, table of specifications (https://www.nvidia.com/content/"
    "PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf)"
)
_ADA = (
    "NVIDIA Ada white paper v2.01, appendix A (https://images.nvidia.com/aem-dam/Solutions/geforce/"
    "ada/nvidia-ada-gpu-architecture.pdf)"
)
_BLACKWELL = (
    "NVIDIA RTX Blackwell white paper, appendix A (https://images.nvidia.com/aem-dam/Solutions/"
    "geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf)"
)
_CUDA_CORES = "derived: CUDA cores of a multiprocessor x 2 operations (one multiply-add a clock)"

MAXWELL = Architecture(
    "Maxwell, compute capability 5.3",
    {
        "fp16": Fact(512, f"derived: 472 GFLOPS of {_NANO_PAGE} / 921.6 MHz", checked=False),
        "fp32": Fact(256, _CUDA_CORES),
    },
)
VOLTA = Architecture(
    "Volta, compute capability 7.2",
    {
        "int8": Fact(2048, f"derived: 22 TOPS of {_XAVIER_BLOG} / (8 x 1377 MHz)", checked=False),
        "fp16": Fact(1024, f"derived: 11 TFLOPS of {_XAVIER_BLOG} / (8 x 1377 MHz)", checked=False),
        "fp32": Fact(128, _CUDA_CORES),
    },
)
ORIN = Architecture(
    "Ampere, compute capability 8.7",
    {
        "int4": Fact(8192, "derived: twice int8, as in all Ampere tensor cores", checked=False),
        "int8": Fact(4096, f"derived: 20 dense TOPS of {_NANO_SHEET} / (8 x 625 MHz)"),
        "fp16": Fact(2048, "derived: half of int8, as in all Ampere tensor cores"),
        "fp32": Fact(256, _CUDA_CORES),
    },
)
THOR = Architecture(
    "Blackwell, compute capability 11.0",
    {
        "int8": Fact(
            16384,
            "derived: as FP8, which is a quarter of the sparse FP4 rate; no source at hand gives "
            "INT8 by itself",
            checked=False,
        ),
        "fp16": Fact(8192, f"derived: an eighth of the sparse FP4 rate, {_THOR_CLOCK}"),
        "fp32": Fact(256, _CUDA_CORES),
    },
)
AMPERE = Architecture(
    "Ampere, compute capability 8.6",
    {
        "int4": Fact(4096, f"derived: twice int8, {_GA102}", checked=False),
        "int8": Fact(2048, f"derived: 238 dense TOPS / (68 x 1710 MHz), {_GA102}", checked=False),
        "fp16": Fact(
            1024,
            f"derived: 119 dense TFLOPS with FP16 accumulation / (68 x 1710 MHz), {_GA102}; FP32 "
            "accumulation has half of it",
            checked=False,
        ),
        "fp32": Fact(256, _CUDA_CORES),
    },
)
ADA = Architecture(
    "Ada, compute capability 8.9",
    {
        "int4": Fact(4096, f"derived: twice int8, {_ADA}", checked=False),
        "int8": Fact(2048, f"derived: 660.6 dense TOPS / (128 x 2520 MHz), {_ADA}", checked=False),
        "fp16": Fact(
            1024,
            f"derived: 330.3 dense TFLOPS with FP16 accumulation / (128 x 2520 MHz), {_ADA}; FP32 "
            "accumulation has half of it",
            checked=False,
        ),
        "fp32": Fact(256, _CUDA_CORES),
    },
)
BLACKWELL = Architecture(
    "Blackwell, compute capability 12.0",
    {
        "int8": Fact(
            2048, f"derived: 838 dense TOPS / (170 x 2407 MHz), {_BLACKWELL}", checked=False
        ),
        "fp16": Fact(
            1024,
            f"derived: 419 dense TFLOPS with FP16 accumulation / (170 x 2407 MHz), {_BLACKWELL}; "
            "FP32 accumulation has half of it",
            checked=False,
        ),
        "fp32": Fact(256, _CUDA_CORES),
    },
)

_SHARED = "shared with the CPU: what the system takes is not available"
_NO_DLA = "INT8 figures that vendors quote for this module include its DLA; these are the GPU's"

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            "orin-nano-4gb",
            "NVIDIA Jetson Orin Nano 4GB",
            ORIN,
            multiprocessors=Fact(4, f"512 CUDA cores, {_NANO_SHEET}"),
            memory_gb=Fact(4, _NANO_SHEET),
            cache_mib=Fact(2, f"{_NX_QUERY} (an Orin NX; not looked up for this module)", False),
            modes=(
                Mode(
                    "10W",
                    Fact(625, _NANO_SHEET),
                    Fact(34, f"64-bit LPDDR5, half of the 8GB module's, {_NANO_SHEET}"),
                    quoted={"int8 sparse": Fact(20, _NANO_SHEET)},
                ),
                Mode(
                    "MAXN_SUPER",
                    Fact(1020, _SUPER, checked=False),
                    Fact(51, _SUPER, checked=False),
                    jetpack="6.2",
                    quoted={"int8 sparse": Fact(34, _SUPER, checked=False)},
                ),
            ),
            notes=(_SHARED,),
        ),
        Device(
            "orin-nano",
            "NVIDIA Jetson Orin Nano 8GB",
            ORIN,
            multiprocessors=Fact(8, f"1024 CUDA cores, {_NANO_SHEET}"),
            memory_gb=Fact(8, _NANO_SHEET),
            cache_mib=Fact(2, f"{_NX_QUERY} (an Orin NX; not looked up for this module)", False),
            modes=(
                Mode(
                    "15W",
                    Fact(625, _NANO_SHEET),
                    Fact(
                        68,
                        "https://www.brojogopalsapui.com/ai-foundations/sub_contents/AI_hardware/jetson_orin_nano_light.html",
                    ),
                    quoted={"int8 sparse": Fact(40, _NANO_SHEET)},
                ),
                Mode(
                    "MAXN_SUPER",
                    Fact(1020, f"nvpmodel.conf of the module; {_SUPER}"),
                    Fact(102, _NANO_SUPER),
                    jetpack="6.2",
                    quoted={"int8 sparse": Fact(67, _NANO_SUPER)},
                ),
            ),
            notes=(_SHARED,),
        ),
        Device(
            "orin-nx-8gb",
            "NVIDIA Jetson Orin NX 8GB",
            ORIN,
            multiprocessors=Fact(8, f"1024 CUDA cores, {_ORIN_PAGE}"),
            memory_gb=Fact(8, _ORIN_PAGE),
            cache_mib=Fact(2, f"{_NX_QUERY} (the 16GB module)"),
            modes=(
                Mode("MAXN", Fact(765, _ORIN_PAGE, checked=False), Fact(102.4, _ORIN_PAGE)),
                Mode(
                    "MAXN_SUPER",
                    Fact(1173, _SUPER),
                    Fact(102.4, _ORIN_PAGE),
                    jetpack="6.2",
                ),
            ),
            notes=(_SHARED, _NO_DLA),
        ),
        Device(
            "orin-nx",
            "NVIDIA Jetson Orin NX 16GB",
            ORIN,
            multiprocessors=Fact(8, _NX_QUERY),
            memory_gb=Fact(16, _NX_QUERY),
            cache_mib=Fact(2, _NX_QUERY),
            modes=(
                Mode("MAXN", Fact(918, _NX_QUERY), Fact(102.4, _ORIN_PAGE)),
                Mode(
                    "MAXN_SUPER",
                    Fact(1173, _SUPER),
                    Fact(102.4, _ORIN_PAGE),
                    jetpack="6.2",
                ),
            ),
            notes=(_SHARED, _NO_DLA),
        ),
        Device(
            "agx-orin-32gb",
            "NVIDIA Jetson AGX Orin 32GB",
            ORIN,
            multiprocessors=Fact(14, f"1792 CUDA cores, {_ORIN_BRIEF}", checked=False),
            memory_gb=Fact(32, _ORIN_BRIEF),
            cache_mib=Fact(4, _ORIN_BRIEF),
            modes=(
                Mode(
                    "MAXN",
                    Fact(930, _ORIN_BRIEF, checked=False),
                    Fact(204.8, _ORIN_BRIEF, checked=False),
                    quoted={"int8 sparse": Fact(108, _ORIN_BRIEF, checked=False)},
                ),
            ),
            notes=(
                _SHARED,
                _NO_DLA,
                "JetPack 7.2 brings a MAXN_SUPER mode whose clocks were not found: not in here",
            ),
        ),
        Device(
            "agx-orin",
            "NVIDIA Jetson AGX Orin 64GB",
            ORIN,
            multiprocessors=Fact(16, f"{_AGX_QUERY}; {_ORIN_BRIEF}"),
            memory_gb=Fact(64, _ORIN_BRIEF),
            cache_mib=Fact(4, f"{_AGX_QUERY}; {_ORIN_BRIEF}"),
            modes=(
                Mode(
                    "MAXN",
                    Fact(1300, _AGX_QUERY),
                    Fact(204.8, _ORIN_BRIEF, checked=False),
                    quoted={
                        "int8 sparse": Fact(170, _ORIN_BRIEF),
                        "fp32": Fact(5.3, _ORIN_BRIEF),
                    },
                ),
            ),
            notes=(_SHARED, _NO_DLA),
        ),
        Device(
            "thor-t4000",
            "NVIDIA Jetson T4000",
            THOR,
            multiprocessors=Fact(12, f"1536 CUDA cores, {_THOR_PAGE}", checked=False),
            memory_gb=Fact(64, _THOR_PAGE, checked=False),
            cache_mib=Fact(32, f"{_THOR_QUERY} (a T5000; not looked up for this module)", False),
            modes=(
                Mode(
                    "MAXN",
                    Fact(1530, f"derived: 1200 sparse FP4 TFLOPS of {_THOR_PAGE}", checked=False),
                    Fact(273, _THOR_PAGE, checked=False),
                    jetpack="7.1",
                ),
            ),
            notes=(_SHARED,),
        ),
        Device(
            "thor",
            "NVIDIA Jetson T5000 (AGX Thor)",
            THOR,
            multiprocessors=Fact(20, _THOR_QUERY),
            memory_gb=Fact(128, _THOR_PAGE, checked=False),
            cache_mib=Fact(32, _THOR_QUERY),
            modes=(
                Mode(
                    "MAXN",
                    Fact(1570, _THOR_CLOCK),
                    Fact(273, _THOR_PAGE, checked=False),
                    jetpack="7.0",
                ),
            ),
            notes=(_SHARED,),
        ),
        Device(
            "xavier-nx",
            "NVIDIA Jetson Xavier NX (8GB and 16GB)",
            VOLTA,
            multiprocessors=Fact(6, f"384 CUDA cores, {_XAVIER_NX_SHEET}"),
            memory_gb=Fact(8, f"{_XAVIER_NX_SHEET}; the later module has 16"),
            cache_mib=Fact(0.5, _XAVIER_BLOG, checked=False),
            modes=(
                Mode(
                    "20W",
                    Fact(1100, _XAVIER_NX_SHEET),
                    Fact(59.7, "1866 MHz x 2 x 16 bytes, later than the v1.3 sheet's 51.2", False),
                ),
            ),
            notes=(_SHARED, _NO_DLA),
        ),
        Device(
            "agx-xavier",
            "NVIDIA Jetson AGX Xavier (32GB and 64GB)",
            VOLTA,
            multiprocessors=Fact(8, f"512 CUDA cores, {_XAVIER_BLOG}"),
            memory_gb=Fact(32, f"{_XAVIER_BLOG}; the later module has 64", checked=False),
            cache_mib=Fact(0.5, _XAVIER_BLOG, checked=False),
            modes=(
                Mode(
                    "MAXN",
                    Fact(1377, _XAVIER_BLOG, checked=False),
                    Fact(136.5, _XAVIER_BLOG, checked=False),
                    quoted={
                        "int8": Fact(22, _XAVIER_BLOG, checked=False),
                        "fp16": Fact(11, _XAVIER_BLOG, checked=False),
                    },
                ),
            ),
            notes=(_SHARED, _NO_DLA),
        ),
        Device(
            "jetson-nano",
            "NVIDIA Jetson Nano",
            MAXWELL,
            multiprocessors=Fact(1, _NANO_QUERY),
            memory_gb=Fact(4, _NANO_QUERY),
            cache_mib=Fact(0.25, _NANO_QUERY),
            modes=(
                Mode(
                    "MAXN",
                    Fact(921.6, _NANO_QUERY),
                    Fact(25.6, _NANO_PAGE),
                    quoted={"fp16": Fact(0.472, _NANO_PAGE)},
                ),
            ),
            notes=(_SHARED, "no tensor cores and no INT8 dot products"),
        ),
        Device(
            "rtx-ampere",
            "NVIDIA GeForce RTX 3080 10GB, for RTX cards of the Ampere generation",
            AMPERE,
            multiprocessors=Fact(68, f"8704 CUDA cores, {_GA102}"),
            memory_gb=Fact(10, _GA102, checked=False),
            cache_mib=Fact(5, _GA102, checked=False),
            modes=(
                Mode(
                    "boost",
                    Fact(1710, _GA102, checked=False),
                    Fact(760, _GA102, checked=False),
                    quoted={
                        "int8": Fact(238, _GA102, checked=False),
                        "fp32": Fact(29.8, _GA102, checked=False),
                    },
                ),
            ),
        ),
        Device(
            "rtx-ada",
            "NVIDIA GeForce RTX 4090, for RTX cards of the Ada generation",
            ADA,
            multiprocessors=Fact(128, f"16384 CUDA cores, {_ADA}"),
            memory_gb=Fact(24, _ADA),
            cache_mib=Fact(72, _ADA, checked=False),
            modes=(
                Mode(
                    "boost",
                    Fact(2520, _ADA, checked=False),
                    Fact(1008, _ADA, checked=False),
                    quoted={
                        "int8": Fact(660.6, _ADA, checked=False),
                        "fp32": Fact(82.6, _ADA, checked=False),
                    },
                ),
            ),
        ),
        Device(
            "rtx-blackwell",
            "NVIDIA GeForce RTX 5090, for RTX cards of the Blackwell generation",
            BLACKWELL,
            multiprocessors=Fact(170, _BLACKWELL),
            memory_gb=Fact(32, _BLACKWELL),
            cache_mib=Fact(96, _BLACKWELL, checked=False),
            modes=(
                Mode(
                    "boost",
                    Fact(2407, "https://torring.dev/blog/2026/rtx-spark-throttling/"),
                    Fact(1792, _BLACKWELL),
                    quoted={
                        "int8": Fact(838, _BLACKWELL, checked=False),
                        "fp32": Fact(104.8, _BLACKWELL, checked=False),
                    },
                ),
            ),
        ),
    )
}
