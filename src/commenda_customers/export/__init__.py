"""
A complete copy of customer lists on disk.

    from commenda_customers.export import JSONLinesFile, export

    summary = await export(api, ["corp_123", "corp_456"], JSONLinesFile("customers.jsonl"))

If the program is killed, run it again: the export resumes. At the end, the output has every customer exactly once.
"""

from ._job import export
from ._shards import shard
from .base import OutputError, OutputRefusedError, Sink, SupportsClose, SupportsFailures, SupportsRestart
from .columns import COLUMNS, COLUMNS_VERSION
from .csv_file import CSVFile
from .json_lines import JSONLinesFile
from .parquet_folder import ParquetFolder
from .sqlite_database import SQLiteDatabase
from .summary import Summary

__all__ = [
    "COLUMNS",
    "COLUMNS_VERSION",
    "CSVFile",
    "JSONLinesFile",
    "OutputError",
    "OutputRefusedError",
    "ParquetFolder",
    "SQLiteDatabase",
    "Sink",
    "Summary",
    "SupportsClose",
    "SupportsFailures",
    "SupportsRestart",
    "export",
    "shard",
]
