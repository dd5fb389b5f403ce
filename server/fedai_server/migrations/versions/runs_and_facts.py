"""Runs, and what happened in each. Databases from before there were steps are as this one leaves them."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "1", None


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("flower_id", sa.Text, unique=True),
        sa.Column("study", sa.Text, nullable=False),
        sa.Column("study_sha256", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("ended", sa.Text, nullable=False, server_default=""),
    )
    op.create_table(
        "facts",
        sa.Column("run", sa.Text, sa.ForeignKey("runs.name"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("fact", sa.Text, nullable=False),
    )
