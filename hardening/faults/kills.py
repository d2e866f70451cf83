"""One case, killed again and again: at each of its moments, and at random times."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from pathlib import Path

from .case import Case, Output, Tree, hidden, part, tree, without
from .child import Ended, run
from .device import COUNT, KILL_AFTER, KILL_AT

Tell = Callable[[int, int], None]

#: Up to so many moments a case is killed at every one, however few kills are asked for.
MOMENTS = 60


@dataclasses.dataclass
class Tally:
    """What kills of one case left.

    Attributes:
        case: its name.
        moments: changes to the file system of an unbroken run.
        seconds: that it takes.
        kills: processes that were killed; ``at_moments`` and ``at_times`` of them.
        old: outputs that were as before, in all of the kill's outputs.
        new: all outputs were new and whole.
        between: each output was one or the other, or a state that the same command goes on from.
        half: an output was neither.
        lost: something else in the place was changed or gone, or an old output was gone.
        failed: the same command, given again, did not end well or gave another result (it is given
            again after each kill that left something that none before has).
        with_leftovers: kills that left hidden work files; ``leftovers`` is how many of these were
            there still after the next run.
        orphans: processes that outlived the killed one.
        notes: a line for each fault.
    """

    case: str
    moments: int = 0
    seconds: float = 0.0
    kills: int = 0
    at_moments: int = 0
    at_times: int = 0
    old: int = 0
    new: int = 0
    between: int = 0
    half: int = 0
    lost: int = 0
    failed: int = 0
    with_leftovers: int = 0
    leftovers: int = 0
    orphans: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def faults(self) -> int:
        """What must be 0."""
        return self.half + self.lost + self.failed + self.leftovers + self.orphans


def said(place: Path) -> list[str]:
    """What the last command in ``place`` said on stderr, line by line."""
    text = (place.parent / "said").read_text(encoding="utf-8", errors="replace")
    return text.strip().splitlines()


class Unbroken:
    """The state before a case and after a run that nothing interrupts.

    Raises:
        RuntimeError: the run fails, or leaves something that it should not.
    """

    def __init__(self, case: Case, world: Path, place: Path) -> None:
        self.case, self.world, self.place = case, world, place
        case.lay_out(world, place)
        self.before = tree(place)
        ended = self._again()
        self.after = tree(place)
        self.moments, self.seconds = ended.moments, ended.seconds
        if case.agent:
            self.moments = int((place.parent / "count").read_text(encoding="ascii"))
        rest = self._rest(self.after)
        if rest != self._rest(self.before) or hidden(self.after):
            changed = {
                key for key in {*rest, *self.before} if rest.get(key) != self.before.get(key)
            }
            raise RuntimeError(f"{case.name}: a run that nothing interrupts leaves {changed}")
        self._content = {
            output.name: output.content(place / output.name)
            for output in case.outputs
            if output.content is not None
        }
        #: Bytes of the outputs.
        self.size = sum(
            (place / name).stat().st_size
            for output in case.outputs
            for name in part(self.after, output.name)
        )
        self._seen: set[str] = set()
        for output in case.outputs:
            if self.look(output, self.after) != "new":
                raise RuntimeError(f"{case.name}: {output.name} is not whole after an unbroken run")

    @property
    def _names(self) -> list[str]:
        """What may change: the outputs, and folders that are made for them."""
        return [output.name for output in self.case.outputs]

    def _rest(self, found: Tree) -> Tree:
        """What is no output, nor a folder that is made for one."""
        above = [parent.as_posix() for name in self._names for parent in Path(name).parents]
        rest = without(found, self._names)
        return {key: held for key, held in rest.items() if key not in above}

    def _again(self) -> Ended:
        count = {COUNT: os.fspath(self.place.parent / "count")}
        ended = run(self.case.arguments, self.place, environment={**self.case.environment, **count})
        if ended.code:
            raise RuntimeError(f"{self.case.name}: exit code {ended.code}: {self.said()}")
        return ended

    def said(self) -> str:
        """The last words of the last run."""
        return " / ".join(said(self.place)[-2:])

    def look(self, output: Output, found: Tree) -> str:
        """``old``, ``new``, ``between`` or ``half``."""
        held = part(found, output.name)
        path = self.place / output.name
        if output.content is not None:
            if held and self._holds_all(output, path):
                return "new"
        elif output.whole is None:
            if held == part(self.after, output.name):
                return "new"
        elif held and held != part(self.before, output.name) and output.whole(path):
            return "new"
        if held == part(self.before, output.name):
            return "old"
        if output.between is not None and held and output.between(path):
            return "between"
        return "half"

    def _holds_all(self, output: Output, path: Path) -> bool:
        assert output.content is not None  # noqa: S101 - as the caller has seen
        try:
            return output.content(path) == self._content[output.name]
        except Exception:  # noqa: BLE001 - whatever a half of a file leads to
            return False

    def judge(self, ended: Ended, tally: Tally, how: str) -> None:
        """Look at what a killed run left, then give the same command again."""
        found = tree(self.place)
        left = hidden(found)
        states = {
            output.name: self.look(output, without(found, left)) for output in self.case.outputs
        }
        kinds = set(states.values())
        kind = next(iter(kinds)) if len(kinds) == 1 else "between"
        if "half" in kinds:
            kind = "half"
            tally.notes.append(f"{how}: {states}")
        setattr(tally, kind, getattr(tally, kind) + 1)
        self._check_rest(found, left, tally, how)
        tally.with_leftovers += bool(left)
        tally.orphans += ended.orphans
        if (self.case.once and kind == "new") or not self._is_new(found, left):
            return
        again = run(self.case.arguments, self.place, environment=self.case.environment)
        found = tree(self.place)
        ends = [self.look(output, found) for output in self.case.outputs]
        good = {"new", "between"} if self.case.once else {"new"}
        if again.code or not good.issuperset(ends):
            tally.failed += 1
            tally.notes.append(f"{how}: then exit code {again.code}, {ends}: {self.said()}")
        if hidden(found):
            tally.leftovers += len(hidden(found))
            tally.notes.append(f"{how}: then still {hidden(found)}")

    def _is_new(self, found: Tree, left: list[str]) -> bool:
        """Whether nothing like it was seen before: what is the same is not gone on from again."""
        renamed = {
            key.replace(name, f"left {number}", 1): held
            for number, name in enumerate(sorted(left))
            for key, held in part(found, name).items()
        }
        state = repr(sorted({**without(found, left), **renamed}.items()))
        if state in self._seen:
            return False
        self._seen.add(state)
        return True

    def _check_rest(self, found: Tree, left: list[str], tally: Tally, how: str) -> None:
        rest = self._rest(without(found, left))
        expected = self._rest(self.before)
        if any(rest.get(name) != held for name, held in expected.items()) or set(rest) - set(
            expected
        ):
            tally.lost += 1
            tally.notes.append(f"{how}: other files are gone, changed or new")


def kill(
    case: Case,
    world: Path,
    place: Path,
    kills: int,
    *,
    moments: int = MOMENTS,
    seed: int = 0,
    tell: Tell | None = None,
) -> Tally:
    """Kill ``case`` at each of its moments, then at random times, ``kills`` times at least.

    Args:
        case: what is run.
        world: what :func:`.world.make_world` made.
        place: a folder that is made anew each time.
        kills: at least a tenth of them at random times.
        moments: of more (and of more than ``kills``) some are left out.
        seed: of these.
        tell: called with kills done and planned.
    """
    unbroken = Unbroken(case, world, place)
    tally = Tally(case.name, unbroken.moments, round(unbroken.seconds, 3))
    count = unbroken.moments
    every = max(1, -(-count // max(kills, moments)))
    chosen = range(count, 0, -every)
    wanted = max(kills, len(chosen) + kills // 10)
    draw = random.Random(seed)  # noqa: S311 - moments to kill at
    for at in chosen:
        case.lay_out(world, place)
        ended = _killed(case, place, at=at)
        _count(unbroken, ended, tally, f"moment {at}", tell, wanted)
        tally.at_moments += ended.code == -9
    tries = 0
    while tally.kills < wanted and tries < 10 * wanted:
        tries += 1
        case.lay_out(world, place)
        after = draw.uniform(0, unbroken.seconds)
        ended = _killed(case, place, after=after)
        tally.at_times += ended.code == -9
        _count(unbroken, ended, tally, f"{after:.3f} s", tell, wanted)
    return tally


def _killed(case: Case, place: Path, *, at: int | None = None, after: float | None = None) -> Ended:
    """Run ``case`` and kill it, or what runs on its device: then it fails, which counts as well."""
    if not case.agent:
        return run(
            case.arguments, place, kill_at=at, kill_after=after, environment=case.environment
        )
    told = {KILL_AT: str(at or ""), KILL_AFTER: str(after or "")}
    ended = run(case.arguments, place, environment={**case.environment, **told})
    return ended._replace(code=-9) if ended.code == 1 else ended


def _count(
    unbroken: Unbroken, ended: Ended, tally: Tally, how: str, tell: Tell | None, kills: int
) -> None:
    if ended.code != -9:  # it was faster this time
        return
    tally.kills += 1
    unbroken.judge(ended, tally, how)
    if tell is not None:
        tell(tally.kills, kills)
