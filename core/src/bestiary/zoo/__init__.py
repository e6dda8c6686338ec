"""Several pipelines within a memory budget, behind one object.

zoo = bestiary.Zoo({"small": "Qwen/Qwen3-0.6B", "big": bestiary.Entry("org/model", idle=600)}, memory="24 GiB")
zoo.chat("Hello!", model="big")
"""

from bestiary.zoo.entry import Entry
from bestiary.zoo.status import ModelStatus
from bestiary.zoo.zoo import Zoo

__all__ = ["Entry", "ModelStatus", "Zoo"]
