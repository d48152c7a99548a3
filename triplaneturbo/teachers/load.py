"""Loading of registered teachers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.loader import TeacherContext
from triplaneturbo.teachers.offload import OffloadableTeacher, offload_sequentially
from triplaneturbo.teachers.registry import TEACHERS


def teacher_files(names: Iterable[str]) -> dict[str, Any]:
    """Return the files of teachers by name; missing ones are downloaded with progress bars.

    Raises:
        UserError: files are missing and cannot be downloaded.
    """
    return {name: TEACHERS[name].loader().files() for name in names}


def load_teachers(files: Mapping[str, Any], context: TeacherContext) -> list[Teacher]:
    """Load teachers in the order of `files`.

    Args:
        files: files by the teacher's name; see `teacher_files`.
        context: what they are made from.

    Raises:
        UserError: if a checkpoint is missing, broken or of another model.
    """
    teachers = [TEACHERS[name].loader().load(context, of_teacher) for name, of_teacher in files.items()]
    if context.offload:
        return offload_sequentially(cast("list[OffloadableTeacher]", teachers), context.device)
    return teachers
