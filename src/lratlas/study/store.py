"""The store of a study: immutable parts of tables and weights."""

import io
import json
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PolarsError
from safetensors import SafetensorError

from lratlas import files
from lratlas.errors import DamagedFile, StudyError
from lratlas.study import formats
from lratlas.study.description import Description, described_names, path_of, read_description
from lratlas.study.folder import Folder
from lratlas.study.merged import MANY, read_remembered
from lratlas.tables import SCHEMAS

if TYPE_CHECKING:
    from torch import Tensor


_THREADS, _CHUNK = 4, 512  # to read many parts: threads, and parts per piece of work
_TABLE = ".parquet"
_WEIGHTS = ".safetensors"
STACK = "stack"
"""Prefix of the names of tensors that belong to no single run."""
PLACE = "path"
"""Metadata key of a file's path in the folder."""
_SOURCE = "source"


class Store(Folder):
    """A study's folder, read and written as tables and weights."""

    @property
    def extras(self) -> dict[str, Description]:
        """The custom measurements of the study, by name.

        Raises:
            DamagedFile: A description was cut short or altered.
        """
        return {name: read_description(self, name) for name in described_names(self)}

    @property
    def table_names(self) -> tuple[str, ...]:
        """The possible tables of the study: the built-in ones and those of its custom measurements."""
        return (*SCHEMAS, *described_names(self))

    def schema(self, table: str) -> pl.Schema:
        """The columns of a table.

        Raises:
            DamagedFile: The description of the table was cut short or altered.
            StudyError: The table is unknown.
        """
        if table in SCHEMAS:
            return SCHEMAS[table]
        self._table_folder(table)
        return read_description(self, table).table_schema

    def write_table(self, table: str, part: str, frame: pl.DataFrame, *, source: str = "") -> None:
        """Write one part of a table; an earlier part of the same name is replaced.

        Args:
            table: One of ``table_names``.
            part: The part's name.
            frame: Rows with exactly the table's columns, in any order; NaN becomes null.
            source: The inputs that the rows were derived from, for tables without runs; see `source_of`.

        Raises:
            StudyError: The table is unknown, columns or types do not match, or the part cannot be written.
        """
        path = self._table_path(table, part)
        buffer = io.BytesIO()
        stated = {_SOURCE: source} if source else {}
        metadata = {formats.KEY: str(formats.FORMAT), PLACE: path, **stated, files.KEY: files.PLACEHOLDER}
        _fit_schema(table, frame, self.schema(table)).write_parquet(buffer, metadata=metadata)
        with _sealing(path):
            data = files.seal(buffer.getvalue())
        self.write_bytes(path, data)

    def parts(self, table: str) -> set[str]:
        """The names of the stored parts of ``table``.

        Raises:
            StudyError: The table is unknown.
        """
        return set(self._list_names(self._table_folder(table), _TABLE))

    def has_part(self, table: str, part: str) -> bool:
        """Whether a part of ``table`` is stored.

        Raises:
            StudyError: The table is unknown.
        """
        return self.exists(self._table_path(table, part))

    def read_table(self, table: str, part: str | None = None) -> pl.DataFrame:
        """Read a table, or one part of it.

        Args:
            table: One of ``table_names``.
            part: The part; None for all parts, whose rows are in no particular order.

        Returns:
            The rows; an empty frame with the table's columns if there are no parts. Columns that a part of an earlier
            format lacks are null.

        Raises:
            DamagedFile: A part was cut short or altered, or has other columns.
            StudyError: The table is unknown, a part is of a later format, or the requested part is missing.
        """
        if part is not None:
            return self._read_part(table, part)
        empty = pl.DataFrame(schema=self.schema(table))
        parts = sorted(self.parts(table))
        if len(parts) < MANY:
            return pl.concat([empty, *(self._read_part(table, each) for each in parts)])
        if not self._is_local:
            return self._read_together(table, parts)
        version = f"{formats.FORMAT} {self.schema(table)}"
        folder = Path(self.root, self._table_folder(table))
        return read_remembered(folder, _TABLE, parts, version, partial(self._read_together, table))

    def source_of(self, table: str, part: str) -> str | None:
        """The source that was stored with a part of a table; None if it has none.

        Raises:
            DamagedFile: The part was cut short or altered.
            StudyError: The table is unknown, or the part is missing.
        """
        path = self._table_path(table, part)
        try:
            return pl.read_parquet_metadata(io.BytesIO(self._verify_bytes(path))).get(_SOURCE)
        except PolarsError as error:
            raise self._damage(path, "is not a Parquet file") from error

    def remove_part(self, table: str, part: str) -> None:
        """Remove one part of a table if it exists.

        Raises:
            StudyError: The table is unknown, or the part cannot be removed.
        """
        self.remove(self._table_path(table, part))

    def write_weights(self, name: str, tensors: "Mapping[str, Tensor]") -> None:
        """Write weights to one file; an earlier file of the same name is replaced.

        Args:
            name: The name of the file, without its suffix.
            tensors: Tensors of any shape by name.

        Raises:
            StudyError: The name points outside the folder, or the file cannot be written.
        """
        path = _weights_path(name)
        with _sealing(path):
            data = seal_weights(tensors, path)
        self.write_bytes(path, data)

    def read_weights(self, name: str) -> "dict[str, Tensor]":
        """Read the tensors of one file to the CPU.

        Raises:
            DamagedFile: The file was cut short or altered.
            StudyError: The file is missing.
        """
        path = _weights_path(name)
        data = self.read_bytes(path)
        try:
            return open_weights(data, (path,))
        except ValueError as error:
            raise self._damage(path, str(error)) from error

    def has_weights(self, name: str) -> bool:
        """Whether the weights ``name`` exist."""
        return self.exists(_weights_path(name))

    def weights(self) -> list[str]:
        """The names of the stored weights, sorted."""
        return self._list_names("checkpoints", _WEIGHTS)

    def remove_weights(self, name: str) -> None:
        """Remove the weights ``name`` if they exist.

        Raises:
            StudyError: The weights cannot be removed.
        """
        self.remove(_weights_path(name))

    def readers(self) -> "Mapping[str, Callable[[], pl.DataFrame | frozenset[str] | None]]":
        """A function that reads each part, weights file and description, by path in the folder.

        Each function returns the rows of a part, the ids of the runs of a weights file, or None for a description, and
        raises `DamagedFile` like any other read.
        """
        return {
            **{
                self._table_path(table, part): partial(self._read_part, table, part)
                for table in self.table_names
                for part in self.parts(table)
            },
            **{_weights_path(name): partial(self._runs_of_weights, name) for name in self.weights()},
            **{path_of(name): partial(self._runs_of_description, name) for name in described_names(self)},
        }

    def _runs_of_weights(self, name: str) -> frozenset[str]:
        return frozenset(key.partition("/")[0] for key in self.read_weights(name)) - {STACK}

    def _runs_of_description(self, name: str) -> None:
        read_description(self, name)

    def _list_names(self, folder: str, ending: str) -> list[str]:
        return sorted(name.removesuffix(ending) for name in self.files(folder) if name.endswith(ending))

    def _table_folder(self, table: str) -> str:
        if table not in SCHEMAS and not self.exists(path_of(_single(table))):
            raise StudyError(f"There is no table {table!r}; the tables are {', '.join(self.table_names)}.")
        return f"tables/{table}"

    def _table_path(self, table: str, part: str) -> str:
        return f"{self._table_folder(table)}/{_single(part)}{_TABLE}"

    def _read_part(self, table: str, part: str) -> pl.DataFrame:
        path = self._table_path(table, part)
        data = self._verify_bytes(path)
        try:
            metadata = pl.read_parquet_metadata(io.BytesIO(data))
            stated = metadata.get(formats.KEY)
            formats.check_format(int(stated or 1), f"{path} in {self.url}")
            frame = self._migrate(table, pl.read_parquet(io.BytesIO(data)), stated)
        except (PolarsError, ValueError) as error:
            raise self._damage(path, "is not a Parquet file") from error
        self._check_place(path, metadata.get(PLACE))
        if frame.schema != self.schema(table):
            raise self._damage(path, f"does not have the columns of the table {table}")
        return frame

    def _read_together(self, table: str, parts: Sequence[str]) -> pl.DataFrame:
        """Read the rows of many parts, in threads: one thread reads files while another one parses."""
        chunks = [parts[first : first + _CHUNK] for first in range(0, len(parts), _CHUNK)]
        with ThreadPoolExecutor(_THREADS) as pool:
            return pl.concat([*pool.map(partial(self._read_chunk, table), chunks)])

    def _read_chunk(self, table: str, parts: Sequence[str]) -> pl.DataFrame:
        """Read the rows of some parts at once, ten times faster than one by one if all have the same format."""
        paths = [self._table_path(table, part) for part in parts]
        data = self._verify_many(paths)
        with suppress(PolarsError, ValueError):  # reading the parts one by one reports the wrong one
            metadata = [pl.read_parquet_metadata(io.BytesIO(each)) for each in data]
            (stated,) = {each.get(formats.KEY) for each in metadata}
            if all(each.get(PLACE, path) == path for path, each in zip(paths, metadata, strict=True)):
                frame = self._migrate(table, pl.read_parquet(data), stated)
                if frame.schema == self.schema(table):
                    return frame
        empty = pl.DataFrame(schema=self.schema(table))
        return pl.concat([empty, *(self._read_part(table, part) for part in parts)])

    def _migrate(self, table: str, rows: pl.DataFrame, stated: str | None) -> pl.DataFrame:
        return formats.migrate_part(table, rows, stated) if table in SCHEMAS else rows

    def _verify_many(self, paths: Sequence[str]) -> list[bytes]:
        """The intact bytes of files in one folder; reads of a disk check the folder once."""
        if not (self._is_local and paths):
            return [self._verify_bytes(path) for path in paths]
        self._path(paths[0])  # refuses links instead of folders
        found = list[bytes]()
        for path in paths:
            try:
                with open(f"{self.root}/{path}", "rb") as file:  # noqa: PTH123 - called for thousands of files
                    data = file.read()
            except OSError:
                data = b""
            found.append(data if files.is_intact(data) else self._verify_bytes(path))  # which reports the fault
        return found

    def _verify_bytes(self, path: str) -> bytes:
        data = self.read_bytes(path)
        if not files.is_intact(data):
            raise self._damage(path, files.ALTERED)
        return data

    def _check_place(self, path: str, stated: str | None) -> None:
        """Check that a file is where it was written; before format 8, files do not state their path."""
        if stated not in {None, path}:
            raise self._damage(path, f"is a copy of {stated}")

    def _damage(self, path: str, what: str) -> DamagedFile:
        how = self.how_to_continue()
        return DamagedFile(
            f"{path} in {self.url} {what}; to move it to damaged/ and compute it again, {how}.", path, what
        )


def _weights_path(name: str) -> str:
    return f"checkpoints/{_single(name)}{_WEIGHTS}"


def _single(name: str) -> str:
    if "/" in name:
        raise StudyError(f"{name!r} cannot be the name of a part; it must be one name without a slash.")
    return name


@contextmanager
def _sealing(path: str) -> "Generator[None]":
    try:
        yield
    except ValueError as error:
        raise StudyError(f"{path} cannot be written: {error}.") from error


def _fit_schema(table: str, frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    if set(frame.columns) != set(schema):
        wrong = sorted(set(frame.columns) ^ set(schema))
        raise StudyError(
            f"Rows for the table {table} must have exactly the columns of the table, but differ in {', '.join(wrong)}."
        )
    try:
        return frame.select(schema.names()).cast(schema).fill_nan(None)
    except PolarsError as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"Rows for the table {table} do not have the column types of the table: {reason}.") from error


def seal_weights(tensors: "Mapping[str, Tensor]", path: str, about: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The bytes of a safetensors file with a checksum.

    Args:
        tensors: Tensors of any shape and device by name; they may share memory.
        path: The file's path in a study or a search, stored in its metadata.
        about: Additional metadata.

    Raises:
        ValueError: A name equals the key of the checksum.
    """
    from safetensors.torch import save

    # Copies, since safetensors refuses tensors that share memory.
    values = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    return files.seal(save(values, metadata={**about, PLACE: path, files.KEY: files.PLACEHOLDER}))


def weights_metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: JSON after eight bytes that give its length.

    Raises:
        ValueError: The data is not a safetensors file.
        AttributeError: The header is not a JSON object.
    """
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})


def open_weights(data: bytes, paths: Collection[str]) -> "dict[str, Tensor]":
    """Read the tensors of a file that `seal_weights` wrote, onto the CPU.

    Args:
        data: The content of the file.
        paths: The accepted paths; the path in the metadata, if any, must be one of them.

    Raises:
        ValueError: The file was cut short or altered, or is another file.
    """
    from safetensors.torch import load

    if not files.is_intact(data):
        raise ValueError(files.ALTERED)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError("is not a safetensors file") from error
    if (stated := weights_metadata(data).get(PLACE)) is not None and stated not in paths:
        raise ValueError(f"is a copy of {stated}")
    return tensors
