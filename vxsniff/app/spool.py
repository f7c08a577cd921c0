"""`vxsniff spool`: a look into the spool, whether or not a vxsniff is running on it. Each worker has its own file."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer
from dotenv import dotenv_values

from vxsniff.app.settings import SettingsError, find_spool_dir
from vxsniff.app.values import size_in_words
from vxsniff.delivery.spool import Entry, Spool, SpoolError, numbers

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


class Name(NamedTuple):
    """A row as people write it: `12` waits, `d3` is a dead letter, `1:d3` one of worker 1."""

    worker: int
    dead: bool
    row: int

    @classmethod
    def parse(cls, text: str) -> Name:
        found = re.fullmatch(r"(?:([0-9]+):)?([dD]?)([0-9]+)", text)
        if found is None:
            raise SettingsError(f"{text!r} is no id of a batch: use one of `vxsniff spool list`, such as 12 or d3")
        return cls(int(found[1] or 0), bool(found[2]), int(found[3]))

    def __str__(self) -> str:
        return f"{f'{self.worker}:' if self.worker else ''}{'d' if self.dead else ''}{self.row}"


@contextmanager
def _opened(folder: str) -> Iterator[dict[int, Spool]]:
    """All of them, by number."""
    flags = {"SNIFFER_SPOOL_DIR": folder} if folder else {}
    path = find_spool_dir(flags, os.environ, dotenv_values(".env"))
    if path is None:
        raise SettingsError("SNIFFER_SPOOL_DIR: the spool is switched off")
    spools = {number: Spool(Path(path), number, as_guest=True) for number in numbers(Path(path)) or [0]}
    try:
        for spool in spools.values():
            try:
                spool.open()
            except SpoolError as error:
                raise SettingsError(f"the spool {spool.path}: {error}") from None
        yield spools
    except SpoolError as error:
        raise SettingsError(f"the spool in {path}: {error}") from None
    finally:
        for spool in spools.values():
            spool.close()


@spool_app.command("list")
def list_spool(folder: _Folder = "") -> None:
    """Name what waits, and the dead letters with what the collector answered."""
    with _opened(folder) as spools:
        for dead in (False, True):
            for number, spool in spools.items():
                for entry in spool.entries(dead):
                    print(_line(Name(number, dead, entry.id), entry))
        contents = [spool.contents() for spool in spools.values()]
        places = " and ".join(str(spool.path) for spool in spools.values())
    print(
        f"{sum(one.calls for one in contents)} calls wait, {sum(one.dead_calls for one in contents)} are dead letters; "
        f"{size_in_words(sum(one.used_bytes for one in contents))} in {places}"
    )


def _line(name: Name, entry: Entry) -> str:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.made_ms / 1000))
    width = 9 if name.dead else 8
    text = f"{name!s:<{width}} {made}  {entry.calls:>7} calls  {size_in_words(entry.packed_bytes):>12}"
    if not name.dead:
        return f"{text}  waits"
    answer = "".join(c if c.isprintable() else " " for c in entry.answer[:MAX_ANSWER_CHARS])
    return f"{text}  answered {entry.status} {answer}".rstrip()


@spool_app.command()
def show(name: Annotated[str, typer.Argument(metavar="ID", help="As `list` names it.")], folder: _Folder = "") -> None:
    """Print a batch's calls, as NDJSON."""
    wanted = Name.parse(name)
    with _opened(folder) as spools:
        batch = spools[wanted.worker].read(wanted.row, wanted.dead) if wanted.worker in spools else None
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
    wanted = [Name.parse(name) for name in names or []]
    if any(not one.dead for one in wanted):
        raise SettingsError("only dead letters (d3) can be tried again: what waits is tried anyway")
    if not all_dead:
        _some(wanted)
    with _opened(folder) as spools:
        _check_workers(wanted, spools)
        calls = sum(spool.retry(_rows(spool, number, wanted, True, all_dead)) for number, spool in spools.items())
    print(f"{calls} calls wait again")


@spool_app.command()
def purge(
    names: _Ids = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead letters.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="All that waits.")] = False,
    folder: _Folder = "",
) -> None:
    """Delete calls without delivering them."""
    wanted = [Name.parse(name) for name in names or []]
    if not (dead or waiting):
        _some(wanted)
    with _opened(folder) as spools:
        _check_workers(wanted, spools)
        calls = 0
        for number, spool in spools.items():
            for kind, is_all in ((False, waiting), (True, dead)):
                calls += spool.purge(_rows(spool, number, wanted, kind, is_all), kind)
    print(f"{calls} calls deleted")


def _rows(spool: Spool, number: int, wanted: list[Name], dead: bool, is_all: bool) -> list[int]:
    """What is meant in one of the files."""
    there = [entry.id for entry in spool.entries(dead)]
    if is_all:
        return there
    for name in wanted:
        if (name.worker, name.dead) == (number, dead) and name.row not in there:
            raise SettingsError(f"there is no batch {name}: `vxsniff spool list` names those there are")
    return [name.row for name in wanted if (name.worker, name.dead) == (number, dead)]


def _check_workers(wanted: list[Name], spools: dict[int, Spool]) -> None:
    for name in wanted:
        if name.worker not in spools:
            raise SettingsError(f"there is no batch {name}: `vxsniff spool list` names those there are")


def _some(wanted: list[Name]) -> None:
    if not wanted:
        raise SettingsError("which? name some, as `vxsniff spool list` does, or all of them (--help tells how)")
