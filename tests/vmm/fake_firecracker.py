"""Plays Firecracker for the driver's tests: the same arguments, the same wire format, the same rules, no guest.

Run by a wrapper that `conftest.py` writes, with a JSON file of settings as first argument and Firecracker's own
arguments after it. Settings: `schema` (Firecracker's API description as JSON, or null: bodies are then not checked),
`requests` (where each request is noted, one JSON line each), and `faults`, which say how to misbehave.

Rules and texts are those of Firecracker's rpc_interface.rs, parsed_request.rs and api_server_adapter.rs; the form of
the answers is that of its HTTP library, micro_http (response.rs).
"""

import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

GREETING_OF_AGENT = b"bytes of the agent"


def die(status, message):
    print(f"Error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def parse_arguments(words):
    values = {"--api-sock": "/run/firecracker.socket", "--id": "anonymous-instance", "--level": "Info"}
    flags = {"--show-level": False}
    words = list(words)
    while words:
        word = words.pop(0)
        if word in flags:
            flags[word] = True
        elif word in values:
            if not words:
                die(153, f'ParseArguments(MissingValue("{word}"))')
            values[word] = words.pop(0)
        else:
            die(153, f'ParseArguments(UnexpectedArgument("{word}"))')
    if not re.fullmatch("[A-Za-z0-9-]{1,64}", values["--id"]):
        die(134, f"Invalid instance ID {values['--id']!r}")
    if values["--level"].lower() not in ("off", "trace", "debug", "info", "warn", "warning", "error"):
        die(152, "InvalidLogLevel")
    return values


class Refused(Exception):
    """Becomes status 400 and a fault message."""


class Description:
    """Firecracker's Swagger 2.0 file as a judge: nothing passes that it does not name."""

    def __init__(self, document):
        import jsonschema

        self.paths = document["paths"]
        self.definitions = document["definitions"]
        for definition in self.definitions.values():
            if "properties" in definition:
                definition.setdefault("additionalProperties", False)
        self.validator = jsonschema.Draft4Validator

    def check(self, method, path, body):
        operation = self.find_operation(method, path)
        schema = next(p["schema"] for p in operation["parameters"] if p["in"] == "body")
        errors = list(self.validator({**schema, "definitions": self.definitions}).iter_errors(body))
        if errors:
            raise Refused("An error occurred when deserializing the json body of a request: " + errors[0].message)

    def find_operation(self, method, path):
        for template, operations in self.paths.items():
            pattern = re.sub(r"\\{\w+\\}", "[A-Za-z0-9_]+", re.escape(template))
            if re.fullmatch(pattern, path) and method.lower() in operations:
                return operations[method.lower()]
        raise Refused(f"Invalid request method and/or path: {method} {path}.")


class Machine:
    """The state machine: configured before the start only, started once, ended by Ctrl-Alt-Del."""

    def __init__(self):
        self.started = False
        self.has_kernel = False
        self.vsock = None

    def put(self, path, body):
        if path == "/actions":
            self.act(body.get("action_type"))
            return
        if self.started:
            raise Refused("The requested operation is not supported after starting the microVM.")
        kind, _, identifier = path.removeprefix("/").partition("/")
        if kind == "boot-source":
            must_open(body["kernel_image_path"], "The kernel file cannot be opened")
            must_open(body["initrd_path"], "The initrd file cannot be opened due to invalid path")
            if len(body["boot_args"]) >= 2048:
                raise Refused("The kernel command line is invalid: string contains too many characters.")
            self.has_kernel = True
        elif kind == "drives":
            if identifier != body["drive_id"]:
                raise Refused("The id from the path does not match the id from the body!")
            must_open(body["path_on_host"], "Unable to create the virtio block device: Error manipulating the backing")
        elif kind == "network-interfaces":
            if identifier != body["iface_id"]:
                raise Refused("The id from the path does not match the id from the body!")
            if not re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", body["guest_mac"]):
                raise Refused("invalid MAC address")
        elif kind == "vsock":
            self.vsock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.vsock.bind(body["uds_path"])
            except OSError as error:
                raise Refused(f"Cannot create backend for vsock device: UnixBind({error})") from error
            self.vsock.listen()
        elif kind not in ("machine-config", "entropy"):
            raise Refused(f"Invalid request method and/or path: PUT {path}.")

    def act(self, action):
        if action == "InstanceStart":
            if self.started:
                raise Refused("The requested operation is not supported after starting the microVM.")
            if not self.has_kernel:
                raise Refused("Cannot start microvm without kernel configuration.")
            self.started = True
            print("[    0.000000] Linux version", flush=True)
            threading.Thread(target=self.serve_guest, daemon=True).start()
        elif action == "SendCtrlAltDel":
            if not self.started:
                raise Refused("The requested operation is not supported before starting the microVM.")
        else:
            raise Refused(f"unknown variant `{action}`")

    def serve_guest(self):
        while self.vsock is not None:
            connection, _ = self.vsock.accept()
            with connection, connection.makefile("rb") as lines:
                if lines.readline() == b"CONNECT 1024\n":
                    connection.sendall(b"OK 1073741824\n" + GREETING_OF_AGENT)


def must_open(path, message):
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise Refused(f"{message}: {error.strerror} (os error {error.errno})") from error


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    machine = Machine()
    description = None
    faults: dict = {}
    notes = None

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.faults.get(self.path)
        if fault == "die":
            die(148, "Shutting down VM after intercepting a bad syscall (4).")
        if fault == "silence":
            time.sleep(60)
        if fault in ("close", "close and die"):
            self.wfile.write(b"HTTP/1.1 400 \r\nContent-Length: 500\r\n\r\n{")
            self.wfile.flush()
            if fault == "close and die":
                die(1, "killed in the middle of an answer")
            self.close_connection = True
            return
        if fault == "garbage":
            self.wfile.write(b"\x1b[2JSSH-2.0-OpenSSH_9.9\r\n\r\n")
            self.close_connection = True
            return
        if fault == "huge":
            self.answer(400, b'{"fault_message": "' + b"x" * 10_000_000 + b'"}')
            return
        if fault == "not json":
            self.answer(500, b"\xff<html>" + b"[" * 20_000)
            return
        if fault:
            self.answer(400, json.dumps({"fault_message": fault}).encode())
            if fault.startswith("fatal"):
                die(1, fault)
            return
        try:
            body = json.loads(content)
            with Path(self.notes).open("a") as file:
                file.write(json.dumps({"path": self.path, "body": body}) + "\n")
            if self.description is not None:
                self.description.check("PUT", self.path, body)
            self.machine.put(self.path, body)
        except Refused as refused:
            self.answer(400, json.dumps({"fault_message": str(refused)}).encode())
            return
        self.answer(204, None)
        if body == {"action_type": "SendCtrlAltDel"}:
            os._exit(0)
        if self.faults.get("after " + self.path) == "die":
            die(1, "the guest could not be run")

    def answer(self, status, content):
        head = f"HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        if content is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        self.wfile.write(head.encode() + b"\r\n" + (content or b""))
        self.wfile.flush()

    def log_message(self, *_words):
        pass


def main():
    settings = json.loads(Path(sys.argv[1]).read_text())
    arguments = parse_arguments(sys.argv[2:])
    Handler.faults = settings["faults"]
    Handler.notes = settings["requests"]
    opening = Handler.faults.get("open")
    if opening == "die":
        die(1, "RunWithApi(\x1b[31mno KVM here\x1b[0m)")
    if opening == "never":
        print("still thinking", flush=True)
        time.sleep(60)
    if opening == "late":
        time.sleep(0.4)
    if settings["schema"] is not None:
        Handler.description = Description(json.loads(Path(settings["schema"]).read_text()))
    try:
        server = socketserver.UnixStreamServer(arguments["--api-sock"], Handler)
    except OSError:
        die(1, f'RunWithApi(FailedToBindSocket("{arguments["--api-sock"]}"))')
    server.handle_error = lambda *_: None
    server.serve_forever()


main()
