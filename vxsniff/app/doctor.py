"""`vxsniff doctor`: watches for a while, in the vxsniff that is running or by itself, and tells what is wrong."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from vxsniff.app import values
from vxsniff.app.control import ControlError, ask
from vxsniff.app.ledger import Ledger
from vxsniff.app.live import LiveCapture
from vxsniff.app.pipeline import CallCounters, Pipeline
from vxsniff.app.settings import Settings, SettingsError
from vxsniff.capture.file import CaptureFiles
from vxsniff.doctor.findings import OK, PROBLEM, Finding, diagnose
from vxsniff.doctor.observation import Observation
from vxsniff.doctor.survey import Survey

EXIT_OK: Final = 0
EXIT_PROBLEM: Final = 1
MAX_WATCH_S: Final = 600.0
_STEP_S: Final = 0.1


def run_doctor(chosen: Settings, seconds: float) -> int:
    """Watches, prints, and returns the exit status."""
    stop = threading.Event()
    with _ended_by_signals(stop):
        if chosen.engine == values.ENGINE_FILE:
            seen, where = _watch_files(chosen, stop), "in " + ", ".join(chosen.read)
        else:
            try:
                seen = _ask_running(chosen, seconds)
                where = f"for {seconds:g} s, in the vxsniff that is running here: {seen.get('where', '')}"
            except ControlError:
                seen, where = _watch_live(chosen, seconds, stop)
    found = diagnose(seen)
    print(f"watched {where}")
    for finding in found:
        print(_in_words(finding))
    return EXIT_PROBLEM if any(finding.level == PROBLEM for finding in found) else EXIT_OK


def _in_words(finding: Finding) -> str:
    text = f"  {finding.level:<8} {finding.text}"
    return text if finding.level == OK or not finding.step else f"{text}\n           -> {finding.step}"


@contextlib.contextmanager
def _ended_by_signals(stop: threading.Event) -> Iterator[None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask_running(chosen: Settings, seconds: float) -> Observation:
    """Raises ControlError when none is running."""
    if chosen.control is None:
        raise ControlError("the control socket is switched off")
    _say(f"watching for {seconds:g} s ...")
    went_well, text = ask(chosen.control, ["watch", str(seconds)], seconds + 20)
    if not went_well:
        raise SettingsError(text)
    seen: Observation = json.loads(text)
    return seen


def _watch_live(chosen: Settings, seconds: float, stop: threading.Event) -> tuple[Observation, str]:
    """Raises CaptureError when the port can't be had."""
    pipeline = _pipeline(chosen)
    lock = threading.Lock()
    end_s = time.monotonic() + seconds
    live = LiveCapture(chosen, pipeline, lock, lambda: stop.is_set() or time.monotonic() >= end_s)
    live.open()
    with contextlib.closing(live):
        where = live.describe()
        _say(f"watching {where} for {seconds:g} s ...")
        survey = Survey(chosen.vnis, chosen.app_ports)
        live.watch(survey)
        live.run()
        dropped = live.kernel_dropped
    pipeline.finish()
    seen: Observation = {**survey.result(), **counted(pipeline), **configured(chosen), **_collector(chosen)}
    seen["kernel_dropped"] = dropped
    return seen, f"for {seconds:g} s, {where}"


def _watch_files(chosen: Settings, stop: threading.Event) -> Observation:
    pipeline = _pipeline(chosen)
    survey = Survey(chosen.vnis, chosen.app_ports)
    try:
        files = CaptureFiles(list(chosen.read))
    except OSError as error:
        raise SettingsError(f"{error.filename}: can't be read: {error.strerror}") from None
    with contextlib.closing(files):
        for frame in files.frames():
            survey.frame(frame.data, frame.link_type, frame.ts_ns)
            pipeline.frame(frame.data, frame.link_type, frame.ts_ns)
            if stop.is_set():
                break
    for text in files.errors:
        _say(text)
    pipeline.finish()
    return {**survey.result(), **counted(pipeline), **configured(chosen), "is_file": True}


def _pipeline(chosen: Settings) -> Pipeline:
    """One that counts calls and keeps none."""
    return Pipeline(
        chosen.vnis,
        chosen.rules,
        lambda _line: None,
        format_call=lambda _record: b"",
        draw=lambda: 0,
        on_error=lambda _error: None,
        ports=chosen.app_ports,
        dedup=chosen.dedup,
        body_limit_bytes=chosen.body_limit_bytes,
        memory_limit_bytes=chosen.memory_limit_bytes,
        disabled=chosen.disable,
    )


# ---- parts of an observation, for the vxsniff that is running, too


def counted(pipeline: Pipeline, before: CallCounters | None = None) -> Observation:
    """What became of calls, since then."""
    now, before = pipeline.counters, before or CallCounters()
    _, stopped, sampled_out, emptied = (n - b for n, b in zip(now.dropped, before.dropped, strict=True))
    return {
        "calls": now.calls - before.calls,
        "shipped": now.shipped - before.shipped,
        "stopped": stopped,
        "sampled_out": sampled_out,
        "emptied": emptied,
        "disabled": now.disabled - before.disabled,
    }


def configured(chosen: Settings) -> Observation:
    """The settings that findings speak of."""
    on_devices: Observation = {"devices": list(chosen.devices)} if chosen.engine == values.ENGINE_LIBPCAP else {}
    return {
        **on_devices,
        "port": chosen.port,
        "wanted_vnis": sorted(chosen.vnis.wanted),
        "unwanted_vnis": sorted(chosen.vnis.unwanted),
        "app_ports": sorted(chosen.app_ports),
    }


def _collector(chosen: Settings) -> Observation:
    if not (chosen.posts and chosen.delivers):
        return {}
    from vxsniff.delivery.post import probe

    status, error, ms, skew_s = probe(chosen.url)
    where = values.without_password(chosen.url)
    return {"collector": {"where": where, "status": status, "error": error, "ms": ms, "skew_s": skew_s}}


def watch_running(
    chosen: Settings, live: LiveCapture, pipeline: Pipeline, look: Callable[[], Ledger], seconds: float
) -> Observation:
    """The same from within a running vxsniff, in a thread of its own. Raises ValueError when it can't be done."""
    survey = Survey(pipeline.decoder.vnis, pipeline.decoder.ports)
    before, dropped = copy.deepcopy(pipeline.counters), live.kernel_dropped
    went_well, text = live.ask(lambda: live.watch(survey))
    if not went_well:
        raise ValueError(text)
    end_s = time.monotonic() + min(seconds, MAX_WATCH_S)
    while time.monotonic() < end_s and live.is_on:
        time.sleep(_STEP_S)
    live.ask(lambda: live.watch(None))
    seen: Observation = {
        **survey.result(),
        **counted(pipeline, before),
        **configured(chosen),
        **_collector(chosen),
        "kernel_dropped": live.kernel_dropped - dropped,
        "where": f"{live.describe()}, process {os.getpid()}",
    }
    (deliveries,) = [equation for equation in look().equations if equation.name == "deliveries"]
    seen["waiting"] = sum(part.value for part in deliveries.parts if part.is_open)
    seen["refused"] = sum(part.value for part in deliveries.parts if part.name == "dead")
    return seen


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
