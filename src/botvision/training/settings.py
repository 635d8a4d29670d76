"""What a recipe says about training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class TrainingSettings(BaseModel):
    """Optimisation, schedule, precision and book-keeping of a run.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Images a step and process.
        optimiser: "sgd" (the paper's, with momentum) or "adamw".
        learning_rate: Peak learning rate.
        backbone_learning_rate: That of the backbone, which then follows the same schedule; None:
            as the rest.
        momentum: Of SGD.
        weight_decay: On weights; never on biases, normalisation and position tables.
        schedule: "cosine" to zero, or "step".
        milestones: Of "step": shares of the run after which the rate is multiplied by
            ``step_factor``.
        step_factor: See ``milestones``.
        warmup_steps: Steps of linear warm-up.
        warmup_factor: Share of the learning rate at the first step.
        gradient_clip: Largest norm of the gradient; None leaves it.
        ema_decay: Of the exponential moving average that is evaluated and saved; None: none.
        precision: "bfloat16" trains under autocast.
        channels_last: Memory format of the convolutions.
        seed: Of everything random.
        workers: Processes that read data.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        save_every: Steps between saved states, to resume from.
        log_every: Steps between lines in metrics.jsonl.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=1)] = 8
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.01
    backbone_learning_rate: Positive | None = None
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.67, 0.89)
    step_factor: Positive = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    warmup_factor: Fraction = 0.067
    gradient_clip: Positive | None = None
    ema_decay: Fraction | None = None
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    channels_last: bool = True
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 2
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    save_every: Annotated[int, Field(ge=1)] = 500
    log_every: Annotated[int, Field(ge=1)] = 10
