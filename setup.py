"""Builds the one program of catena that is not Python; all else is in pyproject.toml.

``gate-client`` is a program, not a module, so it is linked as one and put where the package looks
for it. Linked statically, it starts faster, and no environment variable loads code into it.
"""

from __future__ import annotations

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WRAPPER = "catena/containers/wrapper"
COMPILE = [
    *("-std=c17", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fPIE"),
    *("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
]
LINK = ["-static-pie", "-s"]


class BuildProgram(build_ext):
    """Compiles and links without what a Python module would need."""

    def get_ext_filename(self, fullname: str) -> str:
        """The program's path below the package's root."""
        return fullname.replace(".", "/")

    def build_extension(self, ext: Extension) -> None:
        """Make one program of its sources."""
        objects = self.compiler.compile(
            ext.sources, output_dir=self.build_temp, extra_postargs=COMPILE
        )
        self.compiler.link_executable(objects, self.get_ext_fullpath(ext.name), extra_postargs=LINK)


setup(
    ext_modules=[
        Extension("catena.containers.wrapper.gate-client", [f"src/{WRAPPER}/gate-client.c"])
    ],
    cmdclass={"build_ext": BuildProgram},
)
