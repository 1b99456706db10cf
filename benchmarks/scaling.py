"""What a write costs with many subscriptions: ``python -m benchmarks.scaling``.

A real ``trigger-ddp serve`` has 100, then 1 000, 10 000 and 50 000 subscriptions, over WebSockets; single
rows are written, one to a transaction, each of which concerns one of them. The columns of ratios say 1 all
the way down if it costs the same however many there are.

filter
    Each subscription is to the books of another author, ``filter(author_id=…)``; a book is written.
join
    … to an author and the books, ``filter(email=…)`` and ``filter(author__email=…)``. Written are a book; the
    author's name, which the join does not look at; the author's address, so that all leave and come back.
window
    … to an author's five cheapest books. A price moves one book out and another in.
one query, shared
    Every subscription is to the same author's books and from a session of its own: all hear of each write, so
    that the cost per message is what tells.

CPU is the server process's time, PG that of its PostgreSQL connections, without the writer's and so without
the trigger's. p50 and p99 are of every message, from just before COMMIT to the client's recv(). A write waits
until server and PostgreSQL rest from the one before, so that none are batched. Subscriptions are added to
those that are there; each case has a server of its own.

Below stand, as bare SQL and so without Python's part, ways to find the subscription that a row concerns. The
floor, which is the server's, is one query for the row that selects what the parameters are compared with.
Others are a LATERAL join over the parameters of all; one query per subscription, as django-ddp does (200 are
measured, and the time multiplied).

Every write must arrive exactly once at exactly the subscriptions it matches, or this ends with status 1 and
says what went wrong. It takes Linux, for the clocks of other processes.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys

from benchmarks import report, rivals
from benchmarks.bookstore import Bookstore
from benchmarks.cases import CASES, Case
from benchmarks.fleet import Wrong
from benchmarks.measuring import GivenUp, Measured, Options, measuring
from tests import postgres
from tests.conftest import Database

BOOKS, AUTHORS = 100_000, 10_000
QUICK_AUTHORS = 40
BOOKS_EACH = 10
#: Sessions of the case where each subscription has one.
SHARED_AT_MOST = 1000
#: Files besides the sessions' sockets.
MORE_FILES = 200
#: Subscriptions for which the ways in bare SQL are measured.
RIVALS_AT_MOST = 10_000

#: What was measured with each number of subscriptions, or why nothing was.
Row = dict[int, Measured | str]


def run_case(case: Case, database: Database, store: Bookstore, options: Options) -> dict[str, Row]:
    """What was measured, by title of the writes."""
    rows: dict[str, Row] = {title: {} for title in case.writes}
    counts = options.subscriptions
    if case.shared:
        counts = [count for count in counts if count <= SHARED_AT_MOST] or [SHARED_AT_MOST]
    left = dict(case.writes)
    try:
        with measuring(database, store, options) as found:
            for count in counts:
                for title in left:
                    rows[title][count] = ""
                found.subscribe(case, count)
                for title, writes in list(left.items()):
                    rows[title][count] = measured = found.measure(case, writes)
                    if measured.writes < options.writes:
                        del left[title]
                        reason = f"patience was enough for {measured.writes} writes with {number(count)}"
                        rows[title].update({more: f"not tried: {reason}" for more in counts if more > count})
                if not left:
                    break
    except GivenUp as reason:
        for row in rows.values():
            row.update({count: f"given up: {reason}" for count, measured in row.items() if measured == ""})
    return rows


def number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def print_case(rows: dict[str, Row], options: Options) -> None:
    for title, row in rows.items():
        first: Measured | None = None
        for count, measured in row.items():
            print(f"{title:21}{number(count):>7}", end="")
            title = ""
            if isinstance(measured, str):
                print(f"  {measured}")
                continue
            first = first or measured
            ratios = [ours / theirs for ours, theirs in zip(measured.columns, first.columns, strict=True)]
            figures = [value * 1000 for value in measured.columns]
            per_message = measured.cpu * measured.writes / len(measured.latencies) * 1e6
            print(
                *(f"{ratio:6.2f}" for ratio in ratios), " |", *(f"{figure:7.2f}" for figure in figures),
                f"{per_message:8.0f}", end="",
            )  # fmt: skip
            print(f"  in {measured.writes} writes" if measured.writes < options.writes else "", flush=True)


def keep(found: report.Report, rows: dict[str, Row]) -> None:
    """Put the CPU of a case's writes into the report, and whether it stays what it is with few."""
    for title, row in rows.items():
        costs = {count: measured.cpu for count, measured in row.items() if isinstance(measured, Measured)}
        for count, cpu in costs.items():
            found.number(f"{title}, {count}", cpu * 1e3, "ms CPU")
        if len(costs) > 1:
            least, most = min(costs), max(costs)
            name = f"{title}: CPU with {most}, to that with {least}"
            found.target(name, costs[most] / costs[least], 1.3)


def print_rivals(costs: dict[tuple[str, int], dict[str, rivals.Cost]]) -> None:
    if not costs:
        return
    print(f"\n{'bare SQL':26}subscr.  times the floor  |       ms   CPU ms")
    for (title, count), ways in costs.items():
        floor = ways["lifted"]
        for way, cost in ways.items():
            print(
                f"{title + ': ' + way:26}{number(count):>7}{cost.wall / floor.wall:17.1f}  |"
                f"{cost.wall * 1000:9.2f}{cost.cpu * 1000:9.2f}"
            )


def numbers(text: str) -> list[int]:
    """Argparse's type of ``--subscriptions``."""
    found = sorted({int(part) for part in text.split(",")})
    if found[0] < 1:
        raise ValueError
    return found


def allow_files(count: int) -> None:
    """Let this process and its servers open that many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Wrong(f"{count} open files are needed, but `ulimit -n -H` says {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument(
        "--subscriptions", type=numbers, metavar="N,N…", help="how many (default: 100,1000,10000,50000)"
    )
    parser.add_argument("--writes", type=int, help="of each kind and number, an even number (default: 50)")
    # By default a little more than DDP_REQUERY_INTERVAL apart, which is not what is to be measured.
    parser.add_argument("--rate", type=float, default=18, help="writes a second, at most (default: 18)")
    parser.add_argument(
        "--patience", type=float, default=20,
        help="seconds for those writes; where they are too few, larger numbers are not tried (default: 20)",
    )  # fmt: skip
    parser.add_argument(
        "--only", help="cases whose title starts so: filter, join, window, one; '': all (default: filter)"
    )
    arguments = parser.parse_args()
    subscriptions = arguments.subscriptions or ([5, 20] if arguments.quick else [100, 1000, 10_000, 50_000])
    if arguments.only is None:
        arguments.only = "" if arguments.quick else "filter"
    writes = arguments.writes or (4 if arguments.quick else 50)
    if writes < 2 or writes % 2:
        parser.error("--writes must be even: the second of two may undo the first")
    options = Options(subscriptions, writes, 1000 if arguments.quick else arguments.rate, arguments.patience)
    authors = max(QUICK_AUTHORS if arguments.quick else AUTHORS, subscriptions[-1])
    store = Bookstore(authors, authors * BOOKS_EACH if arguments.quick else max(BOOKS, authors * BOOKS_EACH))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    try:
        with contextlib.ExitStack() as stack:
            allow_files(SHARED_AT_MOST + MORE_FILES)
            cluster = postgres.Cluster(arguments.major, postgres.binaries()[arguments.major])
            stack.callback(cluster.remove)
            database = store.create(cluster, "scaling")
            rounds = 2 if arguments.quick else 20
            costs = {  # first, while the books are as they were dealt out
                (title, count): rivals.measure(database.dsn, store, count, filter_, rounds)
                for title, filter_ in rivals.FILTERS.items()
                if title.startswith(arguments.only)
                for count in subscriptions
                if count <= RIVALS_AT_MOST
            }
            found = report.Report("scaling", str(arguments.major))
            print(
                f"{number(store.books)} books of {number(authors)} authors,"
                f" {writes} writes each, {options.rate:g} a second at most\n"
            )
            print(f"each write{'times the first of its kind':>44}{'':12}ms{'':24}us per")
            print(f"{'subscriptions':>28}    CPU    PG   p50   p99  |     CPU", end="")
            print("      PG     p50     p99  message")
            for case in CASES:
                if any(title.startswith(arguments.only) for title in case.writes):
                    rows = run_case(case, database, store, options)
                    print_case(rows, options)
                    keep(found, rows)
            print_rivals(costs)
            found.write(arguments.json)
    except Wrong as error:
        sys.exit(f"benchmarks.scaling: {error}")


if __name__ == "__main__":
    main()
