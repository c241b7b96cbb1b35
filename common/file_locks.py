"""Exclusive locks on files and folders, which nobody can take away by removing or replacing a file."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType

from common.errors import LimenError

# of file systems that lock no folders, like NFS
_NOT_SUPPORTED = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.EISDIR}


class InUse(LimenError):
    """Another process holds the lock."""


class FileLock(AbstractContextManager["FileLock"]):
    """The lock of a file, made if need be, held until it is closed or the process ends.

    Once it is held the file is the one that the path names: one that was replaced meanwhile is let go.
    """

    def __init__(self, file: Path, *, wait: bool) -> None:
        """Raises InUse if another holds it, unless ``wait``."""
        while True:
            with ExitStack() as opened:
                handle = _open(file, os.O_RDWR | os.O_CREAT, opened)
                _lock(handle, file, wait)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), file.stat()):
                        self._handles = opened.pop_all()
                        return

    def close(self) -> None:
        """Release the lock."""
        self._handles.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FolderLock(AbstractContextManager["FolderLock"]):
    """The lock of a folder, held until it is closed or the process ends.

    It is on the folder itself, so that it holds whatever is removed from it; and on a file in it, for file
    systems that lock no folders, and for versions that lock the file alone.
    """

    def __init__(self, folder: Path, file_name: str) -> None:
        """Raises InUse if another holds it."""
        with ExitStack() as opened:
            handle = _open(folder, os.O_RDONLY | os.O_DIRECTORY, opened)
            try:
                _lock(handle, folder, wait=False)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
            opened.enter_context(FileLock(folder / file_name, wait=False))
            self._handles = opened.pop_all()

    def close(self) -> None:
        """Release the lock."""
        self._handles.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(path: Path, flags: int, opened: ExitStack) -> int:
    handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    opened.callback(os.close, handle)
    return handle


def _lock(handle: int, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(f"{path} is in use by another process.") from None
