"""Time the training step of each lab against the plain loop of the same networks, A B A B in one run.

    python tests/benchmarks/speed.py                        all cases, on the CPU
    python tests/benchmarks/speed.py "MLP GAN" --device cuda --json speed.json
    python tests/benchmarks/speed.py --scaling              an epoch of the small VAE on 6,000 to 600,000 images
    python tests/benchmarks/speed.py --quality 5            losses of both loops: does speed cost quality?
    python tests/benchmarks/speed.py --variants             the lab's step compiled, in float32, without its optimiser
    python tests/benchmarks/speed.py DCGAN --profile        where the time of the lab's step goes
    python tests/benchmarks/speed.py --sampling             pictures of the PixelCNN, with its cache and without

The plain loop is what most course labs have: torchvision's MNIST with ToTensor, a DataLoader, the optimiser with its
defaults, `.item()` in each step. The lab's side takes its networks and its steps from the notebook, and the loaders
and meters from labutils. Both take the same number of steps from the same first weights. Each has a process of its
own, so that what one does to its process (`keep_memory`) does not help the other. One waits while the other works.

The columns product and copy compare the step with the limits of the machine: its floating-point operations with a
large matrix product in the same type, the bytes that its optimisers have to move with a copy of memory.
"""

import argparse
import contextlib
import gzip
import json
import math
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import definitions  # noqa: E402

from labutils import AverageMeter, GraphedStep, get_device, get_loaders, keep_memory, seed_everything  # noqa: E402
from labutils.data import SOURCES, InMemoryLoader  # noqa: E402
from labutils.data.idx import FILES  # noqa: E402
from labutils.speed import has_bfloat16  # noqa: E402

N_IMAGES = 60_000
VARIANTS = ("compiled", "float32", "compiled, float32", "without optimiser", "without graphs")


class Case(NamedTuple):
    """A lab's training: its notebook, the size of a batch, range of the data, and how either side takes a step.

    networks  (lab) -> new networks
    ours      (lab, networks, device) -> the lab's step, a function of a batch x (B, 1, 28, 28) that returns tensors
    plain     the same for the plain loop, whose step returns numbers. It calls the lab's functions: in the lab of
              the plain side, `autocast` does nothing, and `ConvTranspose2d` is PyTorch's own
    dtype     of the lab's matrix products, where the device has bfloat16
    moved     bytes that an optimiser moves for a weight: Adam reads four numbers and writes three
    """
    lab: str
    batch_size: int
    image_range: tuple
    networks: callable
    ours: callable
    plain: callable
    dtype: str = "bfloat16"
    moved: int = 28


# --------------------------------------------------------------------------------------------- VAEs

def vae_case(lab_name, batch_size, networks, learning_rate, more, channels_last=False):
    """Return the case of a VAE; `more` is what its train_step takes after the images."""
    def ours(lab, vae, device):
        if channels_last:
            vae.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(vae.parameters(), lr=learning_rate, fused=True)
        return GraphedStep(lambda x: lab.train_step(vae, optimizer, x, *more), optimizer)

    def plain(lab, vae, device):
        optimizer = torch.optim.Adam(vae.parameters(), lr=learning_rate)
        return lambda x: [loss.item() for loss in lab.train_step(vae, optimizer, x, *more)]
    return Case(lab_name, batch_size, (0, 1), networks, ours, plain)


def mlp_vae_case(architecture, batch_size):
    return vae_case("02_vae", batch_size, lambda lab: lab.VAE(*lab.ARCHITECTURES[architecture]), 1e-3, (1.0,))


# --------------------------------------------------------------------------------------------- GANs

def gan_case(names, batch_size, latent_dim, betas, image_range, channels_last=False):
    def networks(lab):
        generator, discriminator = (getattr(lab, name) for name in names)
        pair = torch.nn.ModuleList([generator(latent_dim), discriminator()])
        return pair.apply(lab.init_weights) if channels_last else pair

    def optimizers(pair, **options):
        return [torch.optim.Adam(network.parameters(), lr=2e-4, betas=betas, **options) for network in pair]

    def ours(lab, pair, device):
        if channels_last:
            pair.to(memory_format=torch.channels_last)
        generator, discriminator = pair
        g_optimizer, d_optimizer = optimizers(pair, fused=True)
        return GraphedStep(lambda x: lab.play_round(discriminator, generator, d_optimizer, g_optimizer, x, latent_dim),
                           d_optimizer, g_optimizer)

    def plain(lab, pair, device):
        generator, discriminator = pair
        g_optimizer, d_optimizer = optimizers(pair)

        def step(x):
            z_d, z_g = torch.randn(2, len(x), latent_dim, device=device)
            d_loss, d_real, d_fake = lab.update_d(discriminator, generator, d_optimizer, x, z_d)
            g_optimizer.zero_grad()
            g_loss = lab.g_loss(discriminator, generator, z_g)
            g_loss.backward()       # into the discriminator's weights as well, which the lab avoids
            g_optimizer.step()
            return [value.item() for value in (d_loss, g_loss, d_real, d_fake)]
        return step
    return Case("04_gan", batch_size, image_range, networks, ours, plain, "bfloat16" if channels_last else "float32")


def wgan_ours(lab, pair, device):
    critic, generator = pair
    optimizers = [torch.optim.RMSprop(network.parameters(), lr=5e-5, foreach=True) for network in pair]
    train_critic = GraphedStep(lambda x, x_fake: (lab.update_critic(critic, optimizers[0], x, x_fake, 0.01),
                                                  lab.max_abs_weight(critic)), optimizers[0])
    train_generator = GraphedStep(lambda z: (lab.update_generator(generator, critic, optimizers[1], z),), optimizers[1])
    fakes = []      # for the rest of the critic's turn

    def step(x):
        if not fakes:
            fakes.extend(lab.draw_fakes(generator, 5 * lab.batch_size).split(lab.batch_size))
        estimate, _ = train_critic(x, fakes.pop(0)[:len(x)])
        if not fakes:
            train_generator(torch.randn(lab.batch_size, 100, device=device))
        return [estimate]
    return step


def wgan_plain(lab, pair, device):
    critic, generator = pair
    optimizers = [torch.optim.RMSprop(network.parameters(), lr=5e-5) for network in pair]
    n_steps = 0

    def step(x):
        nonlocal n_steps
        x_fake = generator(torch.randn(len(x), 100, device=device)).detach()
        estimate = lab.update_critic(critic, optimizers[0], x, x_fake, 0.01).item()
        n_steps += 1
        if n_steps % 5 == 0:
            g_loss = -critic(generator(torch.randn(len(x), 100, device=device))).mean()
            optimizers[1].zero_grad()
            g_loss.backward()
            optimizers[1].step()
            g_loss.item()
        return [estimate]
    return step


# ------------------------------------------------------------------------------------------- codes

def prior_side(**options):
    """Return what makes a side's step for the prior of lab 07: networks are the prior and the VQ-VAE that it reads."""
    def side(lab, pair, device):
        prior, vqvae = pair
        optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3, **options)
        parts = prior, optimizer, lambda prior, x: lab.prior_loss(prior, lab.codes_of(vqvae, x))
        if options:
            return GraphedStep(lambda x: lab.prior_step(*parts, x), optimizer)
        return lambda x: [loss.item() for loss in lab.prior_step(*parts, x)]
    return side


# ------------------------------------------------------------------------------------------- flows

def flow_case():
    """The U-Net of flow matching, the average of its weights with it; a batch is asked for by labels of its own."""
    def networks(lab):
        net = lab.UNet()
        return torch.nn.ModuleList([net, deepcopy(net).requires_grad_(False)])

    def labels(x):
        return torch.arange(len(x), device=x.device) % 10

    def ours(lab, pair, device):
        net, average = pair
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, fused=True)
        step = GraphedStep(lambda x, y: lab.train_step(net, average, optimizer, x, y), optimizer)
        return lambda x: step(x, labels(x))

    def plain(lab, pair, device):
        net, average = pair
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        return lambda x: [loss.item() for loss in lab.train_step(net, average, optimizer, x, labels(x))]
    return Case("09_flows", 64, (-1, 1), networks, ours, plain)


# ---------------------------------------------------------------------------------------- VAE-GAN

def vae_gan_optimizers(net, **options):
    return [torch.optim.Adam(part.parameters(), lr=1e-3, betas=(0.5, 0.999), **options) for part in net.children()]


def vae_gan_ours(lab, net, device):
    net.to(memory_format=torch.channels_last)
    optimizers = vae_gan_optimizers(net, fused=True)
    return GraphedStep(lambda x: lab.update(net, optimizers, x, 0.1, 0.05), *optimizers)


def vae_gan_plain(lab, net, device):
    """A pass of its own for each of the three losses, and gradients in the weights of all networks."""
    optimizers = vae_gan_optimizers(net)

    def step(x):
        found = []
        for name, optimizer in zip(("encoder", "decoder", "discriminator"), optimizers):
            net.zero_grad()
            parts = lab.loss_parts(net, x, 0.1)
            lab.losses_of(parts, 0.05)[name].backward()
            optimizer.step()
            found = [part.item() for part in parts.values()]
        return found
    return step


CASES = {
    "VAE 784-512-256-128-32": mlp_vae_case("784-512-256-128-32", 64),
    "VAE 784-400-20": mlp_vae_case("784-400-20", 128),
    "MLP GAN": gan_case(("MLPGenerator", "MLPDiscriminator"), 32, 64, (0.9, 0.999), (-1, 1)),
    "WGAN": Case("05_wgan", 64, (-1, 1), lambda lab: torch.nn.ModuleList([lab.Critic(), lab.Generator(100)]),
                 wgan_ours, wgan_plain, "float32", moved=20),       # too many: the generator takes every fifth step
    "DCGAN": gan_case(("Generator", "Discriminator"), 64, 100, (0.5, 0.999), (0, 1), channels_last=True),
    "convolutional VAE": vae_case("03_conv_vae", 1024, lambda lab: lab.ConvVAE(), 2e-3, (None, 1.0),
                                  channels_last=True),
    "flow matching": flow_case(),
    "gated PixelCNN": vae_case("06_autoregressive", 16, lambda lab: lab.GatedPixelCNN(), 2e-3, (),
                               channels_last=True),
    "VQ-VAE": vae_case("07_vqvae", 64, lambda lab: lab.VQVAE(), 2e-3, ()),
    "prior of codes": Case("07_vqvae", 64, (0, 1),
                           lambda lab: torch.nn.ModuleList([lab.CodePrior(64, 7), lab.VQVAE()]),
                           prior_side(fused=True), prior_side()),
    "VAE-GAN": Case("08_vae_gan", 128, (0, 1), lambda lab: lab.VAEGAN(), vae_gan_ours, vae_gan_plain),
}


# ------------------------------------------------------------------------------------------ running

def plain_loader(case):
    """A DataLoader on torchvision's MNIST, as course labs have it."""
    from torchvision import datasets, transforms
    root, mnist = Path(tempfile.gettempdir()) / "labs-benchmark", SOURCES["mnist"]
    folder = mnist.find()
    (root / "MNIST/raw").mkdir(parents=True, exist_ok=True)
    for file in FILES:
        packed = mnist.path(folder, file)
        content = packed.read_bytes()
        (root / "MNIST/raw" / file).write_bytes(gzip.decompress(content) if packed.suffix == ".gz" else content)
    steps = [transforms.ToTensor()] + ([transforms.Normalize(0.5, 0.5)] if case.image_range == (-1, 1) else [])
    return torch.utils.data.DataLoader(datasets.MNIST(root, transform=transforms.Compose(steps)),
                                       batch_size=case.batch_size, shuffle=True)


def forever(loader):
    """Batches without end, epoch after epoch."""
    while True:
        yield from loader


class Side:
    """One of the two loops: `run(n)` takes n steps and returns seconds and the mean losses of these steps."""

    def __init__(self, kind, name, device, seed=0, variant="", same_batches=False):
        self.kind, self.case, self.device = kind, CASES[name], device
        lab = definitions(self.case.lab)
        lab.DEVICE, lab.batch_size, lab.latent_dim = device, self.case.batch_size, 100
        if kind == "plain":     # PyTorch's own layer, without the lab's faster one
            lab.ConvTranspose2d = torch.nn.ConvTranspose2d
        if kind == "plain" or "float32" in variant:
            lab.autocast = lambda device: contextlib.nullcontext()
        seed_everything(seed)
        networks = self.case.networks(lab).to(device)
        self.n_weights = sum(p.numel() for p in networks.parameters())
        self.change(networks, variant)
        self.step = (self.case.ours if kind == "ours" else self.case.plain)(lab, networks, device)
        if kind == "ours":
            keep_memory()
        if kind == "ours" or same_batches:
            loader, _ = get_loaders("mnist", self.case.batch_size, image_range=self.case.image_range, device=device,
                                    seed=seed)
        else:
            loader = plain_loader(self.case)
        self.batches = forever(loader)
        seed_everything(seed)       # the same noise for both sides, where they draw it in the same order

    @staticmethod
    def change(networks, variant):
        """Apply a variant to the networks, and to PyTorch in this process."""
        if "graphs" in variant:
            GraphedStep.WARM_UP = math.inf
        if "optimiser" in variant:
            torch.optim.Adam.step = torch.optim.RMSprop.step = lambda optimizer: None
        if "compiled" in variant:       # a GraphedStep records what the compiler has made
            torch._inductor.config.compile_threads = 1      # the compiler's processes would share the cores
            for network in networks if isinstance(networks, torch.nn.ModuleList) else [networks]:
                network.compile()

    def run(self, n_steps):
        start, meters = time.perf_counter(), None
        for _ in range(n_steps):
            x, _ = next(self.batches)
            losses = self.step(x if self.kind == "ours" else x.to(self.device))
            meters = meters or [AverageMeter() for _ in losses]
            for meter, loss in zip(meters, losses):
                meter.update(loss, len(x))
        losses = [meter.avg for meter in meters]        # waits for the GPU, before the clock is read
        return time.perf_counter() - start, losses

    def work(self):
        """Floating-point operations of a step, and bytes that its optimisers move."""
        x, _ = next(self.batches)
        with FlopCounterMode(display=False) as counter:
            self.step(x.to(self.device))
        return counter.get_total_flops(), self.case.moved * self.n_weights

    def peak(self):
        """Peak memory of this process, on the device, in MB."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else max_rss()


class Remote:
    """A `Side` in a process of its own; the same calls, and `end`."""

    def __init__(self, *arguments, **options):
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.pool.submit(make_side, arguments, options).result()

    def __getattr__(self, name):
        return lambda *arguments: self.pool.submit(ask_side, name, arguments).result()

    def end(self):
        self.pool.shutdown()


def make_side(arguments, options):
    """Make the `Side` of a `Remote`'s process."""
    global side
    side = Side(*arguments, **options)


def ask_side(name, arguments):
    """Call a method of the `Side` of this process."""
    return getattr(side, name)(*arguments)


def compare(name, device, rounds, seconds):
    """Run both sides of a case in turn; return its row of the table."""
    ours, plain = (Remote(kind, name, device) for kind in ("ours", "plain"))
    n_flops, n_bytes = plain.work()
    ours.run(1 if device.type == "cpu" else 25)     # on a GPU the graphs have to be recorded first
    slower = max(side.run(2)[0] / 2 for side in (plain, ours))
    n_steps = max(5, 5 * round(seconds / slower / 5))       # the WGAN's cycle is five steps
    pairs = []
    for _ in range(rounds):
        (a, loss), (b, plain_loss) = ours.run(n_steps), plain.run(n_steps)
        pairs.append((a / n_steps, b / n_steps))
    peaks = ours.peak(), plain.peak()
    ours.end(), plain.end()
    ratios = [b / a for a, b in pairs]
    step, plain_step = map(statistics.median, zip(*pairs))
    batch_size = CASES[name].batch_size
    per_epoch = -(-N_IMAGES // batch_size)
    return {"case": name, "batch": batch_size, "seconds": step * per_epoch, "plain_seconds": plain_step * per_epoch,
            "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "images_per_second": batch_size / step, "gflops": n_flops / step / 1e9, "copy_gb": n_bytes / step / 1e9,
            "steps": n_steps * rounds, "loss": loss, "plain_loss": plain_loss, "peak_mb": peaks[0],
            "plain_peak_mb": peaks[1]}


def compare_all(names, device, rounds, seconds, json_file):
    """Print a table of all cases; write it to a JSON file as well, if one is given."""
    limit = machine_limit(device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"bfloat16 used: {has_bfloat16(device)}; limits: {limit['float32']:.0f} GFLOP/s float32, "
          f"{limit['bfloat16']:.0f} bfloat16, copy {limit['copy_gb']:.0f} GB/s\n")
    print("case                    batch  s/epoch   plain  ratio (min to max)   images/s  product  copy   "
          "peak MB (plain)  losses ours | plain")
    rows = []
    for name in names:
        row = compare(name, device, rounds, seconds)
        row["product_share"] = row["gflops"] / limit[CASES[name].dtype if has_bfloat16(device) else "float32"]
        row["copy_share"] = row["copy_gb"] / limit["copy_gb"]
        rows.append(row)
        losses = " | ".join(" ".join(f"{value:.3g}" for value in row[key]) for key in ("loss", "plain_loss"))
        print("{case:<24}{batch:>5} {seconds:>8.2f} {plain_seconds:>7.2f} {ratio:>6.2f} ({ratio_min:.2f} to "
              "{ratio_max:.2f})   {images_per_second:>9.0f} {product_share:>8.0%} {copy_share:>5.0%} {peak_mb:>8.0f} "
              "({plain_peak_mb:.0f})   ".format(**row) + f"{losses}  after {row['steps']} steps", flush=True)
    if json_file:
        json_file.write_text(json.dumps({"device": str(device), "limit": limit, "rows": rows}, indent=2) + "\n")


def compare_variants(names, device, rounds, n_steps=50):
    """Print how fast variants of the lab's step are against the step as it is, in turn."""
    for name in names:
        as_is = Remote("ours", name, device)
        as_is.run(25)
        for variant in VARIANTS if device.type == "cuda" else VARIANTS[:-1]:       # graphs are for a GPU
            other = Remote("ours", name, device, variant=variant)
            first, _ = other.run(1)
            other.run(25)
            ratios = [as_is.run(n_steps)[0] / other.run(n_steps)[0] for _ in range(rounds)]
            other.end()
            print(f"{name:<24}{variant:<18} {statistics.median(ratios):5.2f} times as fast "
                  f"({min(ratios):.2f} to {max(ratios):.2f}), first step {first:.1f} s", flush=True)
        as_is.end()


def quality(names, device, n_seeds, n_steps):
    """Print the losses of both loops over the last fifth of n_steps, and their difference, as means over seeds.

    A seed gives both loops the same first weights and the same batches, so that the rest of the difference comes
    from the arithmetic; only the WGAN draws its noise in another order.
    """
    print(f"losses over {n_steps // 5} steps, after {n_steps - n_steps // 5} others; {n_seeds} seeds, "
          "mean ± standard error")
    for name in names:
        losses = {"ours": [], "plain": []}
        for seed in range(n_seeds):
            for kind, rows in losses.items():
                one = Remote(kind, name, device, seed, same_batches=True)
                one.run(n_steps - n_steps // 5)
                rows.append(one.run(n_steps // 5)[1])
                one.end()
        losses["apart"] = [[a - b for a, b in zip(*pair)] for pair in zip(losses["ours"], losses["plain"])]
        for kind, rows in losses.items():
            columns = [(statistics.mean(values), statistics.stdev(values) / n_seeds**0.5) for values in zip(*rows)]
            print(f"{name:<24}{kind:<7}" + "   ".join(f"{mean:9.4g} ± {error:.2g}" for mean, error in columns),
                  flush=True)


def profile_steps(names, device, seconds, n_kernels=12):
    """Print the share that each kind of kernel has in the lab's step, by the shapes of its first arguments.

    The profiler itself takes microseconds for each kernel: nothing for the DCGAN, half a step or more for the VAE of
    batch 64. It also takes memory in between, so that a step does not find again what the last one freed: some large
    copy then seems to take a millisecond, which is the time to get its pages.
    """
    from torch.profiler import profile
    for name in names:
        one = Side("ours", name, device)
        one.run(5)
        n_steps = max(5, round(5 * seconds / one.run(5)[0]))
        took, _ = one.run(n_steps)
        with profile(record_shapes=True) as profiled:
            under_profiler, _ = one.run(n_steps)
        which = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        kernels = sorted(profiled.key_averages(group_by_input_shape=True), key=lambda kernel: -getattr(kernel, which))
        total = sum(getattr(kernel, which) for kernel in kernels)
        print(f"{name}: {1000 * took / n_steps:.2f} ms a step, {1000 * under_profiler / n_steps:.2f} when profiled")
        for kernel in kernels[:n_kernels]:
            shapes = " ".join("x".join(map(str, shape)) for shape in kernel.input_shapes[:3] if shape)
            print(f"    {getattr(kernel, which) / total:>6.1%}  {kernel.count / n_steps:>6.1f} calls a step  "
                  f"{kernel.key} {shapes}", flush=True)


def machine_limit(device):
    """GFLOP/s of a large matrix product in float32 and bfloat16, and GB/s of a copy."""
    def best(work, n=10):
        times = []
        for _ in range(n):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times)
    size, n_bytes = (2048, 2**27) if device.type == "cpu" else (8192, 2**31)        # large for the device
    limit = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(size, size, device=device, dtype=dtype)
        limit[str(dtype).removeprefix("torch.")] = 2 * size**3 / best(lambda: a @ a) / 1e9
    big = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    limit["copy_gb"] = 2 * big.numel() / best(big.clone) / 1e9
    return limit


def scaling(device):
    """Print seconds an epoch of the small VAE, and peak memory so far, for growing sets; the last repeats MNIST."""
    mnist, _ = get_loaders("mnist", 128)
    for n in (6_000, 20_000, 60_000, 600_000):
        times = -(-n // len(mnist.images))
        images, labels = mnist.images.repeat(times, 1, 1, 1)[:n], mnist.labels.repeat(times)[:n]
        loader = InMemoryLoader(images.to(device), labels.to(device), 128, shuffle=True)
        one = Side("ours", "VAE 784-400-20", device)
        one.batches = forever(loader)
        one.run(10)
        took, _ = one.run(len(loader))
        print(f"{n:>8,} images: {took:7.2f} s an epoch, {1e6 * took / n:6.1f} µs an image, peak {max_rss():6.0f} MB",
              flush=True)


def sampling(device, n=1000, n_passes=3):
    """Print the seconds for n pictures of the gated PixelCNN: with its cache, and by 784 passes, some of them timed.

    The passes go through the network in parts of 100 pictures, as the lab evaluates: more at a time would be slower.
    """
    lab = definitions("06_autoregressive")
    seed_everything(0)
    keep_memory()
    model = lab.GatedPixelCNN().to(device, memory_format=torch.channels_last)
    u = torch.rand(n, 1, 28, 28, device=device)

    def seconds(call):
        start = time.perf_counter()
        call().sum().item()         # waits for the GPU
        return time.perf_counter() - start
    lab.evaluate(model, u[:100])
    cached = seconds(lambda: torch.cat([lab.sample(model, part) for part in u.split(500)]))
    one_pass = statistics.median(seconds(lambda: lab.evaluate(model, u.round())) for _ in range(n_passes))
    print(f"{n} pictures on {device}: {cached:.1f} s with the cache; a pass takes {one_pass:.2f} s, 784 of them "
          f"{784 * one_pass:.0f} s: {784 * one_pass / cached:.0f} times as long")


def max_rss():
    """Peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.is_file():        # ru_maxrss begins with the peak of the process that has started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=[], metavar="CASE", help=f"of: {', '.join(CASES)}; none: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs")
    parser.add_argument("--seconds", type=float, default=3, help="of the slower run of a pair, about")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--scaling", action="store_true", help="time an epoch of 6,000 to 600,000 images instead")
    parser.add_argument("--quality", type=int, metavar="N", help="compare losses over N seeds instead")
    parser.add_argument("--variants", action="store_true", help="time the lab's step compiled, in float32 and so on")
    parser.add_argument("--profile", action="store_true", help="print where the time of the lab's step goes")
    parser.add_argument("--steps", type=int, default=500, help="of --quality")
    parser.add_argument("--sampling", action="store_true", help="time the PixelCNN's cached sampling instead")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}; the cases are: {', '.join(CASES)}")
    if SOURCES["mnist"].find() is None:
        parser.error("the real MNIST is needed: set LABS_DATA_DIR")
    names, device = options.cases or list(CASES), get_device(options.device)
    if options.scaling:
        scaling(device)
    elif options.sampling:
        sampling(device)
    elif options.variants:
        compare_variants(names, device, options.rounds)
    elif options.profile:
        profile_steps(names, device, options.seconds)
    elif options.quality:
        quality(names, device, options.quality, options.steps)
    else:
        compare_all(names, device, options.rounds, options.seconds, options.json)


if __name__ == "__main__":
    main()
