"""The loader of all data sets: images in memory, served in batches."""

import torch

PIECE = 2**18       # values that a loader converts to float at one time on a CPU: 1 MB


class InMemoryLoader:
    """Batches of a data set that is kept on the device as uint8.

    Iterating yields `(images, labels)`: images float32 of shape (B, C, H, W) in `image_range`,
    labels int64 of shape (B,). The last batch may be shorter. With `shuffle` every pass has a new
    order, drawn from the loader's own generator: the same seed gives the same orders, whatever
    other random numbers are drawn. `settings` says what `get_loaders` was asked for.
    """

    settings = {}

    def __init__(self, images, labels, batch_size, *, image_range=(0, 1), shuffle=False, seed=0):
        self.images, self.labels = images, labels      # uint8 (N, C, H, W), int64 (N,)
        self.batch_size, self.image_range, self.shuffle = batch_size, image_range, shuffle
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def n_images(self):
        """Images in one pass."""
        return len(self.images)

    def __len__(self):
        """Batches in one pass."""
        return -(-self.n_images // self.batch_size)

    def __iter__(self):
        if self.shuffle:    # drawn on the CPU, so that every device sees the same order
            order = torch.randperm(self.n_images, generator=self.generator).to(self.images.device)
        # several small batches are gathered and converted in one call: a call for each would cost more than its work
        piece = 16 * PIECE if self.images.is_cuda else PIECE        # what fits a CPU's cache is little work for a GPU
        n_batches = max(1, piece // (self.batch_size * self.images[0].numel()))
        for start in range(0, self.n_images, n_batches * self.batch_size):
            part = slice(start, start + n_batches * self.batch_size)
            if self.shuffle:        # index_select copies whole rows: several times faster than images[index]
                images, labels = (data.index_select(0, order[part]) for data in (self.images, self.labels))
            else:
                images, labels = self.images[part], self.labels[part]
            yield from zip(self.to_float(images).split(self.batch_size), labels.split(self.batch_size))

    def state_dict(self):
        """Return the state of the generator, which decides all later orders, for a training that is resumed."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state):
        """Continue with the orders of the loader that `state_dict` was taken from."""
        self.generator.set_state(state["generator"])

    def to_float(self, images):
        """Convert uint8 images to float32 in `image_range`."""
        low, high = self.image_range
        return images.to(torch.float32).div_(255 / (high - low)).add_(low)
