"""What of AWS moto does not have, on loopback: instance metadata (IMDSv2 only), and calls that are just written down.

    fake_aws.py FOLDER [ADDRESS]     metadata on ADDRESS:80 (169.254.169.254), AWS's query protocol on 127.0.0.1:5001

FOLDER/lifecycle is what `autoscaling/target-lifecycle-state` says; FOLDER/calls.jsonl gets a line a call.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

FOLDER = Path(sys.argv[1])
TOKEN = "a-token"
INSTANCE = "i-0123456789abcdef0"
CREDENTIALS = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "AccessKeyId": "AKIAIOSFODNN7EXAMPLE",
    "SecretAccessKey": "secret",
    "Token": "session",
    "LastUpdated": "2026-01-01T00:00:00Z",
    "Expiration": "2099-01-01T00:00:00Z",
}


class Server(BaseHTTPRequestHandler):
    def answer(self, status: int, text: str = "", content_type: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


class Metadata(Server):
    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self.answer(200 if asked else 400, TOKEN)

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self.answer(401)
            return
        role = "/latest/meta-data/iam/security-credentials/"
        texts = {
            "/latest/meta-data/instance-id": INSTANCE,
            "/latest/meta-data/placement/region": "eu-central-1",
            "/latest/meta-data/placement/availability-zone/": "eu-central-1a",
            "/latest/meta-data/autoscaling/target-lifecycle-state": (FOLDER / "lifecycle").read_text(),
            role: "vxsniff",
            role + "vxsniff": json.dumps(CREDENTIALS),
        }
        text = texts.get(self.path)
        self.answer(404 if text is None else 200, text or "")


class Calls(Server):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        call = {name: values[0] for name, values in parse_qs(body).items()}
        with (FOLDER / "calls.jsonl").open("a") as file:
            file.write(json.dumps(call) + "\n")
        action = call.get("Action", "")
        self.answer(200, f"<{action}Response><{action}Result/></{action}Response>", "text/xml")


if __name__ == "__main__":
    metadata = ThreadingHTTPServer((sys.argv[2] if len(sys.argv) > 2 else "169.254.169.254", 80), Metadata)
    calls = ThreadingHTTPServer(("127.0.0.1", 5001), Calls)
    threading.Thread(target=metadata.serve_forever, daemon=True).start()
    print("ready", flush=True)
    calls.serve_forever()
