"""What `docs/faults.md` promises about each fault, on raw sockets: a list and a stream, on asyncio and trio."""

import pytest

from fault_matrix import connection, content, cursors, encodings, framing, http2, proxies, tls
from fault_matrix.rows import Row, rows_of, sections
from fault_matrix.runs import WAYS, Fault, outcome_of
from named_tests import check_names

pytestmark = pytest.mark.anyio

TABLES: dict[str, dict[str, Fault]] = {
    "The connection": connection.FAULTS,
    "The head and the length of a response": framing.FAULTS,
    "The content of a page": content.FAULTS,
    "Compression": encodings.FAULTS,
    "Cursors": cursors.FAULTS,
    "TLS": tls.FAULTS,
    "Proxies": proxies.FAULTS,
    "HTTP/2": http2.FAULTS,
}
PROCESS = "The process and the clock"
ROWS = [row for section in TABLES for row in rows_of(section)]


@pytest.mark.parametrize("section", TABLES)
def test_every_row_has_a_behaviour_and_every_behaviour_a_row(section: str) -> None:
    """The page and the tests have the same faults, each once, in the same order."""
    assert [row.fault for row in rows_of(section)] == [*TABLES[section]]


def test_the_page_has_no_other_outcomes_and_no_other_tables() -> None:
    """The outcomes are those that the page explains, and each table is read by a test."""
    outcomes = {row.fault for row in rows_of("Outcomes")}
    used = {row.outcome for row in [*ROWS, *rows_of("Statuses"), *rows_of("Redirects")]}
    assert used == outcomes
    elsewhere = {"Statuses", "Waits", "Redirects", "What the client sends"}  # test_fault_matrix_requests.py
    elsewhere.add("With pyreqwest")  # test_pyreqwest.py
    assert {*sections()} == {*TABLES} | elsewhere | {"Outcomes", PROCESS}


@pytest.mark.parametrize("row", rows_of(PROCESS), ids=lambda row: row.fault)
def test_each_fault_of_the_process_names_tests_that_exist(row: Row) -> None:
    """A fault that a server cannot cause has its own tests."""
    check_names(row.cells[2])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_what_the_page_says_happens(row: Row, anyio_backend_name: str) -> None:
    """A list or a stream reads while the fault happens at first, the other one while it happens each time."""
    fault = TABLES[row.section][row.fault]
    assert await outcome_of(fault, WAYS[anyio_backend_name]) == (row.outcome, row.error)
