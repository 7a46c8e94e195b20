"""The campaign as a program.

    python -m benchmarks.campaign --short                            two to three minutes on 2 cores
    python -m benchmarks.campaign --seed 7 --faults 200 --records 1000000

Starts its own Kafka, Elasticsearch, scorer and consumers on 127.0.0.1, ends them, and prints a table. Exit code 1
when a property is broken.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.campaign.plan import plan, short_plan
from benchmarks.campaign.report import remarks, table
from benchmarks.campaign.run import as_json, run_campaign
from benchmarks.program import end_when_asked, told_by_the_clock

SHORT_RECORDS = 12_000
SECONDS_A_FAULT = 7.0
"""About: what the load is paced by, where --rate does not say."""


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--records", type=int, default=None, help="default: 12,000 with --short, else 5,000 a fault")
    parser.add_argument("--rate", type=float, default=None, help="records a second while faults go on")
    parser.add_argument("--short", action="store_true", help="one fault of each of thirteen kinds")
    parser.add_argument("--keep", action="store_true", help="leave data and logs where they are, and say where")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    faults = short_plan(given.seed) if given.short else plan(given.seed, given.faults)
    records = given.records or (SHORT_RECORDS if given.short else 5_000 * given.faults)
    say = told_by_the_clock()
    end_when_asked()
    rate = given.rate or records / (SECONDS_A_FAULT * len(faults))
    outcome = run_campaign(faults, seed=given.seed, records=records, rate=rate, keep=given.keep, say=say)
    print(as_json(outcome) if given.json else table(outcome))
    if text := remarks(outcome):
        print(text, file=sys.stderr)
    if outcome.folder:
        print(f"kept: {outcome.folder}", file=sys.stderr)
    raise SystemExit(1 if outcome.broken else 0)


if __name__ == "__main__":
    main()
