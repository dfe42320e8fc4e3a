"""scripts/fetch_attack_resources.sh, against a server of this process."""

import hashlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evaluation import availability, fetching
from evaluation.resource_table import MIRRORS, RESOURCES, File
from utils import cli
from utils.cli import UserError

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """What the server answers: `files` by path, bytes before a break, and statuses (0: none)."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks_after: dict[str, list[int]] = field(default_factory=dict)  # bytes of each answer
    statuses: dict[str, list[int]] = field(default_factory=dict)
    has_ranges: bool = True
    etag: str | None = '"1"'
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            content = state.files.get(self.path)
            status = state.statuses.get(self.path, [])
            if status[:1] == [0]:  # hang up without an answer
                status.pop(0)
                return
            if status or content is None:
                self.send_error(status.pop(0) if status else 404)
                return
            unchanged = self.headers.get("If-Range") in (None, state.etag)
            start = int(wanted[6:-1]) if wanted and state.has_ranges and unchanged else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            breaks = state.breaks_after.get(self.path)
            self.wfile.write(content[start : start + breaks.pop(0)] if breaks else content[start:])

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.address = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setattr(fetching, "SECONDS_BEFORE_A_RETRY", 0.0)
    monkeypatch.delenv(MIRRORS, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(server) -> File:
    """A file with a known checksum, at two addresses."""
    server.files["/a/x.bin"] = CONTENT
    addresses = (f"{server.address}/a/x.bin", f"{server.address}/b/x.bin")
    return File("folder/x.bin", len(CONTENT), (SHA256,), addresses)


def zip_of(text: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("vectors.txt", text)
    return content.getvalue()


def test_a_file_is_fetched_checked_and_recorded(server, file, tmp_path):
    facts = fetching.fetch(file, tmp_path, set())
    assert (tmp_path / "folder" / "x.bin").read_bytes() == CONTENT
    assert facts["sha256"] == SHA256 and facts["checked"] and facts["address"].endswith("/a/x.bin")
    assert json.loads((tmp_path / "fetched.jsonl").read_text()) == facts
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["x.bin"]


def test_a_download_that_breaks_off_continues_where_it_was(server, file, tmp_path):
    server.breaks_after["/a/x.bin"] = [1000, 500]
    fetching.fetch(file, tmp_path, set())
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", "bytes=1500-"]
    assert (tmp_path / "folder" / "x.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("has_ranges", [True, False])
def test_the_next_command_resumes_or_starts_again(server, file, tmp_path, has_ranges):
    server.has_ranges = has_ranges
    server.breaks_after["/a/x.bin"] = [1000, 0, 0, 0, 0] if has_ranges else [1000] * 9
    with pytest.raises(UserError, match="broke off .* HTTP status 404"):
        fetching.fetch(file, tmp_path, set())
    assert fetching.bytes_here(file, tmp_path) == 1000
    assert not (tmp_path / "folder" / "x.bin").exists()
    server.breaks_after.clear()
    server.asked.clear()
    fetching.fetch(file, tmp_path, set())
    assert server.asked == [("/a/x.bin", "bytes=1000-")]
    assert (tmp_path / "folder" / "x.bin").read_bytes() == CONTENT


def test_a_complete_part_is_only_renamed(server, file, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.bin.part").write_bytes(CONTENT)
    fetching.fetch(file, tmp_path, set())
    assert (tmp_path / "folder" / "x.bin").read_bytes() == CONTENT


def test_a_part_of_another_file_is_not_continued(server, file, tmp_path):
    """Without a checksum, only the server can say that the file is still the same."""
    old, new = zip_of("a 1\n" * 500), zip_of("b 2\n" * 500)
    file = replace(file, name="v.zip", sha256=(), addresses=file.addresses[:1])
    server.files["/a/x.bin"] = old
    server.breaks_after["/a/x.bin"] = [700, 0, 0, 0, 0]
    with pytest.raises(UserError, match="broke off"):
        fetching.fetch(file, tmp_path, set())
    server.files["/a/x.bin"], server.etag = new, '"2"'
    server.breaks_after.clear()
    facts = fetching.fetch(file, tmp_path, set())
    assert (tmp_path / "v.zip").read_bytes() == new and not facts["checked"]
    (tmp_path / "v.zip").unlink()
    (tmp_path / "v.zip.part").write_bytes(old[:700])  # of unknown origin
    fetching.fetch(file, tmp_path, set())
    assert (tmp_path / "v.zip").read_bytes() == new


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"x", b"<html>"])
def test_a_wrong_checksum_is_refused(server, file, tmp_path, wrong):
    server.files["/a/x.bin"] = wrong
    with pytest.raises(UserError, match=f"SHA-256 is [0-9a-f]{{64}}, not {SHA256}"):
        fetching.fetch(file, tmp_path, set())
    assert list((tmp_path / "folder").iterdir()) == []
    server.files["/b/x.bin"] = CONTENT  # the next address is right
    assert fetching.fetch(file, tmp_path, set())["address"].endswith("/b/x.bin")


@pytest.mark.parametrize("statuses", [[404], [403], [503] * 9])
def test_the_next_address_is_tried(server, file, tmp_path, statuses):
    server.statuses["/a/x.bin"] = statuses
    server.files["/b/x.bin"] = CONTENT
    assert fetching.fetch(file, tmp_path, set())["address"].endswith("/b/x.bin")


def test_an_overloaded_server_is_asked_again(server, file, tmp_path):
    server.statuses["/a/x.bin"] = [503, 429]
    assert fetching.fetch(file, tmp_path, set())["address"].endswith("/a/x.bin")


def test_a_server_that_hangs_up_is_asked_again(server, file, tmp_path):
    server.statuses["/a/x.bin"] = [0, 0]
    assert fetching.fetch(file, tmp_path, set())["address"].endswith("/a/x.bin")


def test_mirrors_come_first(server, file, tmp_path, monkeypatch):
    server.files["/mirror/folder/x.bin"] = CONTENT
    monkeypatch.setenv(MIRRORS, f"{server.address}/none {server.address}/mirror/")
    facts = fetching.fetch(file, tmp_path, set())
    assert facts["address"] == f"{server.address}/mirror/folder/x.bin"
    assert [path for path, _ in server.asked] == ["/none/folder/x.bin", "/mirror/folder/x.bin"]


def test_without_a_network_no_host_is_tried_twice(server, file, tmp_path, monkeypatch):
    closed = "http://127.0.0.1:9"
    file = replace(file, addresses=(f"{closed}/a", f"{closed}/b"))
    unreachable: set[str] = set()
    with pytest.raises(UserError, match="refused.*; .*/b: not reachable, as before"):
        fetching.fetch(file, tmp_path, unreachable)
    assert unreachable == {"127.0.0.1:9"}
    monkeypatch.setenv(MIRRORS, "no address")
    with pytest.raises(UserError, match="no/folder/x.bin: "):
        fetching.fetch(file, tmp_path, unreachable)


def tar_of(names: list[str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return content.getvalue()


def test_archives_are_unpacked_whole_or_not_at_all(server, file, tmp_path):
    archive = tar_of(["./saved_model.pb", "./variables/variables.index"])
    file = replace(file, name="encoder.tar.gz", sha256=())
    for damaged in (b"<html>", archive[:60], tar_of(["../outside"])):
        server.files["/a/x.bin"] = damaged
        with pytest.raises(UserError, match="a damaged file, or another one"):
            fetching.fetch(file, tmp_path, set())
        assert not (tmp_path / "encoder").exists()
    server.files["/a/x.bin"] = archive
    fetching.fetch(file, tmp_path, set())
    assert (tmp_path / "encoder" / "variables" / "variables.index").is_file()
    assert not list(tmp_path.glob("*.gz*")) and not (tmp_path.parent / "outside").exists()
    file = replace(file, name="vectors.zip")
    with pytest.raises(UserError, match="BadZipFile"):
        fetching.fetch(file, tmp_path, set())


@pytest.fixture
def fetch_script(server, monkeypatch, tmp_path) -> Callable[..., int]:
    """Run scripts/fetch_attack_resources.py in this process, in an empty cache; its status.

    All files of the table are at the server, with contents of the right kind and their checksums.
    """
    contents = {
        "nltk/taggers/averaged_perceptron_tagger_eng.zip": zip_with(
            "averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json"
        ),
        "nltk/taggers/universal_tagset.zip": zip_with("universal_tagset/en-ptb.map"),
        "nltk/corpora/wordnet.zip": zip_with("wordnet/data.noun"),
        "nltk/corpora/stopwords.zip": zip_with("stopwords/english"),
        "counter-fitted-vectors.txt.zip": zip_with("vectors.txt"),
        "universal-sentence-encoder.tar.gz": tar_of(
            ["saved_model.pb", "variables/variables.index"]
        ),
    }
    for name, resource in RESOURCES.items():
        files = []
        for file in resource.files:
            content = contents.get(file.name, b"{}")
            server.files[f"/m/{file.name}"] = content
            known = (hashlib.sha256(content).hexdigest(),) if file.sha256 else ()
            files.append(replace(file, sha256=known, addresses=("http://127.0.0.1:9/x",)))
        monkeypatch.setitem(RESOURCES, name, replace(resource, files=tuple(files)))
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(MIRRORS, f"{server.address}/m")
    path = ROOT / "scripts" / "fetch_attack_resources.py"
    main = runpy.run_path(str(path))["main"]

    def run(*recipes: str) -> int:
        server.asked.clear()
        monkeypatch.setattr(sys, "argv", [path.name, *recipes])
        try:
            cli.run(main)
        except SystemExit as e:
            return e.code
        return 0

    return run


def zip_with(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "text\n")
    return content.getvalue()


NOTHING = dict.fromkeys(("neighbours", "word_vectors", "sentence_encoder", "masked_lm"))


def test_one_command_fetches_what_recipes_need_once(fetch_script, server, tmp_path, capsys):
    recipes = ("textfooler", "bertattack", "pwws")
    with pytest.raises(UserError, match="missing for textfooler, bertattack, pwws"):
        availability.check(recipes, NOTHING)
    assert fetch_script("pwws") == 0
    out = capsys.readouterr().out
    assert "WordNet, 10.8 MB: missing" in out and "to fetch: 10.8 MB into" in out
    assert "fetched nltk/corpora/wordnet.zip (SHA-256" in out and "as known)" in out
    assert fetch_script(*recipes) == 0
    out = capsys.readouterr().out
    assert "WordNet, 10.8 MB: corpora/wordnet/data.noun" in out
    assert out.index("the Universal Sentence Encoder, about 1,000.0 MB: missing") < out.index(
        "fetched"
    )
    assert "counter-fitted-vectors.txt.zip (SHA-256" in out and "not checked" in out
    assert "/m/nltk/corpora/wordnet.zip" not in [path for path, _ in server.asked]
    availability.check(recipes, NOTHING)  # found without a flag
    assert availability.find("masked_lm") == tmp_path / "cache" / "bert-base-uncased"
    assert fetch_script() == 0 and not server.asked  # all recipes
    assert "nothing to fetch" in capsys.readouterr().out


def test_what_can_be_fetched_is_fetched_and_the_rest_is_listed(fetch_script, server, capsys):
    del server.files["/m/counter-fitted-vectors.txt.zip"]
    server.files["/m/nltk/taggers/universal_tagset.zip"] = b"garbage"
    assert fetch_script("textfooler") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["warning", "warning", "error"]
    assert "HTTP status 404" in lines[0] and "not the known file" in lines[1]
    assert "2 of 4 files were not fetched" in lines[2] and MIRRORS in lines[2]
    assert availability.missing("textfooler", NOTHING).keys() == {"word_vectors", "tagger"}
    server.asked.clear()
    assert fetch_script("textfooler") == 2
    assert len(server.asked) == 2  # finished files are not fetched again


def test_the_disk_is_checked_first(fetch_script, server, monkeypatch, capsys):
    usage = shutil.disk_usage("/")._replace(free=50_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert fetch_script("textbugger") == 2 and not server.asked
    assert "has 50.0 MB free, and 2,062.0 MB are needed" in capsys.readouterr().err
    assert fetch_script("text-bugger") == 2
    assert "unknown recipe 'text-bugger'; known are textfooler, " in capsys.readouterr().err


def test_the_shell_script_passes_recipes_on(tmp_path):
    done = subprocess.run(
        ["sh", ROOT / "scripts" / "fetch_attack_resources.sh", "pwws", "bae"],
        env={"PATH": os.environ["PATH"], "PYTHON": "echo"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("/scripts/fetch_attack_resources.py pwws bae\n")


def test_every_address_is_in_the_table_with_a_mirror():
    files = [file for resource in RESOURCES.values() for file in resource.files]
    assert len({file.name for file in files}) == len(files)
    for file in files:
        assert len(file.addresses) >= 2 and file.size > 0
        assert all(len(digest) == 64 for digest in file.sha256)
