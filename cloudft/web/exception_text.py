"""Keep the text of exceptions out of a server's log."""

from __future__ import annotations

import logging
import traceback


def hide_exception_text(record: logging.LogRecord) -> bool:
    """Keep where an unexpected exception came from, without its text: that may quote a record."""
    if record.exc_info and record.exc_info[0] is not None:
        kind, _, trace = record.exc_info
        where = "".join(traceback.format_tb(trace))
        record.msg, record.args = f"{record.getMessage().strip()}\n{where}{kind.__name__}", ()
        record.exc_info = record.exc_text = None
    return True
