"""Stored descriptions of custom measurements, so that a study can be read without their code."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from lratlas.errors import DamagedFile
from lratlas.files import open_json, seal_json
from lratlas.measure.base import Chart, Measurement, schema_of
from lratlas.study.folder import Folder

FOLDER = "measurements"
_ENDING = ".json"


class Description(BaseModel):
    """The table columns and the chart of a measurement.

    Attributes:
        columns: The columns that the measurement adds, with the names of their types.
        chart: The chart, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, str]
    chart: Chart | None = None

    @property
    def table_schema(self) -> pl.Schema:
        """The columns of the table."""
        return schema_of(self.columns)


def description_of(measurement: Measurement) -> Description:
    """The description of a measurement."""
    return Description(columns=dict(measurement.columns), chart=measurement.chart)


def path_of(name: str) -> str:
    """The file that describes a measurement."""
    return f"{FOLDER}/{name}{_ENDING}"


def write_description(folder: Folder, name: str, description: Description) -> None:
    """Write the description of a measurement to a study."""
    folder.write_text(path_of(name), seal_json(description.model_dump(exclude_none=True)))


def read_description(folder: Folder, name: str) -> Description:
    """Read the description of a measurement.

    Raises:
        DamagedFile: The file was cut short or altered.
        StudyError: The file is missing.
    """
    path = path_of(name)
    try:
        found = Description.model_validate(open_json(folder.read_text(path)))
        found.table_schema  # noqa: B018 - raises on unknown types
    except ValueError as error:
        how = folder.how_to_continue()
        message = f"{path} in {folder.url} was cut short or altered; to move it to damaged/ and write it again, {how}."
        raise DamagedFile(message, path) from error
    return found


def described_names(folder: Folder) -> list[str]:
    """The names of the custom measurements of a study."""
    return [name.removesuffix(_ENDING) for name in folder.files(FOLDER) if name.endswith(_ENDING)]
