"""Why something from the hub could not be loaded: one line with the reason and the remedy."""

import errno
from collections.abc import Iterator

from huggingface_hub import HfApi, constants, errors, get_token

from utils.cli import PATH_ERRORS

# Packages whose errors are about the connection.
HTTP_PACKAGES = {"requests", "urllib3", "httpx", "httpcore", "aiohttp"}
NOT_WRITABLE = (*PATH_ERRORS, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def why_not_loaded(error: Exception, name: str, repo_type: str) -> str | None:
    """The reason and the remedy, if a hub repository or the way to it caused `error`.

    `repo_type`: model or dataset. None: the repository is there, so its content caused the error.
    """
    if reason := _reason_in(error, name, repo_type):
        return reason
    # datasets hides some causes: ask the hub.
    if constants.HF_HUB_OFFLINE:
        return _offline(name, repo_type) if repo_type == "dataset" else None
    try:
        HfApi().repo_info(name, repo_type=repo_type, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as e:  # of several HTTP libraries
        return _reason_in(e, name, repo_type)
    return _connection("ConnectionError", name, repo_type) if _is_unnamed(error) else None


def _reason_in(error: Exception, name: str, repo_type: str) -> str | None:
    """The first reason in the chain of errors."""
    return next(filter(None, (_reason(e, name, repo_type) for e in _causes(error))), None)


def _is_unnamed(error: BaseException) -> bool:
    """Whether this is the error of datasets that stands for each failed connection."""
    return type(error) is ConnectionError


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on; also where `from None` hides it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException, name: str, repo_type: str) -> str | None:
    """The line for one error of the chain. None: this error does not name a reason."""
    is_data = repo_type == "dataset"
    noun = "data set" if is_data else "model"
    absent = "" if is_data else "it is not a folder here, and "
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or "is a gated dataset" in str(error):
        access = "your account has no access" if get_token() else "you are not logged in"
        page = f"{constants.ENDPOINT}/{'datasets/' if is_data else ''}{name}"
        return f"it is gated, and {access}: ask for access at {page} and log in: hf auth login"
    is_404 = type(error) is errors.HfHubHTTPError and status == 404  # of a mirror of the hub
    if isinstance(error, errors.RepositoryNotFoundError) or is_404:
        return (
            f"{absent}the hub has no {noun} of this name, or a private one: check the name; for a "
            f"private {noun}, log in: hf auth login"
        )
    if isinstance(error, errors.HFValidationError):
        return f"{absent}it is not an id of the hub (NAME or OWNER/NAME): check the name"
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
        return (
            f"the cache {error.filename or constants.HF_HUB_CACHE} cannot be written "
            f"({error.strerror}): set HF_HOME to another folder"
        )
    if constants.HF_HUB_OFFLINE:
        offline = errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled
        return absent + _offline(name, repo_type) if isinstance(error, offline) else None
    if status in (401, 403):
        return f"the hub refuses access (status {status}): log in: hf auth login"
    if status == 429:
        return (
            "the hub accepts no more requests for now (status 429): wait, or log in: hf auth login"
        )
    if status is not None and status >= 500:
        return f"the hub has an error (status {status}): run the same command again later"
    is_http = type(error).__module__.split(".")[0] in HTTP_PACKAGES and status is None
    if is_http or (isinstance(error, ConnectionError) and not _is_unnamed(error)):
        return absent + _connection(type(error).__name__, name, repo_type)
    return None


def _offline(name: str, repo_type: str) -> str:
    where = f"it is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set"
    if repo_type == "model":
        return f"{where}: with a network, run: hf download {name}"
    return f"{where}: run the same command once with a network, {_local_files(name)}"


def _local_files(name: str) -> str:
    return (
        "or pass local files with --data_dir, such as those of: "
        f"hf download {name} --repo-type dataset --local-dir FOLDER"
    )


def _connection(kind: str, name: str, repo_type: str) -> str:
    if "Timeout" in kind:
        return (
            f"{constants.ENDPOINT} did not answer in time ({kind}): run the same command again, "
            "or set HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT to more than 10 (seconds)"
        )
    again = (
        f"the connection to {constants.ENDPOINT} failed ({kind}): check the network and run the "
        "same command again"
    )
    return f"{again}, {_local_files(name)}" if repo_type == "dataset" else again
