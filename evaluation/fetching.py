"""Fetch the files of `resource_table` into the cache folder: resumable, checked, from mirrors.

A file has its name only when it is complete; before, it is NAME.part. This module does not import
torch.
"""

import gzip
import json
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from requests.exceptions import ConnectionError, RequestException

from evaluation.resource_table import File
from utils.cli import UserError, progress_bar
from utils.files import append_jsonl, sha256_of, write_json

TRIES = 4  # of an address that breaks off without a new byte, or is overloaded
SECONDS_BEFORE_A_RETRY = 2.0
TIMEOUT = (15, 60)  # seconds: to connect, and without a new byte
MEGABYTE = 1_000_000
OVERLOADED = (429, 500, 502, 503, 504)
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile)


class Failed(Exception):
    """Why an address did not give a file. `host`: set if the host cannot be reached."""

    def __init__(self, reason: str, host: str | None = None):
        super().__init__(reason)
        self.host = host


def fetch(file: File, folder: Path, unreachable: set[str]) -> dict:
    """Fetch and unpack a file into the cache folder. Returns the facts that are recorded.

    `unreachable`: hosts that are not tried; those that cannot be reached are added.
    Raises UserError if no address gives the file.
    """
    archive, place, reasons = folder / file.name, folder / file.place, []
    archive.parent.mkdir(parents=True, exist_ok=True)
    for address in addresses_of(file):
        try:
            if urlsplit(address).netloc in unreachable:
                raise Failed("not reachable, as before")
            _receive(address, archive, must_be_same=not file.sha256)
            facts = _accept(file, archive, place)
        except Failed as e:
            reasons.append(f"{address}: {e}")
            unreachable |= {e.host} if e.host else set()
            continue
        facts = {"file": file.place, "address": address, **facts}
        append_jsonl(folder / "fetched.jsonl", facts)
        return facts
    raise UserError(f"{file.name}: {'; '.join(reasons)}")


def addresses_of(file: File) -> list[str]:
    """The addresses of a file, those of the mirrors first."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    mirrors = [
        f"{m.rstrip('/')}/{file.name}"
        for m in os.environ.get("ATTACK_RESOURCES_MIRRORS", "").split()
    ]
    return mirrors + [address.replace("{hub}", hub) for address in file.addresses]


def is_whole(file: File, folder: Path) -> bool:
    """Whether the file is in the cache folder, and is the known one if one is known.

    Raises UserError for an incomplete folder of yours at the place of an archive.
    """
    place = folder / file.place
    if place.is_dir():
        raise UserError(f"{place} is not complete; delete it and run the same command again")
    return place.is_file() and (not file.sha256 or sha256_of(place) in file.sha256)


def bytes_here(file: File, folder: Path) -> int:
    """Bytes of an interrupted download."""
    part = _part_of(folder / file.name)
    return part.stat().st_size if part.is_file() else 0


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _receive(address: str, path: Path, must_be_same: bool) -> None:
    """Download to the part of `path`, resuming it.

    `must_be_same`: resume only a part that came from this address and has not changed there, since
    no checksum will show a mixture of two files.
    """
    part, state = _part_of(path), path.with_name(path.name + ".part.json")
    fruitless = 0
    while fruitless < TRIES:
        before = part.stat().st_size if part.is_file() else 0
        headers = {"Accept-Encoding": "identity"}
        if before and must_be_same:
            written = json.loads(state.read_text()) if state.is_file() else {}
            if written.get("address") != address or not written.get("validator"):
                part.unlink()
                continue
            headers["If-Range"] = written["validator"]
        if before:
            headers["Range"] = f"bytes={before}-"
        complete = _one_request(address, headers, part, state)
        if complete:
            state.unlink(missing_ok=True)
            return
        now = part.stat().st_size if part.is_file() else 0
        fruitless = 0 if now > before else fruitless + 1
        if fruitless:
            time.sleep(SECONDS_BEFORE_A_RETRY * fruitless)
    raise Failed(f"broke off after {before:,} bytes, {TRIES} times")


def _one_request(address: str, headers: dict[str, str], part: Path, state: Path) -> bool:
    """Append what one request brings. Returns whether the file is complete. Raises Failed."""
    host = urlsplit(address).netloc
    try:
        response = requests.get(address, headers=headers, stream=True, timeout=TIMEOUT)
    except ConnectionError as e:
        if e.args and isinstance(e.args[0], urllib3.exceptions.ProtocolError):
            return False  # it hung up
        raise Failed(f"not reachable ({_reason(e)})", host) from e
    except RequestException as e:
        raise Failed(_reason(e)) from e
    with response:
        if response.status_code in OVERLOADED:
            return False
        if response.status_code == 416:  # the part is as long as the file, or longer
            if response.headers.get("Content-Range") == f"bytes */{part.stat().st_size}":
                return True
            part.unlink()
            return False
        if response.status_code not in (200, 206):
            raise Failed(f"HTTP status {response.status_code}")
        resumed = response.status_code == 206
        start = part.stat().st_size if resumed else 0
        total = _total_bytes(response, start)
        _write_state(response, address, state)
        name, done = part.name.removesuffix(".part"), start // MEGABYTE
        bar = progress_bar((total or 0) // MEGABYTE, done, "megabyte", name, False)
        try:
            with bar, open(part, "ab" if resumed else "wb") as f:
                # Not iter_content, which loses the last bytes before a break.
                while chunk := response.raw.read1(MEGABYTE):
                    f.write(chunk)
                    bar.update(f.tell() // MEGABYTE - done)
                    done = f.tell() // MEGABYTE
        except urllib3.exceptions.HTTPError:
            return False
        return total is None or part.stat().st_size == total


def _total_bytes(response: requests.Response, start: int) -> int | None:
    """Size of the whole file; None if the server does not state it."""
    if response.status_code == 206:
        first, _, total = response.headers.get("Content-Range", "").partition("/")
        if not first.startswith(f"bytes {start}-") or not total.isdecimal():
            raise Failed("a wrong answer to a request for the rest of the file")
        return int(total)
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _write_state(response: requests.Response, address: str, state: Path) -> None:
    """Note what shows that the file has not changed when the download is resumed."""
    etag = response.headers.get("ETag", "")
    validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
    write_json(state, {"address": address, "validator": validator or None})


def _reason(error: Exception) -> str:
    """The innermost reason of an error of the network, without its address."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2][:100]


def _accept(file: File, path: Path, place: Path) -> dict:
    """Check a complete part, unpack it or give it its name. Raises Failed, and removes it, if it is
    wrong."""
    part = _part_of(path)
    digest = sha256_of(part)
    facts = {"bytes": part.stat().st_size, "sha256": digest, "checked": bool(file.sha256)}
    try:
        if file.sha256 and digest not in file.sha256:
            known = " or ".join(file.sha256)
            raise Failed(f"not the known file: its SHA-256 is {digest}, not {known}")
        if path != place:
            _unpack(part, place)
        elif not file.sha256:
            with zipfile.ZipFile(part) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
    except DAMAGED as e:
        part.unlink()
        raise Failed(f"a damaged file, or another one ({type(e).__name__})") from e
    except Failed:
        part.unlink()
        raise
    if path == place:
        os.replace(part, path)
    else:
        part.unlink()
    return facts


def _unpack(archive: Path, place: Path) -> None:
    """Unpack a tar.gz to the folder `place`, complete or not at all."""
    unpacked = place.with_name(f".{place.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(archive, "r:gz") as content:
        content.extractall(unpacked, filter="data")
    os.replace(unpacked, place)
