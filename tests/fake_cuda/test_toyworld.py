"""Fine-tuning of the built-in model on CUDA with closed-form teachers, as `--preset try`.

Without autocast, which ignores fake tensors.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch

from tests.helpers.fake_cuda import CUDA, fake_cuda
from triplaneturbo.distill import student as student_module
from triplaneturbo.distill.checkpoints import Checkpoints
from triplaneturbo.distill.prd import Trainer
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.prepare import prepare
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.models.catalog import SMALL, find_model
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.weights import load_generator, load_text
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.generators import exhaust


def _set_up(folder: Path) -> TrainingSetup:
    config = FinetuneConfig("mine", prompts=("a red mushroom",), **TOY_WORLD.presets["try"])
    return exhaust(prepare(config, find_model("small", False), DistributedContext(device=CUDA), folder))


def test_iterations(tmp_path: Path) -> None:
    # Before: files are read with meta tensors.
    generator, text = load_generator(SMALL, GeneratorConfig.load(SMALL), encoder=True), load_text(SMALL)
    with (
        fake_cuda(),
        patch.object(student_module, "load_generator", lambda *_, **__: generator),
        patch.object(student_module, "load_text", lambda *_, **__: text),
        patch.object(Checkpoints, "save", lambda *_: None),
    ):
        setup = _set_up(tmp_path)
        assert setup.autocast == torch.bfloat16
        assert setup.settings.optimizer == "soap"
        assert {"rgb", "geometry"} <= {teacher.name for teacher in setup.teachers}
        trainer = Trainer(
            DistributedContext(device=CUDA), setup.student, setup.teachers, setup.draw, setup.settings,
            tmp_path / "run", autocast=setup.autocast,
        )  # fmt: skip
        log = trainer.step()
        assert {"rgb volume", "geometry volume"} <= set(log)
        parameters = trainer.method.parameters().values()
        assert all(p.device == CUDA and p.dtype == torch.float32 for p in parameters)
