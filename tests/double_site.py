"""`fedai site start` that sends every answer three times, for tests: `double_site.py site start HOME`.

Once as it should, once more the same bytes, as when a line breaks after the last of them, and once packed
anew, which is another message to Flower. What the server says to the second and third is printed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from fedai_site import agent
from fedai_site.fleet import Fleet, Parcel, pack

from fedai.cli.app import run
from fedai.errors import FederationError

PACKED_ANEW: dict[str, Parcel] = {}


def pack_twice(content: Any, task: Any) -> Parcel:
    parcel = pack(content, task)
    time.sleep(0.01)  # the time is part of a message
    PACKED_ANEW[parcel.message.metadata.message_id] = pack(content, task)
    return parcel


def double() -> None:
    """Put this in the way of what this process sends."""
    send = Fleet.send

    def send_thrice(self: Fleet, parcel: Parcel, seconds: float) -> None:
        send(self, parcel, seconds)
        for again in (parcel, PACKED_ANEW.pop(parcel.message.metadata.message_id)):
            try:
                send(self, again, seconds)
                print("sent again: taken", flush=True)
            except FederationError as error:
                print(f"sent again: {error}", flush=True)

    agent.pack = pack_twice
    Fleet.send = send_thrice  # type: ignore[method-assign]


if __name__ == "__main__":
    double()
    sys.exit(run(sys.argv[1:]))
