"""`python -m bestiary_kernels`: whether the native library was built, and for which instructions."""

from bestiary_kernels.cpu.library import LibraryMissing, instruction_sets

try:
    print(f"Native kernels: {', '.join(instruction_sets())}.")
except LibraryMissing as error:
    print(f"Native kernels are not used, and plain torch serves: {error}.")
