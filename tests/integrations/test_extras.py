"""What is needed of other libraries: nothing for the package, and an integration says what is missing."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from lratlas.errors import LRAtlasError, MissingLibrary, extra

ROOT = Path(__file__).parents[2]
INTEGRATED = {"accelerate", "lightning", "mlflow", "optuna", "tensorboard", "trackio", "transformers"}
OPTIONAL = INTEGRATED | {"pooch", "requests", "sklearn", "vl_convert"}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)


def test_the_package_imports_nothing_optional() -> None:
    loaded = (
        "[getattr(lratlas, name) for name in lratlas.__all__]; import lratlas.cli.app, lratlas.integrations.tracking"
    )
    done = run(f"import sys, lratlas; {loaded}; print(*{{name.partition('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout.split()  # all that is public was loaded
    assert not OPTIONAL & set(done.stdout.split())


MISSING = [  # library, what needs it, and the extra that brings it
    ("lightning", "import lratlas.integrations.lightning", "lightning"),
    ("accelerate", "import lratlas.integrations.transformers", "transformers"),
    ("transformers", "import lratlas.integrations.transformers", "transformers"),
    ("optuna", "import lratlas.integrations.optuna", "optuna"),
    ("mlflow", "lratlas.integrations.tracking.log_to_mlflow(None)", "mlflow"),
    ("trackio", "lratlas.integrations.tracking.log_to_trackio(None)", "trackio"),
]
# One process for all: a module whose import failed is not there afterwards, but what it had imported is, so accelerate
# comes before transformers.
WITHOUT = """
import sys, lratlas.integrations.tracking
for missing, use, _ in {cases}:
    sys.modules[missing] = None
    try:
        exec(use)
    except lratlas.errors.MissingLibrary as error:
        print(error)
    del sys.modules[missing]
"""


def test_an_integration_says_what_is_missing() -> None:
    done = run(WITHOUT.format(cases=MISSING))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{missing} is not installed; this installs it: pip install 'lratlas[{name}]'" for missing, _, name in MISSING
    ]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for missing, _, name in MISSING:
        assert any(requirement.startswith(missing) for requirement in extras[name])


def test_what_is_missing_is_an_error_of_ours_and_of_an_import() -> None:
    with pytest.raises(MissingLibrary, match="no_such_library is not installed") as told, extra("optuna"):
        import_module("no_such_library.part")
    assert isinstance(told.value, LRAtlasError)
    assert isinstance(told.value, ImportError)
