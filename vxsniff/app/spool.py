"""`vxsniff spool`: a look into the spool, whether or not a vxsniff is running on it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from dotenv import dotenv_values

from vxsniff.app.settings import SettingsError, find_spool_dir
from vxsniff.app.values import size_in_words
from vxsniff.delivery.spool import Entry, Spool, SpoolError

spool_app: Final = typer.Typer(
    help="Look into the spool: calls that wait for the collector, and dead letters that it refused.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
MAX_ANSWER_CHARS: Final = 60

_Folder = Annotated[
    str, typer.Option("--spool-dir", metavar="DIR", help="The spool's folder [SNIFFER_SPOOL_DIR].", show_default=False)
]
_Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="As `list` names them.", show_default=False)]


class Name:
    """A row as people write it: `12` waits, `d3` is a dead letter."""

    def __init__(self, text: str) -> None:
        self.dead = text[:1] in ("d", "D")
        digits = text[1:] if self.dead else text
        if not (digits.isascii() and digits.isdigit()):
            raise SettingsError(f"{text!r} is no id of a batch: use one of `vxsniff spool list`, such as 12 or d3")
        self.row = int(digits)


@contextmanager
def _opened(folder: str) -> Iterator[Spool]:
    flags = {"SNIFFER_SPOOL_DIR": folder} if folder else {}
    path = find_spool_dir(flags, os.environ, dotenv_values(".env"))
    if path is None:
        raise SettingsError("SNIFFER_SPOOL_DIR: the spool is switched off")
    spool = Spool(Path(path), as_guest=True)
    try:
        spool.open()
        yield spool
    except SpoolError as error:
        raise SettingsError(f"the spool {spool.path}: {error}") from None
    finally:
        spool.close()


@spool_app.command("list")
def list_spool(folder: _Folder = "") -> None:
    """Name what waits, and the dead letters with what the collector answered."""
    with _opened(folder) as spool:
        contents = spool.contents()
        for entry in spool.entries(dead=False):
            print(_line("", entry))
        for entry in spool.entries(dead=True):
            print(_line("d", entry))
    print(
        f"{contents.calls} calls wait, {contents.dead_calls} are dead letters; "
        f"{size_in_words(contents.used_bytes)} in {spool.path}"
    )


def _line(prefix: str, entry: Entry) -> str:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.made_ms / 1000))
    text = f"{prefix}{entry.id:<8} {made}  {entry.calls:>7} calls  {size_in_words(entry.packed_bytes):>12}"
    if not prefix:
        return f"{text}  waits"
    answer = "".join(c if c.isprintable() else " " for c in entry.answer[:MAX_ANSWER_CHARS])
    return f"{text}  answered {entry.status} {answer}".rstrip()


@spool_app.command()
def show(name: Annotated[str, typer.Argument(metavar="ID", help="As `list` names it.")], folder: _Folder = "") -> None:
    """Print a batch's calls, as NDJSON."""
    wanted = Name(name)
    with _opened(folder) as spool:
        batch = spool.read(wanted.row, wanted.dead)
        if batch is None:
            raise SettingsError(f"there is no batch {name}: `vxsniff spool list` names those there are")
        sys.stdout.buffer.write(batch.lines)
        sys.stdout.flush()


@spool_app.command()
def retry(
    names: _Ids = None,
    all_dead: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    folder: _Folder = "",
) -> None:
    """Give dead letters another try: behind what waits already."""
    wanted = [Name(name) for name in names or []]
    if any(not one.dead for one in wanted):
        raise SettingsError("only dead letters (d3) can be tried again: what waits is tried anyway")
    with _opened(folder) as spool:
        if all_dead:
            rows = [entry.id for entry in spool.entries(dead=True)]
        else:
            rows = [one.row for one in _some(wanted)]
        print(f"{spool.retry(rows)} calls wait again")


@spool_app.command()
def purge(
    names: _Ids = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead letters.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="All that waits.")] = False,
    folder: _Folder = "",
) -> None:
    """Delete calls without delivering them."""
    wanted = [Name(name) for name in names or []]
    if not (dead or waiting):
        _some(wanted)
    with _opened(folder) as spool:
        calls = 0
        for kind, is_all in ((False, waiting), (True, dead)):
            rows = [entry.id for entry in spool.entries(kind)] if is_all else [o.row for o in wanted if o.dead == kind]
            calls += spool.purge(rows, kind)
    print(f"{calls} calls deleted")


def _some(wanted: list[Name]) -> list[Name]:
    if not wanted:
        raise SettingsError("which? name some, as `vxsniff spool list` does, or all of them (--help tells how)")
    return wanted
