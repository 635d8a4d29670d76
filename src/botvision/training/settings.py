"""The settings of a training run."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from botvision.tasks.fields import Count, Fraction, Positive


class TrainingSettings(BaseModel):
    """Optimization, schedule, precision, evaluation and logging of a run.

    A recipe means the same on any number of processes: ``batch_size`` is that of an optimizer step
    over all of them, and gradients of what does not fit at once are accumulated.

    Attributes:
        epochs: Number of passes over the training data.
        max_steps: Number of optimizer steps after which the run and its schedule end; None: all
            epochs.
        batch_size: Number of images of an optimizer step, over all processes.
        base_batch_size: Batch size that ``learning_rate`` is meant for. For another batch size it
            is scaled, linearly for SGD and with the square root for AdamW. None: ``batch_size``.
        micro_batch_size: Number of images a process takes at a time; gradients are accumulated
            over the rest. None: all images of the process.
        optimizer: "sgd" (with momentum, the paper's) or "adamw".
        learning_rate: Peak learning rate.
        backbone_learning_rate: Peak learning rate of the backbone, on the same schedule; None:
            ``learning_rate``.
        attention_lr_scale: Factor of the learning rate of the query, key and value projections.
        position_lr_scale: Factor of the learning rate of the position tables.
        momentum: Momentum of SGD.
        weight_decay: Weight decay; biases, normalization and position tables have none.
        schedule: Schedule of the learning rate: "cosine" to zero, or "step".
        milestones: Fractions of the run at which the "step" schedule multiplies the learning rate
            by ``step_factor``.
        step_factor: Factor of the learning rate at each of the ``milestones``.
        warmup_steps: Number of steps of linear warm-up.
        warmup_factor: Factor of the learning rate at the first step of the warm-up.
        clip_grad_norm: Largest norm of the gradient; None: no clipping.
        ema_decay: Decay of the moving average of the weights, which is then evaluated and saved;
            None: no average.
        precision: "bfloat16" trains under autocast; "float32" does not.
        channels_last: Whether convolutions use the channels-last memory format; not if sharded.
        gradient_checkpointing: Whether activations of the backbone are recomputed in the backward
            pass instead of kept.
        compile: Whether the backbone runs through ``torch.compile`` in training.
        sharded: Whether weights, gradients and optimizer are split over the processes (FSDP).
        deterministic: Whether GPUs are restricted to deterministic algorithms, as CPUs always are.
        seed: Random seed.
        num_workers: Number of data loading workers of each process.
        evaluate_every: Number of epochs between evaluations; the last epoch is always evaluated.
        best_metric: Metric that selects the best weights; None: the task's primary metric.
        patience: Number of evaluations without improvement after which the run ends; those in the
            warm-up, and before the metric has reached 0.01, do not count. None: never.
        save_every: Number of steps between saved states.
        log_every: Number of steps between lines in ``metrics.jsonl``.
        trackers: Services that metrics are sent to, besides the run folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count = 12
    max_steps: Count | None = None
    batch_size: Count = 8
    base_batch_size: Count | None = None
    micro_batch_size: Count | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.01
    backbone_learning_rate: Positive | None = None
    attention_lr_scale: Positive = 1.0
    position_lr_scale: Positive = 1.0
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.67, 0.89)
    step_factor: Positive = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    warmup_factor: Fraction = 0.067
    clip_grad_norm: Positive | None = None
    ema_decay: Fraction | None = None
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    channels_last: bool = True
    gradient_checkpointing: bool = False
    compile: bool = False
    sharded: bool = False
    deterministic: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    num_workers: Annotated[int, Field(ge=0)] = 2
    evaluate_every: Count = 1
    best_metric: str | None = None
    patience: Count | None = None
    save_every: Count = 500
    log_every: Count = 10
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()

    @property
    def memory_format(self) -> str:
        """Memory format of the convolutions, as torch names it."""
        return "channels_last" if self.channels_last else "contiguous_format"
