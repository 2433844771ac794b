"""What a study says of a custom measurement, so that it is read where the measurement itself is not there."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from lratlas.errors import DamagedFile
from lratlas.measure.base import Chart, Measurement, schema_of
from lratlas.study.files import open_json, seal_json
from lratlas.study.folder import Folder

FOLDER = "measurements"
_ENDING = ".json"


class Description(BaseModel):
    """The table and the chart of a measurement.

    Attributes:
        columns: The columns of its own, with the names of their types.
        chart: Its chart; None where it has none.
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
    """Write the description of a measurement into a study."""
    folder.write_text(path_of(name), seal_json(description.model_dump(exclude_none=True)))


def read_description(folder: Folder, name: str) -> Description:
    """The description of a measurement.

    Raises:
        DamagedFile: It was cut short or altered.
        StudyError: It is not there.
    """
    path = path_of(name)
    try:
        found = Description.model_validate(open_json(folder.read_text(path)))
        found.table_schema  # noqa: B018 - the types are known
    except ValueError as error:
        how = folder.how_to_continue()
        message = f"{path} in {folder.url} was cut short or altered; to set it aside and write it again, {how}."
        raise DamagedFile(message, path) from error
    return found


def described_names(folder: Folder) -> list[str]:
    """The names of the custom measurements of a study."""
    return [name.removesuffix(_ENDING) for name in folder.files(FOLDER) if name.endswith(_ENDING)]
