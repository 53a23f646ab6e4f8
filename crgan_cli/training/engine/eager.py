"""The engine that runs a player's turn operation by operation.

The other engines differ in how these operations reach the device, never in what they are.
"""

import logging
import os
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from crgan_cli.config.bounds import NonNegative, PositiveInt
from crgan_cli.data.batches import TrainingImages, get_image_limit
from crgan_cli.errors import UserError
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.types import BatchInputs, TurnLog, Views
from crgan_cli.networks.equalized import scaled_once
from crgan_cli.networks.fast import fused_resample
from crgan_cli.networks.fast.bf16_weights import cast_layers, find_cast_layers
from crgan_cli.networks.fast.spectral import find_norms, fixed_norms
from crgan_cli.networks.sync_batchnorm import convert_sync_batchnorm
from crgan_cli.system import rng
from crgan_cli.system import threads as cpu_threads
from crgan_cli.system.device import Precision, allow_tf32, best_precision
from crgan_cli.system.distributed.tensors import average_gradients
from crgan_cli.system.distributed.world import world
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.accumulate import cut_views
from crgan_cli.training.engine.compiler import compile_players, require_compiler
from crgan_cli.training.engine.turn_log import bound_gradient, mean_numbers, turn_log
from crgan_cli.training.optimizers import find_trainable

log = logging.getLogger(__name__)


class Turn(NamedTuple):
    """What decides which operations a turn runs."""

    who: str
    signature: Hashable  # of the task
    measure: bool = False  # log the gradient's norm as well
    lerp_weight: float | None = None  # of the new weights in the average of G; None: no update


class Eager:
    """Runs turns operation by operation.

    The life of an engine:

    1. `for_device(device)` checks that the device can do it, and settles the precision.
    2. `prepare(task, device)` moves the players there and sets PyTorch's global flags.
    3. `attach(optimizers, ema, clip_grad_norm)` hands over what a turn also works with.
    4. `begin(batches)` starts a session, after a checkpoint has been loaded (`load_state_dict`), or
       a stage, whose turns have other shapes. `end()` comes before, if there was a stage.
    5. `turn(who, number, inputs)` runs one update of one player, as often as the run needs.
       Between two steps, `capture_ready_turns()` may prepare those to come.
    6. `end()` ends the session, also after an error.

    With bf16 inside the networks, these stay fp32: images, logits, consistency terms, penalties,
    spectral norm, batch statistics, weights and optimizer. `compile` hands each network to
    torch.compile, in place.
    """

    def __init__(
        self,
        precision: Literal["auto", "fp32", "tf32", "bf16"] = "fp32",
        channels_last: bool = True,
        compile: bool = False,
        fold: Literal["auto", "always", "never"] = "never",
        spectral_norm: Literal["together", "each"] = "together",
        deterministic: bool = False,
        threads: PositiveInt | None = None,
        images_gib: NonNegative | None = None,
    ) -> None:
        self.options = dict(locals())  # for `Auto`, which passes them on
        del self.options["self"]
        self.requested_precision: Literal["auto", "fp32", "tf32", "bf16"] = precision
        self.precision: Precision = "fp32" if precision == "auto" else precision
        self.channels_last = channels_last
        self.compile = compile
        self.fold: Literal["auto", "always", "never"] = fold
        self.spectral_norm: Literal["together", "each"] = spectral_norm
        self.deterministic = deterministic
        self.threads = threads
        self.accumulate = 1  # parts of a batch; see `accumulate.py`
        self.images_gib = images_gib
        self.image_limit: int | None = None  # bytes; `for_device` sets it
        # layer -> whether its fused form is used; a checkpoint's, or chosen by `begin`
        self.folds: dict[str, bool] | None = None

    def for_device(self, device: torch.device, accumulate: int = 1) -> "Eager":
        """Return the engine for a device, which computes a turn in `accumulate` parts.

        Raises UserError if the device cannot do it.
        """
        self.accumulate = accumulate
        if self.requested_precision == "auto":
            self.precision = best_precision(device)
        if self.precision == "tf32" and device.type != "cuda":
            raise UserError(
                f"engine.precision=tf32 is a precision of CUDA devices, and device is {device}. "
                "Type engine.precision=auto, fp32 or bf16."
            )
        if self.precision == "bf16" != best_precision(device):
            log.warning("engine.precision=bf16: %s is not made for it, so this is slow", device)
        if self.compile:
            if accumulate > 1:
                raise UserError(
                    f"accumulate={accumulate} keeps the graph of the weights from part to part, "
                    "which compiled networks cannot. Type engine.compile=false, or accumulate=1."
                )
            require_compiler(device)
        self.image_limit = get_image_limit(device, self.images_gib)
        return self

    @property
    def layout(self) -> torch.memory_format:
        """Memory format of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def prepare(self, task: Task, device: torch.device) -> None:
        """Move the players to the device, in `layout`, and set PyTorch's global flags."""
        torch.set_num_threads(self.threads or cpu_threads.default_num_threads())
        if self.deterministic:  # cuBLAS needs a workspace of fixed size for it
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if torch.are_deterministic_algorithms_enabled() != self.deterministic:
            torch.use_deterministic_algorithms(self.deterministic)  # its import takes seconds
        # equal commands give equal bits: no algorithm is chosen by a stopwatch, none adds in any
        # order
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        allow_tf32(self.precision != "fp32")
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # the default of streams and random numbers
        self.device = device
        self.task = task.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        if world().world_size > 1:
            convert_sync_batchnorm(self.task)
        self.players = {who: task.player(who) for who in dict.fromkeys(task.turns)}
        # found once: to walk through all modules in every turn takes a share of a small step
        self.parameters = {who: find_trainable(player) for who, player in self.players.items()}
        self.norms = find_norms(*self.players.values())
        self.cast_layers = {
            who: find_cast_layers(*(self.players[other] for other in task.players_run(who)))
            for who in self.players
        }

    def attach(
        self,
        optimizers: Mapping[str, Optimizer],
        ema: EMA | None,
        clip_grad_norm: float | None = None,
    ) -> None:
        """Hand over what a turn works with besides the task."""
        self.optimizers = optimizers
        self.ema = ema
        self.clip_grad_norm = clip_grad_norm

    def begin(self, batches: TrainingImages) -> None:
        """Start a session, or a stage of it. Call it after loading a checkpoint."""
        self.batches = batches
        self.reals: Views = {}
        if self.folds is None:
            self.folds = fused_resample.choose_fused(self.task, self.fold, self.device)
        fused_resample.set_fused(self.task, self.folds)
        if self.compile:
            compile_players(self.task, self.players)

    def end(self) -> None:
        """End a session, also after an error."""

    def autocast(self) -> torch.autocast:
        """Autocast to bf16 if that is the precision."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def bf16_weights(self, who: str) -> AbstractContextManager[None]:
        """Cast all weights that a turn of `who` uses to bf16 at once. Not for Inductor, which would
        recompile."""
        if self.precision != "bf16" or self.compile:
            return nullcontext()
        return cast_layers(self.cast_layers[who])

    def turn(
        self,
        who: str,
        number: int,
        inputs: BatchInputs,
        *,
        measure: bool = False,
        lerp_weight: float | None = None,
    ) -> TurnLog:
        """Update one player; the others get no gradient.

        `number` counts the turns of `who` from 0 over the whole run. `inputs` are those of a batch
        of real images; empty: reuse the last batch. `measure` adds the gradient's norm.
        `lerp_weight` updates the average of G. Never waits for the device: the result stays there.
        """
        self.task.set_turn(who, number)
        return self.run_turn(Turn(who, self.task.signature(), measure, lerp_weight), inputs)

    def has_ready_turns(self) -> bool:
        """Whether `capture_ready_turns` has something to do."""
        return False

    def capture_ready_turns(self) -> None:
        """Prepare turns to come, between two steps; changes no state. See `Graphs`."""

    def run_turn(self, turn: Turn, inputs: BatchInputs) -> TurnLog:
        """Run the operations of a turn, the same on every engine."""
        for name, parameters in self.parameters.items():
            for parameter in parameters:
                parameter.requires_grad_(name == turn.who)
        if inputs:
            self.hold_reals(self.batches.to_views(*inputs))
        assert self.reals, "the first turn of a run has real images of its own"
        self.task.prepare_turn()
        optimizer = self.optimizers[turn.who]
        optimizer.zero_grad(set_to_none=True)
        together = self.spectral_norm == "together"
        numbers = []
        with (
            fixed_norms(self.norms, together=together),
            scaled_once(),
            closing(rng.each_part(self.accumulate, self.device)) as parts,
        ):
            reals = cut_views(self.reals, self.accumulate)
            for part in parts:
                # normalised and scaled weights are computed once: parts to come need their graph
                more = part < self.accumulate - 1
                numbers.append(self.backward(turn.who, reals[part], retain_graph=more))
        mine = self.parameters[turn.who]
        average_gradients(mine)
        measured = bound_gradient(turn.who, mine, self.clip_grad_norm, measure=turn.measure)
        optimizer.step()
        if self.ema and turn.lerp_weight is not None:
            self.ema.update(self.task.player("g"), turn.lerp_weight)
        return turn_log(mean_numbers(numbers) | measured)

    def backward(self, who: str, reals: Views, *, retain_graph: bool) -> dict[str, Tensor]:
        """Add the gradient of a batch, or of a part of it, and return its numbers for the log."""
        with self.autocast(), self.bf16_weights(who):
            loss = self.task.player_loss(who, reals)
        total = torch.stack(list(loss.terms.values())).sum()
        share = total if self.accumulate == 1 else total / self.accumulate
        share.backward(retain_graph=retain_graph)
        named = {f"terms/{name}": value.detach() for name, value in loss.terms.items()}
        return named | {f"loss/{who}": total.detach(), **loss.diagnostics}

    def hold_reals(self, reals: Views) -> None:
        """Keep the real images for this turn, and for those that reuse them."""
        self.reals = {
            name: batch._replace(x=batch.x.contiguous(memory_format=self.layout))
            for name, batch in reals.items()
        }

    def describe(self) -> str:
        """One line for the log."""
        compiled = ", networks compiled" if self.compile else ""
        folded = sum((self.folds or {}).values())
        folds = f", {folded} of {len(self.folds)} convolutions folded" if self.folds else ""
        return f"{type(self).__name__.lower()}, {self.precision}{compiled}{folds}"

    def state_dict(self) -> dict:
        """What a resumed run must repeat for the same bits."""
        return {"precision": self.precision, "folds": self.folds or {}}

    def load_state_dict(self, state_dict: dict) -> None:
        if self.precision != state_dict["precision"]:
            log.warning(
                "the steps so far were computed in %s, and those to come in %s",
                state_dict["precision"],
                self.precision,
            )
        if self.folds is None and self.fold == "auto":
            self.folds = dict(state_dict["folds"])
