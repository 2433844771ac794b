"""The GPUs that programs may use, and which of them each program gets."""

import os
import subprocess
from collections.abc import Sequence
from itertools import pairwise

VARIABLE = "CUDA_VISIBLE_DEVICES"
_PATIENCE = 20.0  # seconds for nvidia-smi, whose first call may start the driver


def visible_gpus() -> tuple[str, ...]:
    """The CUDA devices that programs started here would see, by the names that ``CUDA_VISIBLE_DEVICES`` knows."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return tuple(map(str, range(_listed() or _counted())))
    names = [name.strip() for name in given.split(",")]
    # As CUDA does: what follows a name that is none is ignored.
    end = next((place for place, name in enumerate(names) if name in {"", "-1", "NoDevFiles"}), len(names))
    return tuple(names[:end])


def divided(gpus: Sequence[str], workers: int) -> list[dict[str, str]]:
    """What the environment of each worker's programs says of GPUs: equal parts of them, or one in turn.

    Args:
        gpus: Their names.
        workers: Programs at once.

    Returns:
        ``CUDA_VISIBLE_DEVICES`` for each worker; nothing where there are no GPUs.

    Example:
        >>> divided(["0", "1"], 3)
        [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': '0'}]
    """
    if not gpus:
        return [{} for _ in range(workers)]
    count = len(gpus)
    if workers > count:
        return [{VARIABLE: gpus[place % count]} for place in range(workers)]
    ends = [count * place // workers for place in range(workers + 1)]
    return [{VARIABLE: ",".join(gpus[start:end])} for start, end in pairwise(ends)]


def _listed() -> int:
    """How many GPUs the driver lists; 0 where there is none."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, encoding="utf-8", timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())


def _counted() -> int:
    """How many GPUs PyTorch sees, also such as no NVIDIA driver lists."""
    from torch.cuda import device_count

    return device_count()
