"""
Write the customers of some corporations to customers.jsonl, each exactly once, however often the program is killed.

    python export_jsonl.py corp_123 corp_456

Run the same command again after a kill or an error. It resumes. The export is complete when the state file is gone.
"""

import fcntl
import os
import sys
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
from pydantic import BaseModel

from commenda_customers import AsyncCustomersAPI, Checkpoint

DATA = Path("customers.jsonl")
STATE = Path("customers.state.json")
NEW_STATE = Path("customers.state.new")


class State(BaseModel):
    """The checkpoint, and how long the data file is at this checkpoint. Both are saved in one step."""

    corporations: list[str]
    length: int = 0
    checkpoint: Checkpoint | None = None

    def save(self) -> None:
        """Replace the state file. After a kill it has the complete old state or the complete new state."""
        with NEW_STATE.open("w") as file:
            file.write(self.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        NEW_STATE.replace(STATE)


async def export(data: BinaryIO, state: State) -> None:
    """Append the customers that the data file does not have yet."""

    def save(lines: bytes) -> None:
        data.write(lines)
        data.flush()
        os.fsync(data.fileno())  # the data first: the state must never promise what is not in the file
        state.save()

    async with AsyncCustomersAPI() as api, api.stream(state.corporations, resume=state.checkpoint) as stream:
        async for page in stream.pages():
            lines = b"".join(customer.model_dump_json().encode() + b"\n" for customer in page)
            state.length += len(lines)
            state.checkpoint = stream.checkpoint()
            await anyio.to_thread.run_sync(save, lines)  # in a thread: a slow disk must not stop the event loop


def main(corporations: list[str]) -> None:
    """Start an export, or resume the one that was stopped."""
    with DATA.open("ab") as data:
        try:
            fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system unlocks the file when the program ends
        except BlockingIOError:
            sys.exit(f"another program writes {DATA}")
        state = State.model_validate_json(STATE.read_bytes()) if STATE.exists() else State(corporations=corporations)
        if state.corporations != corporations or os.fstat(data.fileno()).st_size < state.length:
            sys.exit(f"{STATE} belongs to another export; to start again, delete it")
        state.save()
        data.truncate(state.length)  # remove what was written after the checkpoint
        anyio.run(export, data, state)
        STATE.unlink()


if __name__ == "__main__":
    main(sys.argv[1:] or ["corp_123"])
