"""What a call on the engine can fail with, by what the caller has to do about it."""

from __future__ import annotations

import psycopg


class RiskError(Exception):
    """A call failed. None of its subclasses but OutcomeUnknown leaves anything behind.

    `sqlstate` is PostgreSQL's code where the database said anything; `detail` names the argument
    and the rule, `hint` says what to do.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        extra = "; ".join(part for part in (self.detail, self.hint) if part)
        return f"{self.message} ({extra})" if extra else self.message


class InvalidRequest(RiskError):  # noqa: N818
    """The call makes no sense as it stands (RK400): correct it."""


class NotAllowed(RiskError):  # noqa: N818
    """The login may not do this, or may not log in (RK403, 42501, class 28)."""


class NotFound(RiskError):  # noqa: N818
    """There is no such account, scope, symbol or order (RK404)."""


class Conflict(RiskError):  # noqa: N818
    """At odds with what is there, such as an id used with other content (RK409)."""


class EngineFault(RiskError):  # noqa: N818
    """Something that should not happen (RK500, or another error of the database): tell an operator.

    Nothing was decided: do not send.
    """


class Unavailable(RiskError):  # noqa: N818
    """The engine could not be asked, or a read got no answer: nothing was changed. Do not send."""


class OutcomeUnknown(RiskError):  # noqa: N818
    """The call was sent and no answer came, however often it was repeated.

    It may have been carried out. Do not send the order; ask again with the same id and the same
    content, and the first answer comes back.
    """


_BY_STATE: dict[str, type[RiskError]] = {
    "RK400": InvalidRequest,
    "RK403": NotAllowed,
    "RK404": NotFound,
    "RK409": Conflict,
    "42501": NotAllowed,
}
# Connection trouble, resources, operator intervention, deadlock, lock not available, and a server
# that only reads since it is no longer the primary: another attempt may succeed.
_PASSING_CLASSES = frozenset({"08", "53", "57"})
_PASSING_STATES = frozenset({"40001", "40P01", "55P03", "25006"})


def is_passing(error: psycopg.Error) -> bool:
    """Whether the same call may well succeed a moment later; its outcome is unknown until then."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state in _PASSING_STATES or state[:2] in _PASSING_CLASSES


def translate(error: psycopg.Error) -> RiskError:
    """The error of the database as one of ours."""
    state = error.sqlstate
    kind = _BY_STATE.get(state or "", EngineFault)
    if state and state.startswith("28"):
        kind = NotAllowed
    elif isinstance(error, psycopg.DataError) or (state is None and kind is EngineFault):
        kind = InvalidRequest  # a value that cannot even be sent, or read as what it should be
    message = error.diag.message_primary or str(error).strip() or type(error).__name__
    return kind(
        message,
        sqlstate=state,
        detail=error.diag.message_detail or None,
        hint=error.diag.message_hint or None,
    )
