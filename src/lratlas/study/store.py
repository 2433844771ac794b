"""The store of a study: immutable parts of tables and weights."""

import io
import json
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PolarsError
from safetensors import SafetensorError

from lratlas.errors import DamagedFile, StudyError
from lratlas.study import files, formats
from lratlas.study.description import Description, described_names, path_of, read_description
from lratlas.study.folder import Folder
from lratlas.study.merged import MANY, read_remembered
from lratlas.tables import SCHEMAS

if TYPE_CHECKING:
    from torch import Tensor


_TABLE = ".parquet"
_WEIGHTS = ".safetensors"
STACK = "stack"
"""What the names of tensors begin with that are of no single run."""
PLACE = "path"
"""Where the metadata of a file state its place in the folder."""
_SOURCE = "source"


class Store(Folder):
    """A study's folder, read and written as tables and weights."""

    @property
    def extras(self) -> dict[str, Description]:
        """The custom measurements of the study, by name.

        Raises:
            DamagedFile: The description of one was cut short or altered.
        """
        return {name: read_description(self, name) for name in described_names(self)}

    @property
    def table_names(self) -> tuple[str, ...]:
        """The tables that the study may have: those of every study, and those of its custom measurements."""
        return (*SCHEMAS, *described_names(self))

    def schema(self, table: str) -> pl.Schema:
        """The columns of a table.

        Raises:
            DamagedFile: What describes it was cut short or altered.
            StudyError: The table is unknown.
        """
        if table in SCHEMAS:
            return SCHEMAS[table]
        self._table_folder(table)
        return read_description(self, table).table_schema

    def write_table(self, table: str, part: str, frame: pl.DataFrame, *, source: str = "") -> None:
        """Write one part of a table; an earlier part of that name is replaced.

        Args:
            table: One of ``table_names``.
            part: The part's name.
            frame: Rows with exactly the table's columns, in any order; NaN becomes null.
            source: What the rows follow from, in tables that say nothing of runs; see `source_of`.

        Raises:
            StudyError: The table is unknown, columns or types do not fit, or the part cannot be written.
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
        """The names of the parts of ``table`` that are there.

        Raises:
            StudyError: The table is unknown.
        """
        return set(self._list_names(self._table_folder(table), _TABLE))

    def has_part(self, table: str, part: str) -> bool:
        """Whether a part of ``table`` is there.

        Raises:
            StudyError: The table is unknown.
        """
        return self.exists(self._table_path(table, part))

    def read_table(self, table: str, part: str | None = None) -> pl.DataFrame:
        """Read a table, or one part of it.

        Args:
            table: One of ``table_names``.
            part: The part; None for all parts; their rows are in no particular order.

        Returns:
            The rows; none, with the table's columns, where no part is there. Columns that a part of an earlier format
            lacks are null.

        Raises:
            DamagedFile: A part was cut short or altered, or has other columns.
            StudyError: The table is unknown, a part is of a later format, or the part asked for is not there.
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
        """What the rows of a part follow from, as it was stated when they were written; None where it was not.

        Raises:
            DamagedFile: The part was cut short or altered.
            StudyError: The table is unknown, or the part is not there.
        """
        path = self._table_path(table, part)
        try:
            return pl.read_parquet_metadata(io.BytesIO(self._verify_bytes(path))).get(_SOURCE)
        except PolarsError as error:
            raise self._damage(path, "is not a Parquet file") from error

    def remove_part(self, table: str, part: str) -> None:
        """Remove one part of a table; nothing happens if it is not there.

        Raises:
            StudyError: The table is unknown, or the part cannot be removed.
        """
        self.remove(self._table_path(table, part))

    def write_weights(self, name: str, tensors: "Mapping[str, Tensor]") -> None:
        """Write weights to one file; an earlier file of that name is replaced.

        Args:
            name: The file's name, without its ending.
            tensors: Tensors of any shapes by name.

        Raises:
            StudyError: The name leads out of the folder, or the file cannot be written.
        """
        path = _weights_path(name)
        with _sealing(path):
            data = seal_weights(tensors, path)
        self.write_bytes(path, data)

    def read_weights(self, name: str) -> "dict[str, Tensor]":
        """Read the tensors of one file, on the CPU.

        Raises:
            DamagedFile: The file was cut short or altered.
            StudyError: It is not there.
        """
        path = _weights_path(name)
        data = self.read_bytes(path)
        try:
            return open_weights(data, (path,))
        except ValueError as error:
            raise self._damage(path, str(error)) from error

    def has_weights(self, name: str) -> bool:
        """Whether the weights ``name`` are there."""
        return self.exists(_weights_path(name))

    def weights(self) -> list[str]:
        """The names of the weights that are there, sorted."""
        return self._list_names("checkpoints", _WEIGHTS)

    def remove_weights(self, name: str) -> None:
        """Remove the weights ``name``; nothing happens if they are not there.

        Raises:
            StudyError: They cannot be removed.
        """
        self.remove(_weights_path(name))

    def readers(self) -> "Mapping[str, Callable[[], frozenset[str] | None]]":
        """For each part, weights file and description, by its path in the folder, a function that reads it.

        The functions return the ids of the runs that rows or weights are of, None where the file says nothing of runs,
        and raise `DamagedFile` as other reading does.
        """
        return {
            **{
                self._table_path(table, part): partial(self._runs_of_part, table, part)
                for table in self.table_names
                for part in self.parts(table)
            },
            **{_weights_path(name): partial(self._runs_of_weights, name) for name in self.weights()},
            **{path_of(name): partial(self._runs_of_description, name) for name in described_names(self)},
        }

    def _runs_of_part(self, table: str, part: str) -> frozenset[str] | None:
        frame = self._read_part(table, part)
        return frozenset(frame["run"].drop_nulls()) if "run" in frame.columns else None

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
        """The rows of many parts, an order of magnitude faster than one by one if all are of one format."""
        paths = [self._table_path(table, part) for part in parts]
        data = [self._verify_bytes(path) for path in paths]
        with suppress(PolarsError, ValueError):  # reading each part says which one is wrong
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

    def _verify_bytes(self, path: str) -> bytes:
        data = self.read_bytes(path)
        if not files.is_intact(data):
            raise self._damage(path, files.ALTERED)
        return data

    def _check_place(self, path: str, stated: str | None) -> None:
        """See that a file is where it was written; before format 8 none says."""
        if stated not in {None, path}:
            raise self._damage(path, f"is a copy of {stated}")

    def _damage(self, path: str, what: str) -> DamagedFile:
        how = self.how_to_continue()
        return DamagedFile(f"{path} in {self.url} {what}; to set it aside and compute it again, {how}.", path, what)


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
        raise StudyError(f"Rows for the table {table} must have exactly its columns, but differ in {', '.join(wrong)}.")
    try:
        return frame.select(schema.names()).cast(schema).fill_nan(None)
    except PolarsError as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"Rows for the table {table} do not have its types: {reason}.") from error


def seal_weights(tensors: "Mapping[str, Tensor]", path: str, about: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The file of tensors.

    Args:
        tensors: Tensors of any shapes and devices by name; they may share memory.
        path: Its place in a study or a search, which it states.
        about: What it states besides.

    Raises:
        ValueError: A name is that of the checksum.
    """
    from safetensors.torch import save

    # Copies, since safetensors refuses tensors that share memory.
    values = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    return files.seal(save(values, metadata={**about, PLACE: path, files.KEY: files.PLACEHOLDER}))


def weights_metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says of itself, in the JSON behind eight bytes that hold its length.

    Raises:
        ValueError: It is no such file.
        AttributeError: The same.
    """
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})


def open_weights(data: bytes, paths: Collection[str]) -> "dict[str, Tensor]":
    """The tensors of a file that `seal_weights` wrote, on the CPU.

    Args:
        data: The file.
        paths: The places one of which it must state, if it states any.

    Raises:
        ValueError: It was cut short or altered, or is another file.
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
