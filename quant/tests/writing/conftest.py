"""models.py, which makes small models, for the tests of writing."""

from types import ModuleType

import pytest
from neighbours import beside


@pytest.fixture(scope="session")
def models() -> ModuleType:
    """models.py, small models that are the same on every machine."""
    return beside(__file__, "models")


@pytest.fixture(scope="session")
def references() -> ModuleType:
    """make_references.py, for its constants."""
    return beside(__file__, "make_references")
