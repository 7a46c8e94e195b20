"""A release moves the paths of a simulated site: drift alarm -> retraining -> gates -> promotion -> alerts as before.
And the same site without the retraining.

    python -m benchmarks.story

An alert is a distinct (client, hour); false ones have no event of an attack, and are counted as budgets are: like ones
of a day once. Labels are known to this program alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.living_site import DAY, HOUR, LivingSite
from benchmarks.machine import machine
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish
from oddlog.simulation import simulate
from training.due import Conditions

STEP = 6 * HOUR


@dataclass(slots=True)
class Told:
    """What happened on one site."""

    days: list[dict[str, Any]] = field(default_factory=list)
    """By day: `day`, and the figures of living_site.Alerts."""
    first_alarm: float | None = None
    """Hours from the release to the end of the first batch that drifted."""
    quiet_alarms: int = 0
    """Batches that drifted before the release."""
    trained: list[dict[str, Any]] = field(default_factory=list)
    """Retrainings: hours from the release, outcome, why."""
    promoted: float | None = None
    """Hours from the release to the first champion that a retraining made."""

    def mean(self, name: str, first: float, last: float) -> float:
        """Of the days from `first` on and before `last`, counted from the begin of the watched time."""
        found = [float(day[name]) for day in self.days if first <= day["day"] < last]
        return sum(found) / len(found)

    def found(self, first: float, last: float) -> float:
        """Share of the attacks' client-hours with an alert."""
        return self.mean("found_hours", first, last) / self.mean("attack_hours", first, last)


def live(
    folder: Path, *, seed: int, lines_per_day: float, fitted: int, before: int, after: int, algorithm: str,
    retraining: bool, say: Any = lambda text: None,
) -> Told:  # fmt: skip
    """One site: `fitted` days make the champion, `before` days pass, then the release and `after` days more."""
    days = fitted + before + after
    made = simulate(
        seed=seed, days=days, lines_per_day=lines_per_day, attack_share=0.01, release_after=(fitted + before) / days
    )
    start = made.start.replace(hour=0, minute=0, second=0, microsecond=0)
    release = made.start + (fitted + before) * DAY
    told = Told()
    with closing(LivingSite(folder, made.lines, made.labels, algorithm=algorithm, seed=seed)) as site:
        time = start + fitted * DAY
        site.begin(time)
        first = time
        while time < start + days * DAY:
            site.live(time, time + STEP)
            drifted = site.check(time, time + STEP)
            time += STEP
            if drifted and time <= release:
                told.quiet_alarms += 1
            elif drifted and told.first_alarm is None:
                told.first_alarm = (time - release) / HOUR
            if retraining:
                done = site.retrain(Conditions(drifted=True), time)
                if done.trained is not None:
                    since = (time - release) / HOUR
                    told.trained.append({"hours": since, "outcome": done.outcome, "why": done.why})
                    say(f"day {(time - first) / DAY:.2f}: {done.outcome}: {done.why}")
                    if done.outcome == "promoted" and told.promoted is None and time > release:
                        told.promoted = since
            if (time - first) % DAY == dt.timedelta():
                told.days.append({"day": (time - first) // DAY - 1, **asdict(site.alerts(time - DAY, time))})
                say(f"{told.days[-1]}")
    return told


def table(told: dict[str, Told], *, before: int, after: int) -> str:
    """False alerts a day, and the share of the attacks' client-hours with an alert, in the parts of the story."""
    last = max(1, after // 2)
    parts = [("before the release", 0, before), ("its first two days", before, before + 2),
             (f"the last {last} days", before + after - last, before + after)]  # fmt: skip
    rows = []
    for name, first, end in parts:
        row = [name]
        for one in told.values():
            row += [f"{one.mean('false', first, end):.1f}", f"{one.found(first, end):.0%}"]
        rows.append(row)
    head = ["", *(f"{title}, {name}" for name in told for title in ("false alerts a day", "attacks found"))]
    return markdown(head, rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.story", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines-per-day", type=float, default=10_000)
    parser.add_argument("--days", type=int, nargs=3, default=(7, 4, 9), metavar=("FITTED", "BEFORE", "AFTER"))
    parser.add_argument("--algorithm", default="iforest")
    parser.add_argument("--json", type=Path, default=None)
    chosen = parser.parse_args(arguments)
    end_when_asked()
    say, where = told_by_the_clock(), machine()
    fitted, before, after = chosen.days
    told: dict[str, Told] = {}
    for name, retraining in (("with retraining", True), ("without", False)):
        with tempfile.TemporaryDirectory(prefix="oddlog-story-") as folder:
            say(name)
            told[name] = live(
                Path(folder), seed=chosen.seed, lines_per_day=chosen.lines_per_day, fitted=fitted, before=before,
                after=after, algorithm=chosen.algorithm, retraining=retraining, say=say,
            )  # fmt: skip
    one = told["with retraining"]
    hours = {name: "none" if value is None else f"{value:.0f} h" for name, value in
             (("alarm", one.first_alarm), ("promotion", one.promoted))}  # fmt: skip
    events = (
        f"drift alarm {hours['alarm']} after the release, promotion {hours['promotion']} after it; "
        f"{len(one.trained)} trainings; {one.quiet_alarms} of {before * 4} batches before the release drifted"
    )
    figures = {
        "options": {"seed": chosen.seed, "lines_per_day": chosen.lines_per_day, "days": list(chosen.days),
                    "algorithm": chosen.algorithm},
        "sites": {
            name: {"days": one.days, "first_alarm_hours": one.first_alarm, "promoted_hours": one.promoted,
                   "quiet_alarms": one.quiet_alarms, "trained": one.trained}
            for name, one in told.items()
        },
    }  # fmt: skip
    publish("story", where, figures, [table(told, before=before, after=after), events], chosen.json)


if __name__ == "__main__":
    main()
