"""Time the training step of each lab against the plain loop of the same networks, A B A B in one run.

    python tests/benchmarks/speed.py                        all cases, on the CPU
    python tests/benchmarks/speed.py "MLP GAN" --device cuda --json speed.json
    python tests/benchmarks/speed.py --scaling              an epoch of the small VAE on 6,000 to 600,000 images
    python tests/benchmarks/speed.py --quality 5            losses of both loops for five seeds: is the speed bought with them?
    python tests/benchmarks/speed.py --variants             the lab's step compiled, in float32, without its optimiser
    python tests/benchmarks/speed.py DCGAN --profile        where the time of the lab's step goes

The plain loop is what most course labs have: torchvision's MNIST with ToTensor, a DataLoader, the optimiser as it
comes, `.item()` in each step. The lab's side takes its networks and its steps out of the notebook, and the
loaders and meters from labutils. Both take as many steps from the same first weights, each in a process of its own,
so that what one does to its process (`keep_memory`) does not help the other. One waits while the other works.

The columns product and copy are shares of what the machine can do: the floating-point operations of the step against a
large matrix product in the type used, the bytes that its optimisers cannot but move against a copy of memory.
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
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import definitions  # noqa: E402

from labutils import AverageMeter, GraphedStep, get_device, get_loaders, keep_memory, seed_everything  # noqa: E402
from labutils.data import SOURCES, InMemoryLoader  # noqa: E402
from labutils.data.idx import FILES  # noqa: E402
from labutils.training import has_bfloat16  # noqa: E402

N_IMAGES = 60_000
VARIANTS = ("compiled", "float32", "compiled, float32", "without optimiser", "without graphs")


class Case(NamedTuple):
    """A lab's training: its notebook, the size of a batch, range of the data, and how either side takes a step.

    networks  (lab) -> new networks; `ours` and `plain` take (lab, networks, device) and return a function of a
              batch x (B, 1, 28, 28) that takes one step: ours returns tensors, the plain one numbers
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

def vae_case(architecture, batch_size):
    def ours(lab, vae, device):
        optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
        return GraphedStep(lambda x: lab.train_step(vae, optimizer, x, 1.0), optimizer)

    def plain(lab, vae, device):
        optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)

        def step(x):
            mu, logvar = vae.to_mu(h := vae.encoder(x)), vae.to_logvar(h)
            terms = lab.elbo_terms(vae.decoder(lab.reparameterise(mu, logvar)), x, mu, logvar)
            optimizer.zero_grad()
            sum(terms).backward()
            optimizer.step()
            return [term.item() for term in terms]
        return step
    return Case("02_vae", batch_size, (0, 1), lambda lab: lab.VAE(*lab.ARCHITECTURES[architecture]), ours, plain)


def conv_vae_ours(lab, vae, device):
    vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3, fused=True)
    return GraphedStep(lambda x: lab.train_step(vae, optimizer, x, None, 1.0), optimizer)


def conv_vae_plain(lab, vae, device):
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)

    def step(x):
        mu, logvar = vae.encoder(x).flatten(1).chunk(2, dim=1)
        q = torch.distributions.Normal(mu, (logvar / 2).exp())
        terms = lab.elbo_terms(vae.decoder(q.rsample()), x, q)
        optimizer.zero_grad()
        sum(terms).backward()
        optimizer.step()
        return [term.item() for term in terms]
    return step


# --------------------------------------------------------------------------------------------- GANs

def gan_case(names, batch_size, latent_dim, betas, image_range, channels_last=False):
    def networks(lab):
        generator, discriminator = (getattr(lab, name) for name in names)
        pair = torch.nn.ModuleList([generator(latent_dim), discriminator()])
        return pair.apply(lab.init_weights) if channels_last else pair

    def ours(lab, pair, device):
        if channels_last:
            pair.to(memory_format=torch.channels_last)
        generator, discriminator = pair
        g_optimizer, d_optimizer = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=betas, fused=True) for n in pair)

        return GraphedStep(lambda x: lab.play_round(discriminator, generator, d_optimizer, g_optimizer, x, latent_dim),
                           d_optimizer, g_optimizer)

    def plain(lab, pair, device):
        generator, discriminator = pair
        g_optimizer, d_optimizer = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=betas) for n in pair)

        def step(x):
            d_optimizer.zero_grad()
            real_loss, d_real = lab.d_loss_real(discriminator, x)
            real_loss.backward()
            fake_loss, d_fake = lab.d_loss_fake(discriminator, generator, torch.randn(len(x), latent_dim, device=device))
            fake_loss.backward()
            d_optimizer.step()
            g_optimizer.zero_grad()
            g_loss = lab.g_loss(discriminator, generator, torch.randn(len(x), latent_dim, device=device))
            g_loss.backward()
            g_optimizer.step()
            return [value.item() for value in (real_loss + fake_loss, g_loss, d_real, d_fake)]
        return step
    return Case("04_gan", batch_size, image_range, networks, ours, plain, "bfloat16" if channels_last else "float32")


def wgan_ours(lab, pair, device):
    critic, generator = pair
    optimizers = [torch.optim.RMSprop(n.parameters(), lr=5e-5, foreach=True) for n in pair]
    train_critic = GraphedStep(lambda x, x_fake: (lab.update_critic(critic, optimizers[0], x, x_fake, 0.01),
                                                  lab.max_abs_weight(critic)), optimizers[0])
    train_generator = GraphedStep(lambda z: (lab.update_generator(generator, critic, optimizers[1], z),), optimizers[1])
    state = {"step": 0, "largest": torch.zeros((), device=device)}

    def step(x):
        if state["step"] % 5 == 0:
            state["fakes"] = iter(lab.draw_fakes(generator, 5 * lab.batch_size).split(lab.batch_size))
        estimate, max_weight = train_critic(x, next(state["fakes"])[:len(x)])
        state["largest"] = torch.maximum(state["largest"], max_weight)
        state["step"] += 1
        if state["step"] % 5 == 0:
            train_generator(torch.randn(lab.batch_size, 100, device=device))
        return [estimate]
    return step


def wgan_plain(lab, pair, device):
    critic, generator = pair
    optimizers = [torch.optim.RMSprop(n.parameters(), lr=5e-5) for n in pair]
    state = {"step": 0}

    def step(x):
        x_fake = generator(torch.randn(len(x), 100, device=device)).detach()
        loss = critic(x_fake).mean() - critic(x).mean()
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        for p in critic.parameters():
            p.data.clamp_(-0.01, 0.01)
        state["step"] += 1
        if state["step"] % 5 == 0:
            g_loss = -critic(generator(torch.randn(len(x), 100, device=device))).mean()
            optimizers[1].zero_grad()
            g_loss.backward()
            optimizers[1].step()
            g_loss.item()
        return [-loss.item()]
    return step


CASES = {
    "VAE 784-512-256-128-32": vae_case("784-512-256-128-32", 64),
    "VAE 784-400-20": vae_case("784-400-20", 128),
    "MLP GAN": gan_case(("MLPGenerator", "MLPDiscriminator"), 32, 64, (0.9, 0.999), (-1, 1)),
    "WGAN": Case("05_wgan", 64, (-1, 1), lambda lab: torch.nn.ModuleList([lab.Critic(), lab.Generator(100)]),
                 wgan_ours, wgan_plain, "float32", moved=20),       # an upper bound: the generator has a fifth of the steps
    "DCGAN": gan_case(("Generator", "Discriminator"), 64, 100, (0.5, 0.999), (0, 1), channels_last=True),
    "convolutional VAE": Case("03_conv_vae", 1024, (0, 1), lambda lab: lab.ConvVAE(), conv_vae_ours, conv_vae_plain),
}


# ------------------------------------------------------------------------------------------ running

def plain_loader(case):
    """A DataLoader on torchvision's MNIST, as course labs have it."""
    from torchvision import datasets, transforms
    root = Path(tempfile.gettempdir()) / "labs-benchmark"
    mnist = SOURCES["mnist"]
    folder = mnist.find()
    if folder is None:
        sys.exit("speed.py: the real MNIST is needed: set LABS_DATA_DIR")
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
        lab.device, lab.batch_size, lab.latent_dim = device, self.case.batch_size, 100
        if kind == "plain":     # what the labs have for speed, as PyTorch has it
            lab.ConvTranspose2d = torch.nn.ConvTranspose2d
        if kind == "plain" or "float32" in variant:
            lab.autocast = lambda device: contextlib.nullcontext()
        seed_everything(seed)
        networks = self.case.networks(lab).to(device)
        self.n_weights = sum(p.numel() for p in networks.parameters())
        if "graphs" in variant:
            GraphedStep.WARM_UP = math.inf      # like the next two in this process alone
        if "optimiser" in variant:
            torch.optim.Adam.step = torch.optim.RMSprop.step = lambda optimizer: None
        if "compiled" in variant:               # a GraphedStep records what the compiler has made
            torch._inductor.config.compile_threads = 1      # a Remote's process may not have children that compile
            for network in networks if isinstance(networks, torch.nn.ModuleList) else [networks]:
                network.compile()
        self.step = (self.case.ours if kind == "ours" else self.case.plain)(lab, networks, device)
        if kind == "ours":
            keep_memory()
        if kind == "ours" or same_batches:
            loader, _ = get_loaders("mnist", self.case.batch_size, image_range=self.case.image_range, device=device, seed=seed)
        else:
            loader = plain_loader(self.case)
        self.batches = forever(loader)
        seed_everything(seed)       # the same noise for both sides, where they draw it in the same order

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
    """A `Side` in a process of its own; the same calls."""

    def __init__(self, *arguments, **options):
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there, arguments, options), daemon=True)
        self.process.start()
        there.close()

    def __getattr__(self, name):
        return lambda *arguments: self.ask(name, *arguments)

    def ask(self, *message):
        self.pipe.send(message)
        return self.pipe.recv()

    def end(self):
        self.pipe.close()
        self.process.join()


def serve(pipe, arguments, options):
    """Answer the calls of a `Remote` until it is closed."""
    side = Side(*arguments, **options)
    try:
        while True:
            name, *values = pipe.recv()
            pipe.send(getattr(side, name)(*values))
    except EOFError:
        pass


def compare(name, device, rounds, seconds):
    """Run both sides of a case in turn; return its row of the table."""
    ours, plain = (Remote(kind, name, device) for kind in ("ours", "plain"))
    n_flops, n_bytes = plain.work()
    ours.run(1 if device.type == "cpu" else 25)     # on a GPU the graphs have to be recorded first
    took = max(plain.run(2)[0] / 2, ours.run(2)[0] / 2)
    n_steps = max(5, 5 * round(seconds / took / 5))         # the WGAN's cycle is five steps
    pairs = []
    for _ in range(rounds):
        (a, loss), (b, plain_loss) = ours.run(n_steps), plain.run(n_steps)
        pairs.append((a / n_steps, b / n_steps))
    peaks = ours.peak(), plain.peak()
    ours.end(), plain.end()
    ratios = [b / a for a, b in pairs]
    step, plain_step = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    case = CASES[name]
    per_epoch = -(-N_IMAGES // case.batch_size)
    return {"case": name, "batch": case.batch_size, "seconds": step * per_epoch, "plain_seconds": plain_step * per_epoch,
            "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "images_per_second": case.batch_size / step, "gflops": n_flops / step / 1e9, "copy_gb": n_bytes / step / 1e9,
            "steps": n_steps * rounds, "loss": loss, "plain_loss": plain_loss, "peak_mb": peaks[0], "plain_peak_mb": peaks[1]}


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
            print(f"{name:<24}{variant:<18} {statistics.median(ratios):5.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}), "
                  f"first step {first:.1f} s", flush=True)
        as_is.end()


def quality(names, device, n_seeds, n_steps):
    """Print the losses of both loops over the last fifth of n_steps: mean and standard error over seeds, and of their difference.

    A seed gives both loops the same first weights and the same batches, so that what is left of their difference comes
    from the arithmetic; only the WGAN draws its noise in another order.
    """
    print(f"losses over {n_steps // 5} steps, after {n_steps - n_steps // 5} others; {n_seeds} seeds, mean ± standard error")
    for name in names:
        losses = {"ours": [], "plain": []}
        for seed in range(n_seeds):
            for kind, rows in losses.items():
                side = Remote(kind, name, device, seed, same_batches=True)
                side.run(n_steps - n_steps // 5)
                rows.append(side.run(n_steps // 5)[1])
                side.end()
        losses["apart"] = [[a - b for a, b in zip(*pair)] for pair in zip(losses["ours"], losses["plain"])]
        for kind, rows in losses.items():
            columns = [(statistics.mean(values), statistics.stdev(values) / n_seeds**0.5) for values in zip(*rows)]
            print(f"{name:<24}{kind:<7}" + "   ".join(f"{mean:9.4g} ± {error:.2g}" for mean, error in columns), flush=True)


def profile_steps(names, device, seconds, n_kernels=12):
    """Print the share that each kind of kernel has in the lab's step, by the shapes of its first arguments.

    The profiler itself takes microseconds a kernel: nothing for the DCGAN, half a step or more for the VAE of batch 64. And
    it takes memory in between, so that a step does not find again what the last one freed: some large copy then seems to
    take a millisecond, which it spends in getting its pages.
    """
    from torch.profiler import profile
    for name in names:
        side = Side("ours", name, device)
        side.run(5)
        n_steps = max(5, round(5 * seconds / side.run(5)[0]))
        took, _ = side.run(n_steps)
        with profile(record_shapes=True) as profiled:
            under_profiler, _ = side.run(n_steps)
        which = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        kernels = sorted(profiled.key_averages(group_by_input_shape=True), key=lambda kernel: -getattr(kernel, which))
        total = sum(getattr(kernel, which) for kernel in kernels)
        print(f"{name}: {1000 * took / n_steps:.2f} ms a step, {1000 * under_profiler / n_steps:.2f} under the profiler")
        for kernel in kernels[:n_kernels]:
            shapes = " ".join("x".join(map(str, shape)) for shape in kernel.input_shapes[:3] if shape)
            print(f"    {getattr(kernel, which) / total:>6.1%}  {kernel.count / n_steps:>6.1f} calls a step  {kernel.key} {shapes}",
                  flush=True)


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
    limit, side, n_bytes = ({}, 2048, 2**27) if device.type == "cpu" else ({}, 8192, 2**31)     # large for the device
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(side, side, device=device, dtype=dtype)
        limit[str(dtype).removeprefix("torch.")] = 2 * side**3 / best(lambda: a @ a) / 1e9
    big = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    limit["copy_gb"] = 2 * big.numel() / best(big.clone) / 1e9
    return limit


def scaling(device):
    """Print seconds an epoch of the small VAE, and peak memory so far, for growing sets; MNIST repeated for the last."""
    images, labels = (lambda loader: (loader.images, loader.labels))(get_loaders("mnist", 128)[0])
    for n in (6_000, 20_000, 60_000, 600_000):
        times = -(-n // len(images))
        loader = InMemoryLoader(images.repeat(times, 1, 1, 1)[:n].to(device), labels.repeat(times)[:n].to(device), 128, shuffle=True)
        side = Side("ours", "VAE 784-400-20", device)
        side.batches = forever(loader)
        side.run(10)
        took, _ = side.run(len(loader))
        print(f"{n:>8,} images: {took:7.2f} s an epoch, {1e6 * took / n:6.1f} µs an image, peak {max_rss():6.0f} MB", flush=True)


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
    parser.add_argument("--variants", action="store_true", help="time the lab's step compiled, in float32 and so on, against itself")
    parser.add_argument("--profile", action="store_true", help="print where the time of the lab's step goes")
    parser.add_argument("--steps", type=int, default=500, help="of --quality")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}; the cases are: {', '.join(CASES)}")
    device = get_device(options.device)
    if options.scaling:
        return scaling(device)
    if options.variants:
        return compare_variants(options.cases or CASES, device, options.rounds)
    if options.profile:
        return profile_steps(options.cases or CASES, device, options.seconds)
    if options.quality:
        return quality(options.cases or CASES, device, options.quality, options.steps)
    limit = machine_limit(device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, bfloat16 used: {has_bfloat16(device)}; limits: "
          f"{limit['float32']:.0f} GFLOP/s float32, {limit['bfloat16']:.0f} bfloat16, copy {limit['copy_gb']:.0f} GB/s\n")
    print("case                    batch  s/epoch   plain  ratio (min to max)   images/s  product  copy   peak MB (plain)  "
          "losses ours | plain")
    rows = []
    for name in options.cases or CASES:
        row = compare(name, device, options.rounds, options.seconds)
        row["product_share"] = row["gflops"] / limit[CASES[name].dtype if has_bfloat16(device) else "float32"]
        row["copy_share"] = row["copy_gb"] / limit["copy_gb"]
        rows.append(row)
        losses = " | ".join(" ".join(f"{value:.3g}" for value in row[key]) for key in ("loss", "plain_loss"))
        print(f"{name:<24}{row['batch']:>5} {row['seconds']:>8.2f} {row['plain_seconds']:>7.2f} {row['ratio']:>6.2f} "
              f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})   {row['images_per_second']:>9.0f} "
              f"{row['product_share']:>8.0%} {row['copy_share']:>5.0%} {row['peak_mb']:>8.0f} ({row['plain_peak_mb']:.0f})   "
              f"{losses}  after {row['steps']} steps", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"device": str(device), "limit": limit, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
