"""The store of a study: immutable parts of tables and weights."""

import io
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PolarsError
from safetensors import SafetensorError

from lratlas.errors import DamagedFile, StudyError
from lratlas.study import files, formats
from lratlas.study.description import Description, described_names, path_of, read_description
from lratlas.study.folder import Folder
from lratlas.tables import SCHEMAS

if TYPE_CHECKING:
    from torch import Tensor


_TABLE = ".parquet"
_WEIGHTS = ".safetensors"


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

    def write_table(self, table: str, part: str, frame: pl.DataFrame) -> None:
        """Write one part of a table; an earlier part of that name is replaced.

        Args:
            table: One of ``table_names``.
            part: The part's name.
            frame: Rows with exactly the table's columns, in any order; NaN becomes null.

        Raises:
            StudyError: The table is unknown, columns or types do not fit, or the part cannot be written.
        """
        path = self._table_path(table, part)
        buffer = io.BytesIO()
        metadata = {formats.KEY: str(formats.FORMAT), files.KEY: files.PLACEHOLDER}
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
            part: The part; None for all parts, in the order of their names.

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
        return pl.concat([empty, *(self._read_part(table, each) for each in sorted(self.parts(table)))])

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
            data = seal_weights(tensors)
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
            return open_weights(data)
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

    def find_damaged(self) -> list[str]:
        """The parts, weights and descriptions that are damaged, as sorted paths in the folder; reads all of them."""
        reads: list[Callable[[], object]] = [
            *(partial(self._read_part, table, part) for table in self.table_names for part in self.parts(table)),
            *(partial(self.read_weights, name) for name in self.weights()),
            *(partial(read_description, self, name) for name in described_names(self)),
        ]
        faulty = set[str]()
        for read in reads:
            try:
                read()
            except DamagedFile as error:
                faulty.add(error.path)
        return sorted(faulty)

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
            stated = pl.read_parquet_metadata(io.BytesIO(data)).get(formats.KEY)
            formats.check_format(int(stated or 1), f"{path} in {self.url}")
            frame = pl.read_parquet(io.BytesIO(data))
            frame = formats.migrate_part(table, frame, stated) if table in SCHEMAS else frame
        except (PolarsError, ValueError) as error:
            raise self._damage(path, "is not a Parquet file") from error
        if frame.schema != self.schema(table):
            raise self._damage(path, f"does not have the columns of the table {table}")
        return frame

    def _verify_bytes(self, path: str) -> bytes:
        data = self.read_bytes(path)
        if not files.is_intact(data):
            raise self._damage(path, files.ALTERED)
        return data

    def _damage(self, path: str, what: str) -> DamagedFile:
        how = self.how_to_continue()
        return DamagedFile(f"{path} in {self.url} {what}; to set it aside and compute it again, {how}.", path)


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


def seal_weights(tensors: "Mapping[str, Tensor]") -> bytes:
    """The file of tensors.

    Args:
        tensors: Tensors of any shapes and devices by name; they may share memory.

    Raises:
        ValueError: A name is that of the checksum.
    """
    from safetensors.torch import save

    # Copies, since safetensors refuses tensors that share memory.
    values = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    return files.seal(save(values, metadata={files.KEY: files.PLACEHOLDER}))


def open_weights(data: bytes) -> "dict[str, Tensor]":
    """The tensors of a file that `seal_weights` wrote, on the CPU.

    Raises:
        ValueError: It was cut short or altered, or is another file.
    """
    from safetensors.torch import load

    if not files.is_intact(data):
        raise ValueError(files.ALTERED)
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError("is not a safetensors file") from error
