"""A stand-in of the hub on this machine, for the real clients.

    with serving() as hub:
        hub.add("datasets", "owner/reviews", {"data/train.parquet": b"..."})
        with clients_of(hub, tmp_path / "cache"):  # tests/hub/clients.py
            ...

It answers what huggingface_hub, transformers and datasets ask: files, with resumption by ranges;
lists of files; facts about a repository; and it takes uploads of models from members. A repository
can be gated or renamed, and the connection can be slow or break.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

MEMBER = "hf_member"  # a token with access to gated repositories; other tokens have none

_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<id>.+?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_MODE = {"uploadMode": "regular", "shouldIgnore": False}  # not to the storage of large files
_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>.+?)"
    r"(?:/(?P<call>revision|tree|paths-info|auth-check|preupload|commit)(?:/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?)?"
)


@dataclass
class Repository:
    """`files`: path -> content. `gated`: files need the token of a member."""

    files: dict[str, bytes]
    gated: bool = False

    @property
    def commit(self) -> str:
        names_and_contents = repr(sorted(self.files.items())).encode()
        return hashlib.sha1(names_and_contents).hexdigest()


@dataclass
class Fault:
    """What happens to the connection: a wait before each answer, or a break in a file's body.

    `most_bytes`: of each body, after which the connection ends. `reset`: it ends with a reset, not
    orderly. `times`: the number of bodies that break. `status`: answer each request with it.
    """

    seconds: float = 0
    most_bytes: int | None = None
    reset: bool = False
    times: int = 1_000_000
    status: int | None = None


@dataclass
class Hub:
    """Repositories by (kind, id), where kind is "models" or "datasets".

    `renamed`: old id -> id. `requests`: "METHOD /path" of all requests so far. `address`: the value
    of HF_ENDPOINT.
    """

    address: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    fault: Fault = field(default_factory=Fault)
    requests: list[str] = field(default_factory=list)

    def add(self, kind: str, name: str, files: dict[str, bytes], gated: bool = False) -> Repository:
        self.repositories[kind, name] = Repository(files, gated)
        return self.repositories[kind, name]


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub that runs in threads of this process."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Refused(Exception):
    """An answer with this status and X-Error-Code."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.hub.requests.append(f"{self.command} {self.path}")
        time.sleep(self.hub.fault.seconds)
        path = unquote(urlsplit(self.path).path)
        try:
            if self.hub.fault.status:
                raise _Refused(self.hub.fault.status, "")
            if match := _FILE.fullmatch(path):
                self._answer_with_file(**match.groupdict())
            elif path in ("/api/repos/create", "/api/validate-yaml"):
                self._answer_upload(path.rpartition("/")[2], "", body)
            elif match := _API.fullmatch(path):
                self._answer_call(body, **match.groupdict())
            else:
                raise _Refused(404, "")
        except _Refused as e:
            status, code = e.args
            self._send(status, b'{"error": "refused"}', {"X-Error-Code": code} if code else {})

    do_HEAD = do_POST = do_GET

    def log_message(self, format, *args) -> None:
        pass

    def _repository(self, kind: str, name: str, revision: str | None) -> Repository:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:  # the hub does not reveal whether a private one exists
            raise _Refused(404 if self._token() else 401, "RepoNotFound")
        if revision not in (None, "main", repository.commit):
            raise _Refused(404, "RevisionNotFound")
        return repository

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _check_access(self, repository: Repository) -> None:
        if repository.gated and self._token() != MEMBER:
            raise _Refused(403 if self._token() else 401, "GatedRepo")

    def _redirect_renamed(self, name: str) -> bool:
        if name not in self.hub.renamed:
            return False
        new = self.path.replace(name, self.hub.renamed[name], 1)
        self._send(307, b"", {"Location": new})
        return True

    def _answer_with_file(self, kind: str | None, id: str, revision: str, path: str) -> None:
        if self._redirect_renamed(id):
            return
        repository = self._repository("datasets" if kind else "models", id, revision)
        self._check_access(repository)
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if path not in repository.files:
            self._send(404, b"Entry not found", headers | {"X-Error-Code": "EntryNotFound"})
            return
        content = repository.files[path]
        headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._send(206, content[start : end + 1], headers)
        else:
            self._send(200, content, headers)

    def _answer_call(
        self, body: bytes, kind: str, id: str, call: str | None, revision: str | None, path
    ) -> None:
        if self._redirect_renamed(id):
            return
        repository = self._repository(kind, id, revision)
        if call in ("preupload", "commit"):
            return self._answer_upload(call, id, body)
        files = repository.files
        if call == "auth-check":
            self._check_access(repository)
            answer: object = {}
        elif call == "tree":
            below = f"{path}/" if path else ""
            is_deep = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower()
            answer = _listed(files, below, is_deep in ("true", "1"))
            if below and not answer:
                raise _Refused(404, "EntryNotFound")
        elif call == "paths-info":
            answer = _entries_at(files, _paths_in(body, self.headers.get("Content-Type", "")))
        else:
            answer = {
                "id": id,
                "sha": repository.commit,
                "private": False,
                "gated": "manual" if repository.gated else False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in sorted(files)],
            }
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer_upload(self, call: str, name: str, body: bytes) -> None:
        """The steps of an upload; the files come with the commit, each as a line of JSON."""
        if self._token() != MEMBER:
            raise _Refused(401, "")
        lines = [json.loads(line) for line in body.splitlines()]
        answer: dict = {}
        if call == "create":
            name = "/".join(filter(None, (lines[0].get("organization"), lines[0]["name"])))
            self.hub.repositories.setdefault(("models", name), Repository({}))
            answer = {"url": f"{self.hub.address}/{name}", "name": name}
        elif call == "preupload":
            paths = [file["path"] for file in lines[0]["files"]]
            answer = {"files": [_MODE | {"path": path} for path in paths]}
        elif call == "commit":
            files = [line["value"] for line in lines if line["key"] == "file"]
            contents = {file["path"]: base64.b64decode(file["content"]) for file in files}
            repository = self.hub.repositories["models", name]
            repository.files = repository.files | contents
            oid = repository.commit
            answer = {"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self.hub.fault
        if fault.most_bytes is None or len(content) <= fault.most_bytes or not fault.times:
            self.wfile.write(content)
            return
        fault.times -= 1
        self.wfile.write(content[: fault.most_bytes])
        self.wfile.flush()
        if fault.reset:  # closing then sends a reset
            at_once = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.close_connection = True


def _entry(path: str, content: bytes) -> dict:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": oid}


def _listed(files: dict[str, bytes], below: str, is_deep: bool) -> list[dict]:
    """Entries of the folder `below`, with those of its folders if `is_deep`."""
    entries, folders = [], set()
    for path, content in sorted(files.items()):
        if path.startswith(below):
            parts = path.removeprefix(below).split("/")
            folders |= {below + "/".join(parts[:i]) for i in range(1, len(parts))}
            entries += [_entry(path, content)] if is_deep or len(parts) == 1 else []
    shown = {f for f in folders if is_deep or "/" not in f.removeprefix(below)}
    return [{"type": "directory", "path": f, "oid": "", "size": 0} for f in sorted(shown)] + entries


def _entries_at(files: dict[str, bytes], paths: list[str]) -> list[dict]:
    entries = []
    for path in paths:
        if path in files:
            entries.append(_entry(path, files[path]))
        elif any(name.startswith(f"{path}/") for name in files):
            entries.append({"type": "directory", "path": path, "oid": "", "size": 0})
    return entries


def _paths_in(body: bytes, content_type: str) -> list[str]:
    if "json" in content_type:
        paths = json.loads(body)["paths"]
        return [paths] if isinstance(paths, str) else paths
    return parse_qs(body.decode()).get("paths", [])
