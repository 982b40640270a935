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
PROCESS = "The process and the time"
ROWS = [row for section in TABLES for row in rows_of(section)]


@pytest.mark.parametrize("section", TABLES)
def test_every_row_has_a_behaviour_and_every_behaviour_a_row(section: str) -> None:
    """The page and the tests have the same faults, each once, in the same order."""
    assert [row.fault for row in rows_of(section)] == [*TABLES[section]]


def test_the_page_has_no_other_words_and_no_other_tables() -> None:
    """The outcomes are those that the page explains, and each table is read by a test."""
    words = {row.fault for row in rows_of("The words")}
    used = {row.outcome for row in [*ROWS, *rows_of("Statuses"), *rows_of("Redirects")]}
    assert used == words
    elsewhere = {"Statuses", "Waits", "Redirects", "What the client sends"}  # test_fault_matrix_requests.py
    assert {*sections()} == {*TABLES} | elsewhere | {"The words", PROCESS}


@pytest.mark.parametrize("row", rows_of(PROCESS), ids=lambda row: row.fault)
def test_each_fault_of_the_process_names_tests_that_exist(row: Row) -> None:
    """What cannot be done to a server is held by tests of its own."""
    check_names(row.cells[2])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_what_the_page_says_happens(row: Row, anyio_backend_name: str) -> None:
    """A list or a stream meets the fault while it passes, the other one while it lasts. The outcome is that of the row."""
    fault = TABLES[row.section][row.fault]
    assert await outcome_of(fault, WAYS[anyio_backend_name]) == (row.outcome, row.error)
