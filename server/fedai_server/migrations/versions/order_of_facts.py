"""A number for each fact over all runs: what came last is then the same question on every database."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "2", "1"


def upgrade() -> None:
    op.rename_table("facts", "facts_before")
    op.create_table(
        "facts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("fact", sa.Text, nullable=False),
        sa.UniqueConstraint("run", "seq", name="one_fact_at_a_place"),
    )
    op.execute(
        "INSERT INTO facts (run, seq, at, kind, fact) "
        "SELECT run, seq, at, kind, fact FROM facts_before ORDER BY at, run, seq"
    )
    op.drop_table("facts_before")
