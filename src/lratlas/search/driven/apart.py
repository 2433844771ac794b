"""That trainings of a search are apart: each trains its own parameters."""

from collections.abc import Iterable, MutableMapping

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lratlas.errors import SearchError

_owners: MutableMapping[Tensor, object] = WeakIdKeyDictionary()


def claim(parameters: Iterable[Tensor], owner: object) -> bool:
    """Make sure that no other training trains these parameters; those without a gradient are not trained.

    Returns:
        Whether there was one with a gradient.

    Raises:
        SearchError: Another one trains them.
    """
    trained = [each for each in parameters if each.grad is not None]
    if any(_owners.setdefault(each, owner) is not owner for each in trained):
        raise SearchError(
            "Two trainings of the search train the same parameters, so that each continues from where the other one is:"
            " the model is made outside the function. Make it inside, so that each training has its own."
        )
    return bool(trained)
