"""The spec and the plan that the folder of a study holds."""

import tomllib
from contextlib import suppress

from lratlas.errors import DamagedFile, SpecError, StudyError
from lratlas.study.plan.plan import PLAN, Plan, read_plan
from lratlas.study.spec.sections import Spec
from lratlas.study.spec.spec import spec_from
from lratlas.study.store.folder import SPEC, Folder


def stored_spec(folder: Folder) -> Spec:
    """The spec of a study.

    Raises:
        StudyError: It was altered so that it cannot be read, or is of a later format.
    """
    text = folder.read_text(SPEC)
    try:
        return spec_from(tomllib.loads(text))
    except (ValueError, RecursionError, SpecError) as error:
        with suppress(DamagedFile):
            stored_plan(folder)  # it says where a study, and with it its spec, is of a later format
        reason = str(error).removesuffix(".")
        raise StudyError(
            f"spec.toml in {folder.url} was altered or cut short: {reason}; it must be put back as it was."
        ) from error


def stored_plan(folder: Folder) -> Plan | None:
    """The plan of a study; None before there is one.

    Raises:
        DamagedFile: It was cut short or altered.
        StudyError: It is of a later format.
    """
    if not folder.exists(PLAN):
        return None
    return read_plan(folder.read_text(PLAN), where=f"{PLAN} in {folder.url}", how=folder.how_to_continue)
