"""Every kind of publication against every kind of statement, one at a time.

Each client has one subscription, so that a failure names the publication; it is compared after every single
statement. All publications share one server and one run of the scenario, which goes no further than the
tests that are selected: ``pytest tests/library/test_statements.py -k cheapest_of_author``.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.conftest import Database, new_database
from tests.ddp import DDPClient
from tests.library import data
from tests.library.ddp import SAMPLES
from tests.oracle import Documents, Oracle, differences, queries
from tests.serving import TROUBLE, Server, start_server

#: What happens, and the statements for it, which are one transaction.
_PARTS = Path(__file__).with_name("scenario.sql").read_text("utf-8").split("\n--- ")[1:]
SCENARIO = dict(part.split("\n", 1) for part in _PARTS) | {"everything anew": data.ROWS}

#: Publications that show nothing to those who are not logged in, or to anybody.
ALWAYS_EMPTY = {"no_books", "my_books", "my_newest_books", "my_feedback", "my_reviewed_books", "my_reviews"}


@dataclasses.dataclass
class Observed:
    """What one run of the scenario has shown."""

    publications: set[str]
    wrong: dict[str, list[str]]  # by publication
    changed: set[tuple[str, str]]  # publication and statement that made a difference to it
    log: str = ""  # of the server


class Watcher:
    """A client with one subscription."""

    def __init__(self, server: Server, publication: str, params: list[Any]) -> None:
        self.server, self.publication, self.params = server, publication, params
        self.queries = queries(publication, params)
        self.open()

    def open(self) -> None:
        self.client = DDPClient(self.server.url)
        self.client.start_subscription(self.publication, *self.params)

    def trouble(self, wanted: Documents) -> list[str]:
        refusals = [str(message) for message in self.client.messages if message["msg"] == "nosub"]
        return [*refusals, *self.client.violations, *differences(self.client.documents, wanted)]


def observe(db: Database, server: Server, publications: list[str]) -> Observed:
    """Run the scenario, one client for each list of parameters."""
    data.reset(db)
    observed = Observed(set(publications), defaultdict(list), set())
    watchers = [Watcher(server, name, params) for name in publications for params in SAMPLES[name]]
    before: dict[Watcher, Documents] = {}
    with db.connect() as writer:
        for name, statements in {"the first look": "", **SCENARIO}.items():
            with writer.transaction():
                writer.execute(statements)
            calls = [watcher.client.start_call("echo", "settled?") for watcher in watchers]
            oracle = Oracle()
            for watcher, call in zip(watchers, calls, strict=True):
                watcher.client.finish_call(call)
                wanted = oracle.documents(watcher.queries)
                if trouble := watcher.trouble(wanted):
                    at = f"{watcher.publication}{watcher.params} after {name!r}"
                    observed.wrong[watcher.publication] += [f"{at}: {line}" for line in trouble]
                    watcher.client.close()
                    # From the right state on, or every later statement would fail too.
                    watcher.open()
                if before.get(watcher, wanted) != wanted:
                    observed.changed.add((watcher.publication, name))
                before[watcher] = wanted
    for watcher in watchers:
        watcher.client.close()
    return observed


@pytest.fixture(scope="module")
def observed(request: pytest.FixtureRequest, cluster: postgres.Cluster) -> Observed:
    """The scenario with the publications of the tests that are selected."""
    selected = {
        item.callspec.params["publication"]
        for item in request.session.items
        if getattr(item, "module", None) is request.module and "publication" in item.fixturenames
    }
    with new_database(cluster) as db:
        data.prepare(db)
        server = start_server(db, DDP_REQUERY_INTERVAL="0.0")
        server.errors_expected = True  # a test of its own looks at the log
        try:
            seen = observe(db, server, [name for name in SAMPLES if name in selected])
            server.stop()
        finally:
            server.kill()
        seen.log = server.log()
    return seen


@pytest.mark.parametrize("publication", SAMPLES)
def test_clients_have_what_the_orm_says_after_each_statement(observed: Observed, publication: str) -> None:
    assert observed.wrong.get(publication, []) == []


def test_the_scenario_leaves_nothing_out(observed: Observed) -> None:
    """Every statement makes a difference to some publication, and every publication sees several of them."""
    if observed.publications != SAMPLES.keys():
        pytest.skip("only some publications are selected")
    seen = Counter(publication for publication, _ in observed.changed)
    rarely = {name: seen[name] for name in SAMPLES.keys() - ALWAYS_EMPTY if seen[name] < 3}
    without_effect = SCENARIO.keys() - {statement for _, statement in observed.changed}
    assert (rarely, without_effect) == ({}, set())


def test_the_server_logs_no_error(observed: Observed) -> None:
    assert not TROUBLE.search(observed.log), observed.log
    # It helps itself where a statement fails; here none should.
    assert "looking at all of a query" not in observed.log, observed.log
