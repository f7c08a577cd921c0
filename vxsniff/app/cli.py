"""The command line: flags -> settings -> a worker; `rules check`; `demo`. Errors are one line and an exit status."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from dotenv import dotenv_values

from vxsniff import __version__
from vxsniff.app import settings, values
from vxsniff.app.build import build
from vxsniff.app.control import ControlError, ask
from vxsniff.app.inherited import Inherited
from vxsniff.app.settings import Inputs, Settings, SettingsError
from vxsniff.app.spool import spool_app
from vxsniff.app.table import BY_VARIABLE
from vxsniff.app.worker import EXIT_NO_CAPTURE, EXIT_OWN, EXIT_USAGE, Worker
from vxsniff.call.rules import RuleError, RuleSet, parse_rules
from vxsniff.capture.devices import list_devices
from vxsniff.capture.pcap import LINK_TYPE_NAMES, link_type_of
from vxsniff.capture.source import CaptureError

HELP: Final = """Record the API calls in mirrored traffic.

Receives VXLAN (AWS VPC Traffic Mirroring and others) on UDP 4789, captures on local devices, or reads capture files, \
and ships each HTTP call as one line of NDJSON to the capture URL. Each setting is a flag, an environment variable and \
a line of .env, in this order of precedence.

Exit status: 0 done; 1 a capture file could not be read to its end, the doctor found a problem, or `health` says that \
nothing is captured; 2 a setting, rule or argument is wrong; 3 capturing could not begin, or no vxsniff is running to \
talk to; 4 a capture file's calls could not all be delivered; 70 an error of vxsniff's own.
"""

app: Final = typer.Typer(
    name="vxsniff",
    help=HELP,
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
rules_app: Final = typer.Typer(help="Work with privacy rules.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rules_app, name="rules")
app.add_typer(spool_app, name="spool")


def _option(variable: str) -> Any:
    """The command line's option for a row of the settings table."""
    row = BY_VARIABLE[variable]
    default = f" [default: {row.default}]" if row.default else ""
    return typer.Option(
        row.flag,
        metavar=row.metavar or None,
        help=f"{row.help}{default} [{variable}]",
        rich_help_panel=row.panel,
        show_default=False,
    )


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"vxsniff {__version__} ({build()})")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def capture(
    context: typer.Context,
    engine: Annotated[str | None, _option("SNIFFER_ENGINE")] = None,
    read: Annotated[list[str] | None, _option("SNIFFER_READ")] = None,
    vnis: Annotated[str | None, _option("SNIFFER_MIRROR_VNIS")] = None,
    vnis_file: Annotated[str | None, _option("SNIFFER_MIRROR_VNIS_FILE")] = None,
    port: Annotated[str | None, _option("SNIFFER_MIRROR_VXLANPORT")] = None,
    geneve_port: Annotated[str | None, _option("SNIFFER_MIRROR_GENEVEPORT")] = None,
    address: Annotated[str | None, _option("SNIFFER_MIRROR_ADDRESS")] = None,
    dedup: Annotated[bool | None, _option("SNIFFER_MIRROR_DEDUP")] = None,
    app_ports: Annotated[str | None, _option("APP_PORTS")] = None,
    device: Annotated[str | None, _option("NET_DEVICE")] = None,
    ignore_device: Annotated[str | None, _option("SNIFFER_IGNORE_DEVICES")] = None,
    promisc: Annotated[bool | None, _option("SNIFFER_PROMISC_ENABLED")] = None,
    rf_monitor: Annotated[bool | None, _option("SNIFFER_RF_MONITOR_ENABLED")] = None,
    bpf: Annotated[str | None, _option("SNIFFER_BPF_FILTER")] = None,
    no_filter: Annotated[bool | None, _option("SNIFFER_NOFILTER")] = None,
    pcap_buffer: Annotated[str | None, _option("SNIFFER_PCAP_BUFFER_SIZE")] = None,
    url: Annotated[str | None, _option("USAGE_LOGGERS_URL")] = None,
    disable: Annotated[bool | None, _option("USAGE_LOGGERS_DISABLE")] = None,
    batch_size: Annotated[str | None, _option("SNIFFER_BATCH_SIZE")] = None,
    batch_wait: Annotated[str | None, _option("SNIFFER_BATCH_WAIT")] = None,
    queue_limit: Annotated[str | None, _option("SNIFFER_QUEUE_LIMIT")] = None,
    spool_dir: Annotated[str | None, _option("SNIFFER_SPOOL_DIR")] = None,
    spool_limit: Annotated[str | None, _option("SNIFFER_SPOOL_LIMIT")] = None,
    spool_always: Annotated[bool | None, _option("SNIFFER_SPOOL_ALWAYS")] = None,
    rules: Annotated[str | None, _option("USAGE_LOGGERS_RULES")] = None,
    realip_header: Annotated[str | None, _option("SNIFFER_REALIP_HEADER")] = None,
    body_limit: Annotated[str | None, _option("SNIFFER_BODY_LIMIT")] = None,
    call_id: Annotated[bool | None, _option("SNIFFER_CALL_ID")] = None,
    memory_limit: Annotated[str | None, _option("SNIFFER_MEMORY_LIMIT")] = None,
    workers: Annotated[str | None, _option("SNIFFER_WORKERS")] = None,
    metrics: Annotated[str | None, _option("SNIFFER_METRICS_ADDRESS")] = None,
    control: Annotated[str | None, _option("SNIFFER_CONTROL_SOCKET")] = None,
    debug: Annotated[bool | None, _option("SNIFFER_DEBUG_ENABLED")] = None,
    verbosity: Annotated[str | None, _option("SNIFFER_DEBUG_VERBOSITY")] = None,
    debug_export: Annotated[str | None, _option("SNIFFER_DEBUG_EXPORT")] = None,
    debug_endpoint: Annotated[str | None, _option("SNIFFER_DEBUG_HTTP_ENDPOINT")] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is not None:
        return
    given: dict[str, str | bool | None] = {
        "SNIFFER_ENGINE": engine,
        "SNIFFER_READ": "\n".join(read) if read else None,
        "SNIFFER_MIRROR_VNIS": vnis,
        "SNIFFER_MIRROR_VNIS_FILE": vnis_file,
        "SNIFFER_MIRROR_VXLANPORT": port,
        "SNIFFER_MIRROR_GENEVEPORT": geneve_port,
        "SNIFFER_MIRROR_ADDRESS": address,
        "SNIFFER_MIRROR_DEDUP": dedup,
        "APP_PORTS": app_ports,
        "NET_DEVICE": device,
        "SNIFFER_IGNORE_DEVICES": ignore_device,
        "SNIFFER_PROMISC_ENABLED": promisc,
        "SNIFFER_RF_MONITOR_ENABLED": rf_monitor,
        "SNIFFER_BPF_FILTER": bpf,
        "SNIFFER_NOFILTER": no_filter,
        "SNIFFER_PCAP_BUFFER_SIZE": pcap_buffer,
        "USAGE_LOGGERS_URL": url,
        "USAGE_LOGGERS_DISABLE": disable,
        "SNIFFER_BATCH_SIZE": batch_size,
        "SNIFFER_BATCH_WAIT": batch_wait,
        "SNIFFER_QUEUE_LIMIT": queue_limit,
        "SNIFFER_SPOOL_DIR": spool_dir,
        "SNIFFER_SPOOL_LIMIT": spool_limit,
        "SNIFFER_SPOOL_ALWAYS": spool_always,
        "USAGE_LOGGERS_RULES": rules,
        "SNIFFER_REALIP_HEADER": realip_header,
        "SNIFFER_BODY_LIMIT": body_limit,
        "SNIFFER_CALL_ID": call_id,
        "SNIFFER_MEMORY_LIMIT": memory_limit,
        "SNIFFER_WORKERS": workers,
        "SNIFFER_METRICS_ADDRESS": metrics,
        "SNIFFER_CONTROL_SOCKET": control,
        "SNIFFER_DEBUG_ENABLED": debug,
        "SNIFFER_DEBUG_VERBOSITY": verbosity,
        "SNIFFER_DEBUG_EXPORT": debug_export,
        "SNIFFER_DEBUG_HTTP_ENDPOINT": debug_endpoint,
    }
    flags = {name: str(value) for name, value in given.items() if value is not None}

    inherited = Inherited.take(os.environ)

    def read_settings(inputs: Inputs | None = None) -> Settings:
        """Anew, or of inputs that were read before."""
        if inherited is not None:
            inputs = inherited.inputs()
        if inputs is None:
            return settings.resolve(flags, os.environ, dotenv_values(".env"))
        chosen = settings.resolve(flags, os.environ, inputs.dotenv, inputs)
        return chosen if inherited is None else chosen.share(inherited.workers)

    chosen = read_settings()
    _set_up_log(chosen.debug, "" if inherited is None else f"worker {inherited.worker}: ")
    if inherited is None and chosen.workers > 1:
        from vxsniff.app.supervisor import Supervisor, own_command  # what one command needs, others don't wait for

        raise typer.Exit(Supervisor(chosen, read_settings, own_command()).run())
    raise typer.Exit(Worker(chosen, read_settings, inherited).run())


@rules_app.command("check")
def check_rules(
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="A file of rules, or - for standard input.", show_default=False)
    ] = "",
) -> None:
    """Print the rules as they are understood; exit status 2 and the reason at the first that is wrong.

    Without FILE the rules of USAGE_LOGGERS_RULES are checked, from the environment or .env.
    """
    if file:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SettingsError(f"the rules file {file} can't be read: {reason}") from None
        try:
            rules = parse_rules(text)
        except RuleError as error:
            raise SettingsError(f"{file}: {error}") from None
    else:
        rules = settings.resolve({}, os.environ, dotenv_values(".env")).rules
    _print_rules(rules)


def _print_rules(rules: RuleSet) -> None:
    for rule in rules.rules:
        print(f"line {rule.line}: {rule.describe()}")
    if not rules.rules:
        print("no rules: calls are shipped as they are")
    for rule in rules.slow_rules:
        print(
            f"warning: line {rule.line} can't run in linear time: values are looked at up to a bound", file=sys.stderr
        )


@app.command()
def demo(
    calls: Annotated[int, typer.Option(metavar="N", help="End after so many calls; 0 goes on.", min=0)] = 0,
    rate: Annotated[float, typer.Option(metavar="R", help="Calls a second.", min=0.1, max=1000)] = 5.0,
    vni: Annotated[int, typer.Option(metavar="VNI", help="The mirror session's VNI.", min=0, max=2**24 - 1)] = 123,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="UDP port that the mirror sends to; 0 takes a free one.", min=0)
    ] = 4789,
    url: Annotated[str, typer.Option(metavar="URL", help="Where the calls go.")] = "tty",
    rules: Annotated[str, typer.Option(metavar="RULES", help="Privacy rules.")] = "include debug",
    lose: Annotated[float, typer.Option(metavar="P", help="Share of packets that the mirror loses.", max=1)] = 0.0,
    repeat: Annotated[float, typer.Option(metavar="P", help="Share of packets that it sends twice.", max=1)] = 0.0,
    reorder: Annotated[float, typer.Option(metavar="P", help="Share of packets that it sends late.", max=1)] = 0.0,
    truncate: Annotated[
        int, typer.Option(metavar="BYTES", help="Cut mirrored frames to this length; 0 does not.", min=0)
    ] = 0,
    to: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Mirror to a vxsniff that runs there; none is started here.")
    ] = "",
) -> None:
    """See it work: a web shop, its clients and a mirror of their packets, all on this machine.

    Needs no privileges, no AWS and no collector. Ctrl-C ends it and prints the ledger. With --to it is just the
    traffic, for a vxsniff elsewhere.
    """
    from vxsniff.demo.relay import Faults
    from vxsniff.demo.run import run_demo, run_traffic

    faults = Faults(lose, repeat, reorder, truncate)
    if to:
        try:
            target = values.parse_target(to)
        except ValueError as error:
            raise SettingsError(f"--to: {error}") from None
        try:
            run_traffic(calls, rate, vni, target, faults)
        except OSError as error:
            raise CaptureError(f"--to: {to} can't be sent to: {error.strerror or error}") from None
        return
    raise typer.Exit(run_demo(calls, rate, vni, port, url, rules, faults))


@app.command("devices")
def show_devices() -> None:
    """List this host's network devices: name, state, link type, addresses. For --device."""
    rows = []
    for device in list_devices():
        link_type = link_type_of(device.name)
        kind = LINK_TYPE_NAMES.get(link_type, str(link_type)) if link_type >= 0 else "?"
        rows.append((device.name, "up" if device.is_up else "down", kind, " ".join(device.addresses)))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip())
    if any(row[2] == "?" for row in rows):
        print("? is what is down, or what this user may not look at", file=sys.stderr)


@app.command()
def doctor(
    seconds: Annotated[float, typer.Option(metavar="N", help="How long to watch.", min=0.1, max=600)] = 10.0,
    read: Annotated[list[str] | None, _option("SNIFFER_READ")] = None,
    vnis: Annotated[str | None, _option("SNIFFER_MIRROR_VNIS")] = None,
    port: Annotated[str | None, _option("SNIFFER_MIRROR_VXLANPORT")] = None,
    geneve_port: Annotated[str | None, _option("SNIFFER_MIRROR_GENEVEPORT")] = None,
    address: Annotated[str | None, _option("SNIFFER_MIRROR_ADDRESS")] = None,
    app_ports: Annotated[str | None, _option("APP_PORTS")] = None,
    engine: Annotated[str | None, _option("SNIFFER_ENGINE")] = None,
    device: Annotated[str | None, _option("NET_DEVICE")] = None,
    url: Annotated[str | None, _option("USAGE_LOGGERS_URL")] = None,
    rules: Annotated[str | None, _option("USAGE_LOGGERS_RULES")] = None,
    control: Annotated[str | None, _option("SNIFFER_CONTROL_SOCKET")] = None,
) -> None:
    """Say why nothing is seen: watch for a while, and name what is wrong with mirror, filters, rules and collector.

    Where a vxsniff is running, it is that one which watches, with its own settings. No call is delivered for it.
    Exit status 1 when there is a problem.
    """
    given = {
        "SNIFFER_READ": "\n".join(read) if read else None,
        "SNIFFER_MIRROR_VNIS": vnis,
        "SNIFFER_MIRROR_VXLANPORT": port,
        "SNIFFER_MIRROR_GENEVEPORT": geneve_port,
        "SNIFFER_MIRROR_ADDRESS": address,
        "APP_PORTS": app_ports,
        "SNIFFER_ENGINE": engine,
        "NET_DEVICE": device,
        "USAGE_LOGGERS_URL": url,
        "USAGE_LOGGERS_RULES": rules,
        "SNIFFER_CONTROL_SOCKET": control,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    from vxsniff.app.doctor import run_doctor

    raise typer.Exit(run_doctor(settings.resolve(flags, os.environ, dotenv_values(".env")), seconds))


_Control = Annotated[
    str, typer.Option("--control", metavar="PATH", help="The socket [SNIFFER_CONTROL_SOCKET].", show_default=False)
]


@app.command()
def on(control: _Control = "") -> None:
    """Capture again, in the vxsniff that is running here."""
    _ask("on", control)


@app.command()
def off(control: _Control = "") -> None:
    """Stop capturing, and go on delivering, in the vxsniff that is running here."""
    _ask("off", control)


@app.command()
def status(control: _Control = "") -> None:
    """Say what the vxsniff that is running here does, and its ledger."""
    _ask("status", control)


@app.command("reload")
def reload_settings(control: _Control = "") -> None:
    """Have the vxsniff that is running here read .env, rules file and VNI file anew. SIGHUP does the same."""
    _ask("reload", control)


@app.command()
def health(
    metrics: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where it is served [SNIFFER_METRICS_ADDRESS].", show_default=False),
    ] = "",
) -> None:
    """Say whether the vxsniff that is running here captures: asks its /healthz. Exit status 1 when it does not."""
    flags = {"SNIFFER_METRICS_ADDRESS": metrics} if metrics else {}
    address = settings.find_metrics_address(flags, os.environ, dotenv_values(".env"))
    if address is None:
        raise SettingsError("SNIFFER_METRICS_ADDRESS: it is off, so there is no /healthz to ask")
    from vxsniff.app.metrics import ask_health

    answer = ask_health(address.host, address.port)
    print(answer.text)
    raise typer.Exit(0 if answer.is_healthy else 1)


def _ask(word: str, path: str) -> None:
    flags = {"SNIFFER_CONTROL_SOCKET": path} if path else {}
    socket = settings.find_control_socket(flags, os.environ, dotenv_values(".env"))
    if socket is None:
        raise SettingsError("SNIFFER_CONTROL_SOCKET: the control socket is switched off")
    went_well, text = ask(socket, [word])
    if not went_well:
        raise SettingsError(text)
    print(text)


def _set_up_log(debug: bool, who: str) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.INFO,
        format=f"%(asctime)s %(levelname)-7s {who}%(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    for noisy in ("urllib3", "requests"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def expand_read(arguments: list[str]) -> list[str]:
    """`--read a b` as `--read a --read b`: an option of several values is what a shell's `*.pcap` needs."""
    expanded: list[str] = []
    is_reading = False
    for word in arguments:
        if is_reading and expanded[-1] != "--read" and (word == "-" or not word.startswith("-")):
            expanded.append("--read")
        elif word.startswith("-") and word != "-":
            is_reading = word == "--read"
        expanded.append(word)
    return expanded


def main() -> None:
    """The console script `vxsniff`."""
    _run(expand_read(sys.argv[1:]))


def sniffer() -> None:
    """The console script `sniffer`, in the words of the all-in-one image: `sniffer on`, `sniffer off`, `sniffer`."""
    words = sys.argv[1:] or ["status"]
    if words[0] not in ("on", "off", "status", "reload", "-h", "--help"):
        _fail(f"{words[0]!r} is not known: use sniffer on, sniffer off, or sniffer alone for its status", EXIT_USAGE)
    _run(words)


def _run(arguments: list[str]) -> None:
    # Python's notes on expressions that a later version may read otherwise are no news to whoever wrote a rule.
    warnings.simplefilter("ignore", FutureWarning)
    try:
        status = app(args=arguments, prog_name="vxsniff", standalone_mode=False)
    except SettingsError as error:
        _fail(str(error), EXIT_USAGE)
    except (CaptureError, ControlError) as error:
        _fail(str(error), EXIT_NO_CAPTURE)
    except Exception as error:
        # The parser's own errors: their class has moved between typer's versions.
        if hasattr(error, "format_message"):
            _fail(f"{error.format_message()} (vxsniff --help tells more)", EXIT_USAGE)
        if "--debug" in sys.argv:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        _fail(
            f"{type(error).__name__} at {place}: an error of vxsniff's own, please report it (--debug shows all)",
            EXIT_OWN,
        )
    sys.exit(status or 0)


def _fail(text: str, status: int) -> None:
    print(f"vxsniff: {text}", file=sys.stderr)
    sys.exit(status)
