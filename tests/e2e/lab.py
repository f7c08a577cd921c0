"""A real mirror on one machine: client, server and mirror target in network namespaces, mirrored by the kernel.

    cli (10.99.0.1, fd99::1) c0 --- s0 (10.99.0.2, fd99::2) srv --- 10.98.0.0/24 --- tgt     VNI 123: the server's end
     +----------------------------- 10.97.0.0/24 ------------------------------------- tgt     VNI 124: the client's end

tc mirred copies every frame of s0 (and of c0) to a vxlan device, as AWS does with an interface's frames.
"""

import json
import os
import shutil
from pathlib import Path

from tests.e2e.namespaces import PATH, Namespaces

TOOLS = ("ip", "tc", "ethtool", "nginx", "curl", "tcpdump", "nft", "prometheus")
NGINX = """
daemon off; error_log {folder}/nginx-error.log; pid {folder}/nginx.pid; worker_processes 1; user root;
events {{ worker_connections 512; }}
http {{
  default_type text/plain; types {{ application/json json; text/plain txt; }}
  log_format call escape=json '{{"call":"$arg_call","method":"$request_method","uri":"$uri","status":$status,"bytes":$body_bytes_sent}}';
  access_log {folder}/nginx.log call;
  gzip on; gzip_min_length 200; gzip_types application/json; keepalive_requests 10000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4;
  scgi_temp_path {folder}/t5;
  server {{
    listen 80; listen [::]:80; root {folder}/www; add_header x-call $arg_call always; etag on;
    location = /moved {{ return 302 /hello.txt; }}
    location /proxy/ {{ proxy_pass http://127.0.0.1:8001/; proxy_hide_header x-call; }}
    location /until-close/ {{ proxy_pass http://127.0.0.1:8001/; proxy_hide_header x-call; chunked_transfer_encoding off; }}
  }}
}}
"""


def missing() -> str:
    """Why the lab can't be set up here; empty when it can."""
    if os.geteuid() != 0:
        return "not root"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    return f"no {', '.join(lacking)}" if lacking else ""


class Lab(Namespaces):
    """Its namespaces are `c`, `s` and `t`: client, server, target."""

    kind = "vx"

    def __init__(self, folder: Path, both_ends: bool = False) -> None:
        super().__init__()
        self.folder = folder
        self._both_ends = both_ends

    def __enter__(self):
        try:
            self._make_network()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _make_network(self) -> None:
        self.add("c", "s", "t")
        self._link("c", "c0", "s", "s0", ("10.99.0.1/24", "fd99::1/64"), ("10.99.0.2/24", "fd99::2/64"), 1500)
        self._link("s", "s1", "t", "t0", ("10.98.0.1/24",), ("10.98.0.2/24",), 9001)
        self._watch_target()
        self._mirror("s", "s0", 123, "10.98.0.1", "10.98.0.2", "s1")
        if self._both_ends:
            self._link("c", "c1", "t", "t1", ("10.97.0.1/24",), ("10.97.0.2/24",), 9001)
            self._mirror("c", "c0", 124, "10.97.0.1", "10.97.0.2", "c1")

    def _link(self, left: str, left_device: str, right: str, right_device: str, lefts, rights, mtu: int) -> None:
        self.veth(left, left_device, right, right_device, mtu)
        for name, device, addresses in ((left, left_device, lefts), (right, right_device, rights)):
            self.address(name, device, *addresses)
            self.no_offloading(name, device)

    def _mirror(self, name: str, device: str, vni: int, local: str, remote: str, out: str) -> None:
        vxlan = ("type", "vxlan", "id", str(vni), "local", local, "remote", remote, "dev", out, "dstport", "4789")
        self.ip(name, "link", "add", f"vx{vni}", *vxlan)
        self.ip(name, "link", "set", f"vx{vni}", "mtu", "8951", "up")
        tc = self.within(name, "tc")
        self.run(*tc, "qdisc", "add", "dev", device, "clsact")
        for direction in ("ingress", "egress"):
            self.run(
                *(*tc, "filter", "add", "dev", device, direction, "protocol", "all", "u32", "match", "u32", "0", "0"),
                *("action", "mirred", "egress", "mirror", "dev", f"vx{vni}"),
            )

    def _watch_target(self) -> None:
        """Counts mirrored packets where they arrive: the sending devices count a batch of segments as one."""
        nft = self.within("t", "nft")
        self.run(*nft, "add table inet mirror")
        self.run(*nft, "add chain inet mirror in { type filter hook input priority 0; }")
        self.run(*nft, "add rule inet mirror in udp dport 4789 counter")

    def lose(self, percent: int) -> None:
        """From here on the target loses that share of mirrored packets."""
        loss = f"add rule inet mirror in udp dport 4789 numgen random mod 100 < {percent} counter drop"
        self.run(*self.within("t", "nft"), loss)

    def mirrored_and_lost(self) -> list[int]:
        """How many mirrored packets arrived at the target, and how many of those it lost."""
        rules = json.loads(self.run(*self.within("t", "nft", "-j", "list", "table", "inet", "mirror")))
        counters = [
            expression["counter"]["packets"]
            for item in rules["nftables"]
            for expression in item.get("rule", {}).get("expr", [])
            if "counter" in expression
        ]
        return [*counters, 0][:2]

    def start_nginx(self) -> None:
        www = self.folder / "www"
        www.mkdir()
        (www / "hello.txt").write_text("hello, world\n" * 3)
        (www / "big.json").write_text(json.dumps([{"id": i, "name": f"item {i}"} for i in range(400)]))
        config = self.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=self.folder))
        os.chmod(self.folder, 0o755)
        self.start("s", "nginx", "-c", str(config), "-e", str(self.folder / "nginx-error.log"))
        self.wait_for_port("s", 80)
