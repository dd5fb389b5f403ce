"""How long a hospital keeps what: the key `retention` of its policy, in days."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedai.yamlfile import Frozen

Days = Annotated[float, Field(ge=1, le=36_500)] | None


class Retention(Frozen):
    """What is left out is kept until somebody deletes it.

    `originals`: in the inbox, and pictures of the quarantine, since they came. `arrays`: in the cache, since
    they were prepared. `runs`: scores, answers and states of a run, since the last of them was written.
    `sent`: bytes that left; `keep_sent_days` of site.yaml holds too. `approvals`: since they were taken back
    or their time was over.
    """

    originals: Days = None
    arrays: Days = None
    runs: Days = None
    sent: Days = None
    approvals: Days = None
