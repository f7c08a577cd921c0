"""Traffic of real programs (nginx and wrk over a veth pair), captured once a run, bare and as a mirror sends it.

Shapes: `api` keep-alive JSON calls, half of them POST; `close` the same, a connection for each; `bulk` bodies of 200 KB
to 1 MB, gzip and chunked; `mix` all three at once; `think` is `api` with 50 ms between calls; `slow` is the same over
jumbo frames, as in a VPC, of a server that takes 50 ms to answer as well. Needs root, iproute2, ethtool, nginx, wrk and
tcpdump.
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import time
from pathlib import Path

from tests.e2e.namespaces import Namespaces, wait_until
from vxsniff.capture.file import read_frames

SHAPES = ("api", "close", "bulk", "mix")
THINK = "think"
SLOW = "slow"
SECONDS = {"api": 6.0, "close": 1.5, "bulk": 1.0, "mix": 2.0, THINK: 4.0, SLOW: 4.0}
VNI = 123
_WORDS = (
    *("red", "green", "blue", "small", "large", "round", "square", "wooden"),
    *("metal", "paper", "chair", "table", "lamp", "shelf", "clock", "mirror"),
)

_NGINX = """
daemon off; error_log {folder}/error.log; pid {folder}/nginx.pid; worker_processes 1; user root;
events {{ worker_connections 1024; }}
http {{
  default_type application/json; access_log off; keepalive_requests 1000000; gzip_min_length 200; gzip_comp_level 1;
  gzip_types application/json; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
  fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  limit_req_zone $connection zone=each:10m rate=10r/s;
  server {{ listen 80; root {folder}/www; error_page 405 =200 $uri;
    location /items/ {{ gzip off; }}
    location /bulk/ {{ gzip on; }}
  }}
  server {{ listen 81; root {folder}/www; error_page 405 =200 $uri;
    limit_req zone=each burst=10;  # a request that comes 50 ms after the answer waits for 50 ms
    location /items/ {{ gzip off; }}
  }}
}}
"""
_SCRIPT = """
local n = 0
local body = string.format('{{"note": "%s"}}', string.rep("abcdefgh ", 56))
local head = {{ ["User-Agent"] = "wrk", ["Accept"] = "application/json",
  ["X-Request-Id"] = "0f8fad5b-d9cb-469f-a165-70867728950e",
  ["Authorization"] = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0", ["Connection"] = "{connection}",
  ["Content-Type"] = "application/json", ["Accept-Encoding"] = "{coding}" }}
request = function()
  n = n + 1
  if "{shape}" == "bulk" then return wrk.format("GET", "/bulk/" .. (n % 8) .. ".json?n=" .. n, head) end
  if n % 2 == 0 then return wrk.format("POST", "/items/" .. (n % 50) .. ".json?n=" .. n, head, body) end
  return wrk.format("GET", "/items/" .. (n % 50) .. ".json?page=" .. n, head)
end
"""


def make(folder: Path, shapes: tuple[str, ...] = (*SHAPES, THINK, SLOW)) -> None:
    """Writes SHAPE.pcap and SHAPE.vxlan.pcap for each shape that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shape for shape in shapes if not (folder / f"{shape}.vxlan.pcap").exists()]
    if not missing:
        return
    with Namespaces() as net:
        net.add("cli", "srv")
        net.veth("cli", "c0", "srv", "s0", 9001)
        net.address("cli", "c0", "10.99.0.1/24")
        net.address("srv", "s0", "10.99.0.2/24")
        for name, device in (("cli", "c0"), ("srv", "s0")):
            net.no_offloading(name, device)
        _serve(net, folder)
        for shape in missing:
            for name, device in (("cli", "c0"), ("srv", "s0")):
                net.ip(name, "link", "set", device, "mtu", "9001" if shape == SLOW else "1500")
            _capture(net, folder, shape)
            wrap(folder / f"{shape}.pcap", folder / f"{shape}.vxlan.pcap")


def _serve(net: Namespaces, folder: Path) -> None:
    draw = random.Random(1)
    items, bulk = folder / "www" / "items", folder / "www" / "bulk"
    items.mkdir(parents=True, exist_ok=True)
    bulk.mkdir(exist_ok=True)
    for number in range(50):
        # As an API answers: words, short numbers, a date here and there; one e-mail address.
        entries = [
            {
                "id": draw.randrange(10_000),
                "name": " ".join(draw.choices(_WORDS, k=3)),
                "price": draw.randrange(9999) / 100,
            }
            for _ in range(draw.randrange(16, 24))
        ]
        page = {"updated": "2026-11-21T09:30:00Z", "owner": "someone@shop.example", "items": entries}
        (items / f"{number}.json").write_text(json.dumps(page))
    for number in range(8):
        entries = [{"id": n, "text": " ".join(draw.choices(_WORDS, k=6))} for n in range(16_000)]
        (bulk / f"{number}.json").write_text(json.dumps(entries)[: draw.randrange(200_000, 1_000_000)])
    for path in [folder, *folder.parents]:
        if path.stat().st_uid == os.getuid() and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder))
    net.start("srv", "nginx", "-c", str(config), "-e", str(folder / "error.log"))
    net.wait_for_port("srv", 80)


def _capture(net: Namespaces, folder: Path, shape: str) -> None:
    path = folder / f"{shape}.pcap"
    command = ("tcpdump", "-i", "s0", "-w", str(path), "-s", "0", "-B", "262144", "-n", "tcp portrange 80-81")
    dump = net.start("srv", *command, stderr=subprocess.PIPE)
    assert dump.stderr is not None
    while b"listening" not in dump.stderr.readline():
        assert dump.poll() is None
    parts = ("api", "close", "bulk") if shape == "mix" else (shape,)
    clients = []
    for part in parts:
        script = folder / f"{part}.lua"
        connection = "close" if part == "close" else "keep-alive"
        script.write_text(
            _SCRIPT.format(shape=part, connection=connection, coding="gzip" if part == "bulk" else "identity")
        )
        if part in (THINK, SLOW):
            script.write_text(script.read_text() + "delay = function() return 50 end\n")
        connections = {"bulk": 4, THINK: 200, SLOW: 200}.get(part, 20)
        command = (
            "wrk",
            "-t",
            "1",
            "-c",
            str(connections),
            "-d",
            "30s",
            "-s",
            str(script),
            f"http://10.99.0.2:{81 if part == SLOW else 80}/",
        )
        clients.append(net.start("cli", *command, stdout=subprocess.DEVNULL))
    time.sleep(SECONDS[shape])
    for client in clients:
        client.terminate()
        client.wait()
    time.sleep(0.3)
    dump.terminate()
    said = dump.stderr.read().decode()
    dump.wait()
    assert "\n0 packets dropped by kernel" in said, said
    wait_until(lambda: path.stat().st_size > 0)


def wrap(source: Path, target: Path) -> None:
    """Each frame as a mirror sends it: Ethernet, IPv4, UDP 4789 and VXLAN around it."""
    ethernet = b"\x02\0\0\0\0\4" + b"\x02\0\0\0\0\3" + b"\x08\0"
    vxlan = struct.pack("!B3xI", 8, VNI << 8)
    with open(source, "rb") as file, open(target, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        for frame in read_frames(file):
            size = len(frame.data)
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 36 + size, 0, 0, 255, 17, 0) + b"\x0a\x62\0\1" + b"\x0a\x62\0\2"
            udp = struct.pack("!HHHH", 65_408, 4789, 16 + size, 0)
            packet = ethernet + ip + udp + vxlan + frame.data
            seconds, rest = divmod(frame.ts_ns, 1_000_000_000)
            out.write(struct.pack("<IIII", seconds, rest // 1000, len(packet), len(packet)) + packet)
