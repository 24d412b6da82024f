from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import laconic


@pytest.mark.parametrize("name", laconic.__all__)
def test_every_public_name_is_there_whatever_was_imported_before(name: str) -> None:
    value = getattr(laconic, name)
    assert callable(value)
    importlib.import_module(value.__module__)
    assert getattr(laconic, name) is value


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, laconic; "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'click') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'merg'"):
        _ = laconic.merg
