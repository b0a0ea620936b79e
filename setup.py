"""Build what setup.cfg has no words for: static programs, inside the wheel and as the command stockade-runtime."""

from __future__ import annotations

import glob
import os
import shlex
import subprocess
import sys
import tempfile

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

from distutils.command.build_scripts import build_scripts  # isort: skip - setuptools' own copy, once it is imported

#: each is made of all the C files of its folder
PROGRAMS = (
    os.path.join("stockade", "sandbox", "native", "launcher"),
    os.path.join("stockade", "audit", "native", "probe"),
)
#: the command that starts Python only where it has to
FRONT = os.path.join("stockade", "sandbox", "front", "stockade-runtime")
FLAGS = [
    *("-std=gnu11", "-O2", "-Wall", "-Wextra"),
    *("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
    *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-s"),
    *("-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"),
]
# By preference: not every C library comes with what a position-independent static program starts with.
LINKAGES = (["-fPIE", "-static-pie"], ["-fno-pie", "-static"])


def compile_program(program: str, output: str) -> None:
    """Compile its C files with $CC, or cc, into the static program `output`; an older one stays until it is whole."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    sources = sorted(glob.glob(os.path.join(os.path.dirname(program), "*.c")))
    complaints = ""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(output)) as scratch:
        made = os.path.join(scratch, "program")
        for linkage in LINKAGES:
            command = [*compiler, *FLAGS, *linkage, "-o", made, *sources]
            try:
                done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            except OSError as error:
                sys.exit(f"stockade: {program} needs a C compiler: {compiler[0]}: {error.strerror}; set CC or add gcc")
            complaints += f"{shlex.join(command)}\n{done.stderr}"
            if done.returncode == 0:
                os.chmod(made, 0o755)  # noqa: S103 - who may read the package may run it
                os.replace(made, output)
                return
    sys.exit(f"stockade: {program} does not compile into a static program\n{complaints}")


class BuildPy(build_py):
    """The Python files and, beside their sources, the programs."""

    def output(self, program: str) -> str:
        """Where a program goes: into the wheel's tree or, for an editable installation, beside its source."""
        return program if self.editable_mode else os.path.join(self.build_lib, program)

    def run(self) -> None:
        super().run()
        for program in PROGRAMS:
            compile_program(program, self.output(program))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *[self.output(program) for program in PROGRAMS]]


class BuildScripts(build_scripts):
    """The command stockade-runtime, compiled where setuptools would copy a script: it takes every file for text."""

    def run(self) -> None:
        self.mkpath(self.build_dir)
        compile_program(FRONT, os.path.join(self.build_dir, os.path.basename(FRONT)))

    def get_source_files(self) -> list[str]:
        return sorted(glob.glob(os.path.join(os.path.dirname(FRONT), "*.[ch]")))


class Wheel(bdist_wheel):
    """For one platform, since the programs are; for any CPython 3, since nothing links with it."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class PlatformDistribution(Distribution):
    """What makes setuptools put all of it where platform-specific files go."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildPy, "build_scripts": BuildScripts, "bdist_wheel": Wheel},
    scripts=[FRONT],
)
