"""Builds the fused CPU back end with the package: one plain shared library per instruction set.

Every library is optional: with no compiler, or one that does not know an instruction set, the installation
goes on without it and the recurrence runs on what is left. pyproject.toml has everything else.
"""

import copy
import os
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path("urzoo/recurrence/cpu/source")
COMMON = ["-std=c++17", "-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-Wno-psabi"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]
AVX512BF16 = [*AVX512, "-mavx512bf16"]
VARIANTS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    VARIANTS |= {"avx2": AVX2, "avx512": AVX512, "avx512bf16": AVX512BF16}


class BuildLibraries(build_ext):
    """Compiles libraries that ctypes loads: no Python in them, hence no Python version in their names."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def copy_file(self, infile, outfile, *arguments, **options):
        # Renamed into place: a process that has the old library loaded keeps it, where overwriting would crash it.
        complete = Path(outfile).with_name(f".{Path(outfile).name}.{os.getpid()}")
        try:
            super().copy_file(infile, complete, *arguments, **options)
            complete.replace(outfile)
        finally:
            complete.unlink(missing_ok=True)
        return outfile, True

    def build_extension(self, ext):
        # The variants share their sources and are built at once: each needs a folder of its own for the objects.
        own = copy.copy(self)
        own.build_temp = str(Path(self.build_temp, ext.name))
        build_ext.build_extension(own, ext)


def library(variant, flags):
    return Extension(
        f"urzoo.recurrence.cpu._fused_{variant}",
        sources=[str(SOURCE / name) for name in ("interface.cpp", "gru_interface.cpp", "threads.cpp", "variants.cpp")],
        depends=[str(path) for path in sorted(SOURCE.glob("*.h"))],
        extra_compile_args=[*COMMON, "-pthread", *flags],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,
    )


setup(ext_modules=[library(*item) for item in VARIANTS.items()], cmdclass={"build_ext": BuildLibraries})
