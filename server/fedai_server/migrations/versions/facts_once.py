"""A key for each fact, made before it is first written: one that is written again is found, and isn't added.

Facts of before have none.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "3", "2"


def upgrade() -> None:
    op.add_column("facts", sa.Column("key", sa.Text))
    op.create_index("a_fact_once", "facts", ["key"], unique=True)
