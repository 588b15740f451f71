"""Every way a command can fail, as one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

INTERRUPTED, BUG, OUT_OF_MEMORY, NO_INPUT_OUTPUT = 130, 70, 71, 74
CLOSED_PIPE = 1  # as click and rich have it


class InterruptedRun(Exception):
    """A run that stopped because it was asked to; its text says how to go on."""


def report(error: BaseException) -> int:
    """Says what went wrong and returns the exit code. `SystemExit` goes on as it is."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, BrokenPipeError):
        return _closed_pipe()
    text, code = describe(error)
    if os.environ.get("EDGECL_DEBUG") == "1":
        traceback.print_exception(error)
    print(f"edgecl: {text}", file=sys.stderr)
    return code


def describe(error: BaseException) -> tuple[str, int]:
    """(line, exit code) of anything but click's own errors."""
    from edgecl.types import EdgeclError

    text = " ".join(str(error).split())
    if isinstance(error, EdgeclError):
        return f"error: {text}", error.exit_code
    if isinstance(error, InterruptedRun):
        return text, INTERRUPTED
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", INTERRUPTED
    if _out_of_memory(error, text):
        return "error: out of memory; a smaller train.batch or net.width needs less", OUT_OF_MEMORY
    if isinstance(error, OSError) and error.strerror:
        return f"error: {error.filename or 'input or output'}: {error.strerror.lower()}", NO_INPUT_OUTPUT
    return f"error: this is a bug: {type(error).__name__}: {text}; EDGECL_DEBUG=1 shows where", BUG


def _out_of_memory(error: BaseException, text: str) -> bool:
    """torch has a class of its own on a GPU, and on a CPU only a message."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "not enough memory" in text) or "can't allocate memory" in text


def _closed_pipe() -> int:
    """The reader of a pipe has gone (`| head`): quiet, and nothing is flushed to it at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE
