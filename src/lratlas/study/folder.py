"""The folder of a study: files written atomically, on a disk or any fsspec file system.

Imports nothing heavy, so that the spec is on disk before anything else happens.
"""

import errno
import os
import re
import shlex
import tomllib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast
from uuid import uuid4

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from lratlas.errors import DamagedFile, FolderGone, LRAtlasError, StudyError, first_line
from lratlas.files import TEMPORARY, linked_folder, make_folder, sweep, write_file
from lratlas.paths import expand_home

SPEC = "spec.toml"
REPORT, FIGURES = "report.html", "figures"
ASIDE = "damaged"
"""Folder of the files that were set aside."""
SEARCH, JOURNAL = "search.json", "journal.jsonl"
"""Files in the folder of a search for an initial LR: its settings, and its results after the first."""
PYTHON = "python"
"""The task preset of studies whose task is defined in Python."""
AGAIN = "run the same explore() call again"
"""How to continue a study whose task is defined in Python."""
_PLANNED = "plan.json"  # only studies have it
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,199}")
_FULL = {errno.ENOSPC, errno.EDQUOT}


def holds_search(folder: str | Path) -> bool:
    """Whether a folder on a disk contains a search rather than a study."""
    if "://" in os.fspath(folder):
        return False
    path = expand_home(folder)
    return any((path / name).is_file() for name in (SEARCH, JOURNAL)) and not (path / _PLANNED).exists()


def is_name(text: str) -> bool:
    """Whether a text can be the name of a file in a study or a search."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True)
class Folder:
    """A study's folder.

    Attributes:
        filesystem: The file system that has the folder.
        root: The path on that file system, without a trailing slash.
    """

    filesystem: AbstractFileSystem
    root: str

    @classmethod
    def create(cls, folder: str | Path, spec_text: str) -> Self:
        """Create the folder with its spec, or open it if it is already a study.

        Args:
            folder: A path or an fsspec URL: missing, empty, or a study's folder.
            spec_text: The content of ``spec.toml`` for a new study; an existing file stays unchanged.

        Returns:
            The folder.

        Raises:
            StudyError: The path is a file, contains something else, or cannot be written.
        """
        self = cls._at(folder)
        self._check_links()
        if self._is_file():
            raise StudyError(f"{self.url} is a file, but a study needs a folder.")
        if above := self._file_above():
            raise StudyError(f"{self.url} cannot be written: {above} is a file, not a folder.")
        # List before looking for the spec: another process may create the study in between.
        holdings = self._holdings()
        if self.exists(SPEC):
            return self
        if holdings:
            raise StudyError(f"{self.url} is not empty and not a study; use a new or empty folder, or a study.")
        if self._is_local and not Path(self.root).exists():
            with self._writing(SPEC):
                make_folder(Path(self.root), SPEC, spec_text.encode())
        else:
            self.create_file(SPEC, spec_text.encode())
        return self

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a study's folder.

        Args:
            folder: A path or an fsspec URL.

        Returns:
            The folder.

        Raises:
            StudyError: The folder is missing, a file, empty, or not a study.
        """
        self = cls._at(folder)
        self._check_links()
        if self._is_file():
            raise StudyError(f"{self.url} is a file, but a study is a folder.")
        holdings = self._holdings()
        if self.exists(SPEC) or self.exists(_PLANNED):  # a planned study has a spec too
            return self
        if SEARCH in holdings:
            raise StudyError(
                f"{self.url} is a search for an initial LR, not a study; `lratlas status {shlex.quote(self.url)}` shows"
                " it, and `lratlas find` or lratlas.Finder resumes it."
            )
        if holdings:
            raise StudyError(f"{self.url} is not a study: it has no {SPEC}.")
        with self._reading("."):
            missing = not self.filesystem.exists(self.root)
        state = "There is no folder" if missing else "There is no study in the empty folder"
        raise StudyError(
            f"{state} {self.url}; `lratlas explore` and `lratlas reproduce` create studies, `lratlas find` creates"
            " searches."
        )

    @classmethod
    def reopen(cls, folder: str | Path) -> Self:
        """Open the folder of a study that is being worked on.

        Raises:
            FolderGone: The folder was removed or emptied since.
            StudyError: The folder cannot be read.
        """
        self = cls._at(folder)
        if not self._holdings():
            raise self._gone()
        return cls.open(folder)

    @classmethod
    def _at(cls, folder: str | Path) -> Self:
        text = os.fspath(folder)
        if "\0" in text or not text:
            raise StudyError(f"{text!r} cannot be the path of a folder.")
        if "://" not in text:
            # Skip fsspec's parsing of the path, which would split it at "::".
            return cls(LocalFileSystem(), str(expand_home(text).absolute()))
        try:
            filesystem, root = cast("tuple[AbstractFileSystem, str]", fsspec.url_to_fs(text))
        except Exception as error:  # each file system raises its own kinds
            raise StudyError(f"The location {text} cannot be used: {first_line(error).rstrip('.')}.") from error
        if isinstance(filesystem, LocalFileSystem):
            root = str(Path(root).absolute())
        return cls(filesystem, root.rstrip("/"))

    @property
    def url(self) -> str:
        """The folder as ``open`` takes it: a path on a disk, otherwise a URL."""
        if self._is_local:
            return self.root
        return self.filesystem.unstrip_protocol(self.root)

    @property
    def resume_command(self) -> str:
        """The command that resumes the study."""
        return f"lratlas resume {shlex.quote(self.url)}"

    def how_to_continue(self) -> str:
        """How to continue the study, as an imperative clause for messages; both ways if its spec cannot be read."""
        command = f"run `{self.resume_command}`"
        try:
            preset = tomllib.loads(self.read_text(SPEC))["task"].get("preset")
        except (StudyError, ValueError, RecursionError, KeyError, AttributeError):
            return f"{command} or, if the task is from Python, {AGAIN}"
        return AGAIN if preset == PYTHON else command

    def exists(self, name: str) -> bool:
        """Whether the file ``name`` exists, relative to the folder."""
        with self._reading(name):
            return cast("bool", self.filesystem.isfile(self._path(name)))

    def is_blocked(self, name: str) -> bool:
        """Whether a folder, a pipe or another non-file occupies the name of a file."""
        path = Path(self._path(name))
        return self._is_local and path.exists() and not path.is_file()

    def is_no_folder(self, name: str) -> bool:
        """Whether something else has the name of a folder; links are refused elsewhere."""
        path = Path(self._path(name))
        return self._is_local and path.exists() and not path.is_dir() and not path.is_symlink()

    def is_link(self, name: str) -> bool:
        """Whether a symbolic link has the name of a file; its target may be missing."""
        return self._is_local and Path(self._path(name)).is_symlink()

    def read_bytes(self, name: str) -> bytes:
        """Read the file ``name``.

        Raises:
            StudyError: The file is missing or cannot be read.
        """
        path = self._path(name)
        with self._reading(name):
            # For thousands of small files, fsspec is several times slower.
            return Path(path).read_bytes() if self._is_local else cast("bytes", self.filesystem.cat_file(path))

    def read_text(self, name: str) -> str:
        """Read the file ``name`` as text.

        Raises:
            DamagedFile: The file is not UTF-8 text.
            StudyError: The file is missing or cannot be read.
        """
        try:
            return self.read_bytes(name).decode()
        except UnicodeDecodeError as error:
            message = f"{name} in {self.url} is damaged: it is not text in UTF-8."
            raise DamagedFile(message, name) from error

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write the file ``name`` atomically; an earlier file is replaced.

        Raises:
            StudyError: The name points outside the folder, the disk is full, or the folder is not writable.
        """
        with self._writing(name):
            self._put(name, data)

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` in UTF-8, like ``write_bytes``."""
        self.write_bytes(name, text.encode())

    def create_file(self, name: str, data: bytes) -> bool:
        """Write the file ``name`` unless it exists; if several processes try at once, one succeeds.

        Returns:
            Whether the file was written.

        Raises:
            StudyError: The folder is not writable.
        """
        with self._writing(name):
            try:
                self._put(name, data, new=True)
            except FileExistsError:
                return False
        return True

    def files(self, folder: str) -> list[str]:
        """The names of the finished files directly in ``folder``, sorted; empty if the folder is missing."""
        path = self._path(folder)
        if self._is_local:
            self._check_folders(f"{path}/")
        with self._reading(folder):
            if not self.filesystem.isdir(path):
                return []
            if self._is_local:
                with os.scandir(path) as entries:  # includes links to files: git-annex and caches link large files
                    names = [entry.name for entry in entries if _is_file(entry)]
            else:
                found = cast("list[dict[str, Any]]", self.filesystem.ls(path, detail=True))
                names = [entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file"]
        return sorted(name for name in names if is_name(name))

    def remove(self, name: str) -> None:
        """Remove the file ``name`` if it exists.

        Raises:
            StudyError: The file cannot be removed.
        """
        # Another process may remove the file at the same time.
        with self._writing(name), suppress(FileNotFoundError):
            if self.exists(name):
                self.filesystem.rm_file(self._path(name))

    def sweep(self) -> None:
        """Remove unfinished files that killed processes left behind; object stores have none."""
        if self._is_local:
            sweep(Path(self.root).rglob(f"{TEMPORARY}*"))

    def set_aside(self, name: str, *, copy: bool = False) -> str:
        """Move the file ``name`` to ``damaged/`` without overwriting anything.

        Args:
            name: The file.
            copy: Leave the file or the link in its place, until another file replaces it.

        Returns:
            The new name, relative to the folder.

        Raises:
            StudyError: The file is missing or cannot be moved.
        """
        if self.is_no_folder(ASIDE):  # nothing can be moved into it
            moved = f"{ASIDE}-{uuid4().hex}"
            with self._writing(ASIDE):
                Path(self._path(ASIDE)).rename(self._path(moved))
            moved = self.set_aside(moved)
            if name == ASIDE:
                return moved
        linked = self.is_link(name)
        blocked = self.is_blocked(name)
        if not (linked or blocked or self.exists(name)):
            raise StudyError(f"There is no file {name} in {self.url}.")
        # The name of a folder stays free for the files of that folder.
        first = f"{ASIDE}/{name}" if "." in name.rsplit("/", 1)[-1] else f"{ASIDE}/{name}.file"
        target, number = first, 1
        while self.exists(target) or self.is_blocked(target) or self.is_link(target):
            target, number = f"{first}.{number}", number + 1
        with self._writing(target):
            if linked or blocked:
                source, new = Path(self._path(name)), Path(self._path(target))
                new.parent.mkdir(parents=True, exist_ok=True)
                if linked:  # never a copy of the target, which may be a private file elsewhere
                    new.symlink_to(source.parent / source.readlink())
                    if not copy:
                        source.unlink()
                else:
                    source.rename(new)
            else:
                self.filesystem.makedirs(self._path(target).rsplit("/", 1)[0], exist_ok=True)
                (self.filesystem.copy if copy else self.filesystem.mv)(self._path(name), self._path(target))
        return target

    def _path(self, name: str) -> str:
        if not all(map(is_name, name.split("/"))):
            raise StudyError(
                f"{name!r} cannot be the name of a file in a study; allowed are letters, digits and _ . = + -"
            )
        path = f"{self.root}/{name}"
        if self._is_local:
            self._check_folders(path)
        return path

    def _check_folders(self, path: str) -> None:
        """Refuse links among the parent folders of a file: a stranger's link would have files elsewhere replaced."""
        above = path.rsplit("/", 1)[0]
        while len(above) > len(self.root):
            if os.path.islink(above):  # noqa: PTH114 - called for thousands of files
                raise _refusal(above)
            above = above.rsplit("/", 1)[0]

    def _check_links(self) -> None:
        """Check for links when a study is opened, so that every command reports them, whatever it reads."""
        for folder in (self.root, f"{self.root}/tables") if self._is_local else ():
            if (link := linked_folder(Path(folder))) is not None:
                raise _refusal(link)

    def _put(self, name: str, data: bytes, *, new: bool = False) -> None:
        path = self._path(name)
        if self._is_local:
            if not new:
                self._check_there()
            write_file(Path(path), data, new=new)
        else:
            # Object stores show an object only when it is complete.
            self.filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self.filesystem.pipe_file(path, data, **({"mode": "create"} if new else {}))

    def _check_there(self) -> None:
        if self._is_local and not Path(self.root).is_dir():
            raise self._gone()

    def _gone(self) -> FolderGone:
        return FolderGone(f"{self.url} was removed while in use.")

    @property
    def _is_local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    def _is_file(self) -> bool:
        with self._reading("."):
            return cast("bool", self.filesystem.isfile(self.root))

    def _file_above(self) -> Path | None:
        if not self._is_local:
            return None
        with self._reading("."):
            return next((above for above in Path(self.root).parents if above.is_file()), None)

    def _holdings(self) -> list[str]:
        """The names in the folder, without leftover temporary files."""
        with self._reading("."):
            if not self.filesystem.isdir(self.root):
                return []
            names = [path.rsplit("/", 1)[-1] for path in self.filesystem.ls(self.root, detail=False)]
        return [name for name in names if not name.startswith(TEMPORARY)]

    @contextmanager
    def _reading(self, name: str) -> Generator[None]:
        # Other processes write too, and some file systems cache listings and sizes.
        self.filesystem.invalidate_cache()
        try:
            yield
        except FileNotFoundError as error:
            self._check_there()
            raise StudyError(f"There is no file {name} in {self.url}.") from error
        except Exception as error:
            if (reason := self._reason_of(error)) is None:
                raise
            place = self.url if name == "." else f"{name} in {self.url}"
            raise StudyError(f"{place} cannot be read: {reason}.") from error

    @contextmanager
    def _writing(self, name: str) -> Generator[None]:
        try:
            yield
        except Exception as error:
            if (reason := self._reason_of(error)) is None:
                raise
            message = f"{name} cannot be written to {self.url}: {reason}"
            if isinstance(error, OSError):
                message += "; a study needs a writable folder. All results so far are saved"
            if isinstance(error, OSError) and error.errno in _FULL:
                message = (
                    f"The disk is full: {name} could not be written to {self.url}. All results so far are saved;"
                    f" free space and {self.how_to_continue()}"
                )
            raise StudyError(f"{message}.") from error

    def _reason_of(self, error: Exception) -> str | None:
        """The message of a file system error; None for other errors. Each remote file system has its own types."""
        if isinstance(error, OSError):
            return error.strerror or str(error)
        return None if self._is_local or isinstance(error, LRAtlasError) else first_line(error).rstrip(".")


def _refusal(link: str | Path) -> StudyError:
    return StudyError(
        f"{link} is a link to a folder, but a study must not contain such links: nothing is read or written"
        " through it. Replace the link by the folder; links to single files are allowed."
    )


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file or a link to one; only links are resolved, since they may form a cycle."""
    return entry.is_file(follow_symlinks=False) or os.path.isfile(entry)  # noqa: PTH113
