"""What :mod:`.importing` asks of a foreign format."""

from __future__ import annotations

import abc
from collections.abc import Container, Mapping
from typing import ClassVar

from torch import Tensor

from ..config import DetectorConfig
from .account import Rule


class Format(abc.ABC):
    """One published way to name a network's tensors; errors are :class:`..errors.ModelError`."""

    #: As ``--format`` takes it.
    name: ClassVar[str]

    #: Tensors by which a file of this format is known.
    marks: ClassVar[tuple[str, ...]]

    def lacks(self, keys: Container[str]) -> list[str]:
        """Those of :attr:`marks` that a file's ``keys`` lack; it is of this format if none."""
        return [mark for mark in self.marks if mark not in keys]

    @abc.abstractmethod
    def config(self, tensors: Mapping[str, Tensor], bits: int | None) -> DetectorConfig:
        """The configuration that the tensors' names and shapes tell; ``bits`` is what it must be.

        Raises:
            ModelError: a network that the format's authors have not published.
        """

    @abc.abstractmethod
    def rules(self, config: DetectorConfig, tensors: Mapping[str, Tensor]) -> dict[str, Rule]:
        """Where each tensor of a whole file goes, by its name there."""

    @abc.abstractmethod
    def drop_reason(self, key: str, tensor: Tensor) -> str | None:
        """Why a tensor without a rule is known and left out; ``None`` where it is not known.

        Raises:
            ModelError: it holds what contradicts the format.
        """

    @abc.abstractmethod
    def initial_reason(self, ours: str) -> str:
        """Why a tensor of ours has no source, and what it holds then."""

    @abc.abstractmethod
    def notes(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """What differs from the published network, and what is unusual in this file.

        Raises:
            ModelError: values with which there is no such network.
        """

    def fill(self, state: Mapping[str, Tensor], initialised: list[str]) -> None:  # noqa: B027
        """Give tensors of ours that have no source better values than a fresh detector's."""
