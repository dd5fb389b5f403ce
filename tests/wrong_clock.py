"""`fedai site start` on a machine whose clock is wrong: `wrong_clock.py SECONDS site start HOME`."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

from flwr.supernode import node_auth_http_interceptor as signing

from fedai.cli.app import run

if __name__ == "__main__":
    off, right = timedelta(seconds=float(sys.argv[1])), signing.now

    def wrong() -> datetime:
        return right() + off

    signing.now = wrong
    sys.exit(run(sys.argv[2:]))
