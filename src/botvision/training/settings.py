"""What a recipe says about training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from botvision.tasks.fields import Count, Fraction, Positive

_EVALUATED_AT_ONCE = 8  # images, where the recipe leaves the choice


class TrainingSettings(BaseModel):
    """Optimization, schedule, precision and book-keeping of a run.

    A recipe means the same on any number of processes: ``batch_size`` is that of an optimizer step
    over all of them, and what does not fit at once is accumulated.

    Attributes:
        epochs: Passes over the training data.
        max_steps: Optimizer steps after which the run ends, the schedule with it; None: all epochs.
        batch_size: Images of one optimizer step, over all processes.
        base_batch_size: Batch that ``learning_rate`` is meant for; another batch scales the
            rate, in proportion for SGD and with the square root for AdamW. None: ``batch_size``.
        micro_batch_size: Images a process takes at a time; their losses are averaged over the
            batch. None: the process's whole share of the batch.
        optimizer: "sgd" (the paper's, with momentum) or "adamw".
        learning_rate: Peak learning rate.
        backbone_learning_rate: That of the backbone, which then follows the same schedule; None:
            as the rest.
        momentum: Of SGD.
        weight_decay: On weights; never on biases, normalization and position tables.
        schedule: "cosine" to zero, or "step".
        milestones: Of "step": shares of the run after which the rate is multiplied by
            ``step_factor``.
        step_factor: See ``milestones``.
        warmup_steps: Steps of linear warm-up.
        warmup_factor: Share of the learning rate at the first step.
        clip_grad_norm: Largest norm of the gradient; None leaves it.
        ema_decay: Of the exponential moving average that is evaluated and saved; None: none.
        precision: "bfloat16" trains under autocast.
        channels_last: Memory format of the convolutions; sharded ones keep the usual one.
        gradient_checkpointing: Compute the backbone's activations again in the backward pass
            instead of keeping them.
        compile: Run the backbone through ``torch.compile`` in training.
        sharded: Split weights, gradients and optimizer over the processes (FSDP).
        deterministic: Let GPUs use deterministic algorithms alone; CPUs always do.
        seed: Of everything random.
        num_workers: Processes that read data, for each training process.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        best_metric: Metric by which the best weights are chosen; None: the task's.
        patience: Evaluations without a better one after which the run ends; None: never.
        save_every: Steps between saved states, to resume from.
        log_every: Steps between lines in metrics.jsonl.
        trackers: Where metrics are sent besides the run folder.
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
    def evaluation_batch_size(self) -> int:
        """Images per batch in the evaluation of a detector."""
        return self.micro_batch_size or min(self.batch_size, _EVALUATED_AT_ONCE)

    @property
    def memory_format(self) -> str:
        """Memory format of the convolutions, as torch names it."""
        return "channels_last" if self.channels_last else "contiguous_format"
