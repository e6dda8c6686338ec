"""What several files of tests import lies in `support`, and a folder of tests is no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
