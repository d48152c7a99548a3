"""Keys for training, and uploaded prompt lists."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio")

from triplaneturbo.errors import UserError
from triplaneturbo.serving.admin import Admin
from triplaneturbo.serving.training_access import TrainingAccess


def test_keys_are_issued_to_permitted_visitors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Training is disabled"):
        TrainingAccess(Admin("0.0.0.0"), tmp_path).enter()
    with pytest.raises(UserError, match="Training is disabled"):
        TrainingAccess(Admin("0.0.0.0"), tmp_path).check("0" * 64)
    with pytest.raises(UserError, match="limited to the machine on which the server runs"):
        TrainingAccess(Admin("127.0.0.1"), tmp_path).enter()
    asking = TrainingAccess(Admin("0.0.0.0", password="secret"), tmp_path)
    with pytest.raises(UserError, match="Wrong administrator password"):
        asking.enter("guess")
    key = asking.enter("secret")
    assert asking.check(key) == key
    for wrong in (None, "", key[:-1], key.upper(), [key], {"key": key}):
        with pytest.raises(UserError, match="has no training access"):
            asking.check(wrong)


def test_uploaded_lists_are_private_and_deleted(tmp_path: Path) -> None:
    admission = TrainingAccess(Admin("127.0.0.1"), tmp_path)
    key = admission.enter(local=True)
    with pytest.raises(UserError, match="upload it again"):
        admission.uploaded(key)
    first = admission.receive(key, "../../my ducks.CSV")
    assert first.name == "my-ducks.csv"
    assert first.parent.parent == tmp_path
    first.write_text("a red duck")
    assert admission.uploaded(key) == first
    second = admission.receive(key, "ducks.txt")
    assert not first.parent.exists()
    second.write_text("a red duck")
    admission.drop(key)
    assert not list(tmp_path.iterdir())
    for name in ("ducks.html", "ducks", "", ".csv.exe"):
        with pytest.raises(UserError, match=r"use \.txt"):
            admission.receive(key, name)
    with pytest.raises(UserError, match="has no training access"):
        admission.receive("0" * 64, "ducks.txt")
