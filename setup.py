"""Builds the fused CPU back end with the package: one plain shared library per instruction set.

Every library is optional: with no compiler, or one that does not know an instruction set, the installation
goes on without it and the recurrence runs on what is left. pyproject.toml has everything else.
"""

import copy
import os
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCE = Path("urzoo/recurrence/cpu/source")
COMMON = ["-std=c++17", "-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-Wno-psabi"]
# Each set of instructions as /proc/cpuinfo spells it. Compilers spell it without the underline.
AVX2 = ["avx2", "fma"]
AVX512 = [*AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl"]
VARIANTS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    VARIANTS |= {"avx2": AVX2, "avx512": AVX512, "avx512bf16": [*AVX512, "avx512_bf16"]}


def wanted():
    """The variants to compile: the best that this machine runs, or what URZOO_BUILD_VARIANTS says.

    It is "native" (the default), "all" (for a wheel that others install), "none", or names with commas between them.
    """
    asked = (os.environ.get("URZOO_BUILD_VARIANTS") or "native").split(",")
    if unknown := set(asked) - {"native", *VARIANTS}:
        if asked in (["all"], ["none"]):
            return list(VARIANTS) if asked == ["all"] else []
        raise SystemExit(
            f"error: URZOO_BUILD_VARIANTS names {min(unknown)!r}, expected all, none, or some of native,"
            f"{','.join(VARIANTS)}: URZOO_BUILD_VARIANTS=native"
        )
    return sorted({found for name in asked for found in (native() if name == "native" else [name])})


def native():
    """The best variant that this machine runs."""
    try:
        processor = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux: what the processor has is not known
        return list(VARIANTS)
    # From the smallest set to the largest.
    return [name for name, needs in VARIANTS.items() if set(needs) <= set(processor)][-1:]


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


class Wheel(bdist_wheel):
    """Any Python takes it: the libraries are of a processor, not of an interpreter."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


def library(name, sources, instructions=()):
    return Extension(
        f"urzoo.recurrence.cpu.{name}",
        sources=[str(path) for path in sorted(sources)],
        depends=[str(path) for path in sorted(SOURCE.glob("*.h"))],
        extra_compile_args=[*COMMON, "-pthread", *("-m" + name.replace("_", "") for name in instructions)],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,
    )


def libraries():
    # This one tells which of the others the processor runs, before one of them is loaded.
    chooser = SOURCE / "variants.cpp"
    kernels = set(SOURCE.glob("*.cpp")) - {chooser}
    fused = [library(f"_fused_{variant}", kernels, VARIANTS[variant]) for variant in wanted()]
    return [library("_variants", [chooser]), *fused] if fused else []


setup(ext_modules=libraries(), cmdclass={"build_ext": BuildLibraries, "bdist_wheel": Wheel})
