"""Build step of comity-mpc: the compiled kernels, where there is a C compiler; without one the package works on numpy."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, setup  # type: ignore[import-untyped]
from setuptools.command.build_py import build_py  # type: ignore[import-untyped]

_HERE = Path(__file__).parent
_FOLDER = "kernels"


class Modules(build_py):  # type: ignore[misc]
    """The package's modules without this file, which lies beside them."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return (package, module, file) of a package."""
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[:2] != ("mpc_ops", "setup")]


def extensions() -> list[Extension]:
    """Return the one extension (cffi, API mode, stable ABI), or nothing without cffi; a failed build is a warning."""
    try:
        from cffi import FFI  # type: ignore[import-untyped]  # noqa: PLC0415 - only the build needs it
    except ImportError:
        return []
    ffi: Any = FFI()
    ffi.cdef((_HERE / _FOLDER / "kernels.h").read_text(encoding="utf-8"))
    stable = not sysconfig.get_config_var("Py_GIL_DISABLED")
    ffi.set_source(
        "mpc_ops.kernels._compiled",
        '#include "kernels.h"',
        sources=[f"{_FOLDER}/kernels.c"],
        include_dirs=[_FOLDER],
        depends=[f"{_FOLDER}/kernels.h"],
        extra_compile_args=["-O3", "-std=gnu11"],
        define_macros=[] if stable else [("_CFFI_NO_LIMITED_API", None)],
        py_limited_api=stable,
        optional=True,
    )
    made: Extension = ffi.distutils_extension(tmpdir="build/kernels")
    return [made]


if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_py": Modules},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
