"""Point the hub's clients in this process, or in another one, at a stand-in."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub.server import Hub


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    """Variables for a new process."""
    return {"HF_ENDPOINT": hub.address, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextlib.contextmanager
def clients_of(
    hub: Hub, cache: Path, offline: bool = False, token: str | None = None
) -> Iterator[None]:
    """The clients ask this hub and use this cache, as in a process with `environment`.

    The libraries read the environment once, when they are imported: later only their constants
    count.
    """
    import datasets
    import huggingface_hub
    import transformers

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        if token:
            patch.setenv("HF_TOKEN", token)
        patch.setenv("HF_HUB_OFFLINE", str(int(offline)))
        constants, config = huggingface_hub.constants, datasets.config
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        patch.setattr(constants, "HF_HUB_OFFLINE", offline)
        patch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.address)
        patch.setattr(config, "HF_ENDPOINT", hub.address)
        patch.setattr(config, "HF_DATASETS_CACHE", cache / "datasets")
        patch.setattr(config, "HF_HUB_OFFLINE", offline)
        # Copies that transformers 4 and its hub client have, and transformers 5 no longer.
        copies = huggingface_hub.file_download, transformers.utils.hub
        patch.setattr(copies[0], "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        patch.setattr(copies[1], "TRANSFORMERS_CACHE", str(cache / "hub"), raising=False)
        patch.setattr(copies[1], "_is_offline_mode", offline, raising=False)
        at_once = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
        patch.setattr(huggingface_hub.utils._http, "time", at_once)  # between tries
        _forget()
        yield
    _forget()


def _forget() -> None:
    """Drop what the clients keep: lists of files, and connections, which may be offline."""
    import huggingface_hub

    huggingface_hub.HfFileSystem.clear_instance_cache()
    http = huggingface_hub.utils._http
    if hasattr(http, "close_session"):  # from version 1 on
        http.close_session()
    else:
        http.reset_sessions()
