"""The decision engine: reference data, limits, orders, fills and the calls that decide."""

from __future__ import annotations

from pgrisk.migrations import refuse_downgrade, run_frozen_sql

revision = "0001_decision_engine"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_frozen_sql(revision)


def downgrade() -> None:
    refuse_downgrade(revision)
