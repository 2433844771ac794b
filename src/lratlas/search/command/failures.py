"""When a command fails for every LR alike, it is the command that must be corrected."""

import re
from collections.abc import Sequence

from lratlas.errors import SearchError
from lratlas.search.command.output import PRINTED
from lratlas.search.segments import SegmentResult

ALIKE = 3
OF_COMMAND = "the command "
"""How the reasons begin that speak of the command; others, such as a loss that was NaN, speak of the LR."""
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def stop_if_hopeless(results: Sequence[SegmentResult]) -> None:
    """Stop a search in which the command failed in every segment, the last three times in the same way.

    Numbers and quotations of what the command printed may differ.

    Args:
        results: All that is known of the search.

    Raises:
        SearchError: It cannot succeed; the message has the reason.
    """
    failures = [result.failure for result in results if (result.failure or "").startswith(OF_COMMAND)]
    if len(failures) < ALIKE or len(failures) < len(results):
        return
    if len({_NUMBER.sub("0", str(failure).partition(PRINTED)[0]) for failure in failures[-ALIKE:]}) == 1:
        raise SearchError(
            f"All of the first {len(failures)} segments failed, the last one because {str(failures[-1]).rstrip('.')}."
            " Correct the command and start again with --retry-failed, which trains them again."
        )
