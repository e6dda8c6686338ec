"""What the tests of every distribution share."""

import os
from pathlib import Path

import hypothesis
import pytest

# Tests compare with references to the last digits: they compute in plain torch unless they ask for kernels.
os.environ["BESTIARY_KERNELS"] = "off"
os.environ["BESTIARY_PANELS"] = "off"  # and leave nothing in the user's cache

# A machine that is busy with other things is slow at times, which says nothing of the code.
hypothesis.settings.register_profile("bestiary", deadline=None)
hypothesis.settings.load_profile("bestiary")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data and expected results, beside the checkout or where BESTIARY_TEST_DATA says."""
    named = os.environ.get("BESTIARY_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parent.parent / "shared/data"
    if not folder.is_dir():
        pytest.skip(f"there is no real data at {folder}; set BESTIARY_TEST_DATA to its folder")
    return folder
