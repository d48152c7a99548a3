"""Memory plan of a full-size refinement, with the real sizes of all teachers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.full_size import TEXT, UNET, VAE
from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.distill.memory_plan import Plan
from triplaneturbo.distill.ptd import ISM, RefineSettings
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.refine.cost import model_memory
from triplaneturbo.refine.memory_plan import DoesNotFitError, PlannedRefinement, plan_refinement
from triplaneturbo.refine.setup import OPEN_SETTINGS, OPEN_SIZE
from triplaneturbo.utils.units import GB

ALL = OPEN_SETTINGS  # with all three teachers
ONE = replace(OPEN_SETTINGS, teachers={"sd": ISM})


def test_full_model_fits_a_16_gb_gpu_with_one_teacher_and_not_with_three() -> None:
    full = ModelSizes.of(UNET, VAE, TEXT, GeneratorConfig())

    def total(settings: RefineSettings, available: float) -> Plan:
        refinement = PlannedRefinement(
            full, settings, "field", OPEN_SIZE, torch.device("cuda"), torch.float16
        )
        return plan_refinement(refinement, int(available * GB))

    one = total(ONE, 16)
    # The U-Net's 865,910,724 and the VAE's 83,653,863 parameters, at two bytes each; adapters on top.
    assert one.parts["sd: a second copy of the base"] == pytest.approx(2 * 949_564_587, rel=0.03)
    assert model_memory(full, torch.float16, torch.float16).text == pytest.approx(2 * 340_387_840, rel=1e-3)
    assert total(ALL, 24).total > one.total
    with pytest.raises(DoesNotFitError) as raised:
        total(ALL, 10)
    assert raised.value.change is not None
