"""One optimizer step on one worker's share of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from trainable.exchange import exchange
from trainable.memory import Rewind, free_memory, is_out_of_memory
from trainable.metrics import counts
from trainable.objective import Objective
from trainable.optim import clip_gradients
from trainable.schedules import learning_rate
from trainable.state import RunState


class TrainingStep:
    """Forward and backward in micro-batches, exchange among workers, clipping, update, average.

    The gradient is that of the mean loss over the whole batch, over all micro-batches and workers, however
    it is cut: every image weighs the same. Nothing here waits for the device (but see `precision` fp16).

    Args:
        state: The run whose weights are moved and whose sums are added to.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.config, self.session = state.config, state.session
        self.objective = Objective(state.config, state.session.device)

    def __call__(self, images: Tensor, targets: Tensor, stop: bool) -> Tensor:
        """Make one step.

        Args:
            images: (N, 3, S, S) of this worker, on its device.
            targets: (N,) class indices or (N, K) probabilities, on its device.
            stop: Whether this worker was asked to stop; told to the others on the way.

        Returns:
            Flags for `divergence.Watch`, on the device.
        """
        state, config = self.state, self.config
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, state.steps, state.steps_per_epoch)
        flags = self._gradients(images, targets)
        request = torch.full((1,), float(stop), device=flags.device)
        flags = exchange(state.network, torch.cat([flags, request]), self.session)
        state.scaler.unscale_(state.optimizer)
        norm = clip_gradients(state.network, config)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if state.ema:
            state.ema.update(state.network, state.steps)
        return torch.cat([flags[:2], self._exploded(norm), flags[2:]])

    def _gradients(self, images: Tensor, targets: Tensor) -> Tensor:
        """Accumulate this worker's gradients, with fewer images at a time when memory runs out.

        A step that ran out of memory leaves nothing behind: gradients are dropped, random states and
        running statistics brought back, and its sums were not added yet. The repeated step is the one
        that a smaller `batch_max` would have made.
        """
        before = Rewind.of(self.state.network, self.session.device)
        while True:
            try:
                sums, flags = self._accumulate(images, targets)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._in_step_with_others:
                    raise
                failure = error.with_traceback(None)  # its frames hold the activations
            self.state.optimizer.zero_grad(set_to_none=True)
            before.restore(self.state.network, self.session.device)
            self.state.micro_batch.halve(f"in step {self.state.steps + 1}", failure)
        self.state.sums.counts += sums
        return flags

    @property
    def _in_step_with_others(self) -> bool:
        """Whether workers meet inside a forward pass already, so that none can repeat it alone."""
        return self.config.sync_batchnorm and self.session.world_size > 1

    def probe(self, image_size: int) -> None:
        """Find out with blank images of side `image_size` how many fit into memory at a time.

        Beside a micro-batch's activations, gradients and weights there must be room for what the optimizer
        will keep: at most two numbers per weight. The run is left as it was. All workers go on with what
        fits on each of them.
        """
        state, device = self.state, self.session.device
        before = Rewind.of(state.network, device)
        while True:
            failure: BaseException | None = None
            try:
                self._try_blank(image_size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = error.with_traceback(None)
            state.optimizer.zero_grad(set_to_none=True)
            before.restore(state.network, device)
            if failure is None:
                break
            state.micro_batch.halve("in the trial before the first step", failure)
        free_memory()
        state.micro_batch.size = min(self.session.gather(state.micro_batch.size))

    def _try_blank(self, image_size: int) -> None:
        network, device, size = self.state.network, self.session.device, self.state.micro_batch.size
        kept = [torch.zeros_like(p) for p in network.parameters() for _ in range(2)]
        images = torch.zeros(size, 3, image_size, image_size, device=device)
        self._accumulate(images, torch.zeros(size, dtype=torch.int64, device=device))
        del kept

    def _accumulate(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        sums = torch.zeros_like(self.state.sums.counts)
        flags = torch.zeros(2, device=sums.device)
        # As equal as they can be: batch normalization over a last image alone would count, or fail.
        parts = -(-len(images) // self.state.micro_batch.size)
        # Workers sum their gradients, so each divides by the images of all of them.
        images_in_batch = len(images) * self.session.world_size
        for some, wanted in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
            outcome = self.objective(self.state.network, some, wanted)
            self.state.scaler.scale(outcome.loss / images_in_batch).backward()
            sums += counts(outcome.loss, outcome.logits, wanted)
            flags = torch.maximum(flags, outcome.flags)
        return sums, flags

    def _exploded(self, norm: Tensor) -> Tensor:
        """(1,) whether the gradients are not finite for good."""
        exploded = (~torch.isfinite(norm)).float().reshape(1)
        if self.state.scaler.is_enabled():
            # The scaler raises its scale until gradients overflow, skips that step and halves it. Only
            # where even an unscaled loss overflows the gradients are to blame.
            exploded *= self.state.scaler.get_scale() < 1.0
        return exploded
