"""The exception tree, innocent of HTTP.

`web/problems.py` alone gives a status and a body, `cli/main.py` alone an exit code.
"""

from __future__ import annotations


class MallardError(Exception):
    """Something Mallard refuses or cannot do; its text is fit for the caller to read.

    code: the machine's word for it, snake case. field: the name of the input that is wrong,
    as the caller spelt it, where one field is to blame. rule: what would be right.
    """

    code = "internal_error"

    def __init__(self, detail: str, *, field: str | None = None, rule: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.rule = rule


class InvalidInput(MallardError):
    """The caller sent something malformed."""

    code = "invalid_input"


class MissingInput(InvalidInput):
    """A required field is absent, which 003 answers otherwise than a malformed one."""

    code = "missing_field"


class PayloadTooLarge(InvalidInput):
    """The body is larger than the door takes, before or after decompression."""

    code = "payload_too_large"


class UnsupportedEncoding(InvalidInput):
    """The body's Content-Encoding is one we do not read."""

    code = "unsupported_encoding"


class SlowRequest(MallardError):
    """The body did not arrive in time."""

    code = "request_timeout"


class Unauthenticated(MallardError):
    """Nobody has said who is asking."""

    code = "unauthenticated"


class Forbidden(MallardError):
    """The asker is known, and may not."""

    code = "forbidden"


class NotFound(MallardError):
    """There is no such thing, or the asker may not know of it."""

    code = "not_found"


class Conflict(MallardError):
    """Something else is there already that this would contradict."""

    code = "conflict"


class RateLimited(MallardError):
    """Too many requests for one site.

    retry_after_seconds: whole seconds until one more will be taken, at least 1.
    """

    code = "rate_limited"

    def __init__(
        self,
        detail: str,
        *,
        retry_after_seconds: int,
        field: str | None = None,
        rule: str | None = None,
    ) -> None:
        super().__init__(detail, field=field, rule=rule)
        self.retry_after_seconds = retry_after_seconds


class Overloaded(MallardError):
    """No room, or no disk, for more events just now; nothing was stored and a retry is right.

    retry_after_seconds: whole seconds after which a retry is reasonable, at least 1.
    """

    code = "overloaded"

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class QueryTimeout(MallardError):
    """A query ran into its time limit."""

    code = "query_timeout"


class QueryTooLarge(MallardError):
    """A query needs more memory than one may have."""

    code = "query_too_large"


class ConfigError(MallardError):
    """A setting is unknown or wrong; the text says which line and what would be right."""

    code = "config_error"


class StorageError(MallardError):
    """The data folder cannot be used: another server holds it, or the disk fails."""

    code = "storage_error"


class CorruptData(StorageError):
    """A file on disk is not what was written."""

    code = "corrupt_data"
