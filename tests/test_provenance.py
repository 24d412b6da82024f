import subprocess
import sys

import pytest
from blake3 import blake3

from laconic import provenance
from laconic.errors import LaconicError
from laconic.provenance import digest_file, digest_range, versions


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25])
def test_digest_file_is_the_same_whatever_the_block(tmp_path, monkeypatch, size):
    monkeypatch.setattr(provenance, "READ_BYTES", 10)
    data = bytes(range(size))
    (tmp_path / "f").write_bytes(data)
    assert digest_file(tmp_path / "f") == blake3(data).hexdigest()


def test_digest_range_hashes_only_the_range(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    assert digest_range(tmp_path / "f", 2, 3) == blake3(b"234").hexdigest()


def test_digest_range_refuses_a_short_file(tmp_path):
    (tmp_path / "f").write_bytes(b"0123")
    with pytest.raises(LaconicError, match=r"f: ends 2 bytes early"):
        digest_range(tmp_path / "f", 2, 4)


def test_digest_file_names_a_missing_file(tmp_path):
    with pytest.raises(LaconicError, match=r"gone: cannot be read: No such file"):
        digest_file(tmp_path / "gone")


def test_versions_name_every_library_and_repeat():
    found = versions()
    assert list(found) == ["python", "laconic", "torch", "transformers", "safetensors", "numpy"]
    assert found == versions()
    assert "not installed" not in found.values()


def test_nothing_heavy_is_imported():
    code = (
        "import sys, laconic.diagnosis.doctor, laconic.provenance\n"
        "import laconic.checkpoint.card, laconic.checkpoint.manifest\n"
        "laconic.provenance.versions()\n"
        "print([m for m in ('torch', 'transformers', 'jinja2', 'huggingface_hub') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
