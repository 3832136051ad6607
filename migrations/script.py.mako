"""${message}."""

from __future__ import annotations

from pgrisk.migrations import refuse_downgrade, run_frozen_sql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_frozen_sql(revision)


def downgrade() -> None:
    refuse_downgrade(revision)
