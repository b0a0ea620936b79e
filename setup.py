"""Build what setup.cfg has no words for: the launcher, a static program inside the wheel."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

LAUNCHER = os.path.join("stockade", "sandbox", "native", "launcher")
FLAGS = [
    *("-std=gnu11", "-O2", "-Wall", "-Wextra"),
    *("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
    *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-s"),
    *("-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"),
]
# By preference: not every C library comes with what a position-independent static program starts with.
LINKAGES = (["-fPIE", "-static-pie"], ["-fno-pie", "-static"])


def compile_launcher(output: str) -> None:
    """Compile launcher.c with $CC, or cc, into the static program `output`; an older one stays until it is whole."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    complaints = ""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(output)) as scratch:
        made = os.path.join(scratch, "launcher")
        for linkage in LINKAGES:
            command = [*compiler, *FLAGS, *linkage, "-o", made, f"{LAUNCHER}.c"]
            try:
                done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            except OSError as error:
                sys.exit(
                    f"stockade: the launcher needs a C compiler: {compiler[0]}: {error.strerror}; set CC or add gcc"
                )
            complaints += f"{shlex.join(command)}\n{done.stderr}"
            if done.returncode == 0:
                os.chmod(made, 0o755)  # noqa: S103 - who may read the package may run it
                os.replace(made, output)
                return
    sys.exit(f"stockade: the launcher does not compile into a static program\n{complaints}")


class BuildPy(build_py):
    """The Python files and, beside its source, the launcher."""

    def launcher(self) -> str:
        """Where the launcher goes: into the wheel's tree or, for an editable installation, beside its source."""
        return LAUNCHER if self.editable_mode else os.path.join(self.build_lib, LAUNCHER)

    def run(self) -> None:
        super().run()
        compile_launcher(self.launcher())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), self.launcher()]


class Wheel(bdist_wheel):
    """For one platform, since the launcher is; for any CPython 3, since nothing links with it."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class PlatformDistribution(Distribution):
    """What makes setuptools put all of it where platform-specific files go."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildPy, "bdist_wheel": Wheel})
