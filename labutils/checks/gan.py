"""Checks of the exercises of the lab gan."""

import torch
import torch.nn.functional as F
from torch import nn

from . import Check, compare, draws, refuse, require


@Check
def check_best_discriminator(answer):
    """p_r / (p_r + p_g) in each bin, estimated from two samples of any size: counts (K,) and (K,) -> (K,)."""
    # bins that can be read off: only real points, only synthetic ones, as many, three to one, none
    known = torch.tensor([20, 0, 50, 30, 0]), torch.tensor([0, 40, 50, 10, 0]), torch.tensor([1, 0, 0.5, 0.75, 0.5])
    for seed, n_bins in ((None, 5), (0, 6), (1, 15)):
        if seed is None:
            n_real, n_fake, right = known
        else:
            generator = torch.Generator().manual_seed(seed)
            n_real, n_fake = (torch.randint(1, high, (n_bins,), generator=generator) for high in (90, 900))
            n_real[0] = n_fake[0] = n_real[1] = n_fake[2] = 0
            prior = n_fake.sum().double() / n_real.sum()        # real points count so much more, for equal shares
            right = torch.distributions.Bernoulli(logits=(n_real * prior / n_fake).log(), validate_args=False).probs
            right[0] = 0.5
        given = answer(n_real.clone(), n_fake.clone())
        require(not isinstance(given, torch.Tensor) or not given.isnan().any(), "An empty bin gives nan: zero by zero.",
                "What is asked for in a bin that neither sample has reached?")
        empty, ratio = n_real + n_fake == 0, n_real.double() / n_fake
        p, q = n_real / n_real.sum(), n_fake / n_fake.sum()
        hinted = [
            (n_real / (n_real + n_fake),
             "The samples differ in size, and the larger one counts for more.",
             "Equally often: turn both counts into densities first."),
            (1 - right, "Real and synthetic are exchanged.", "D is the probability that a point is real."),
            (p / q, "This is the ratio of the densities, not a probability.",
             "Which function of it lies between 0 and 1?"),
            ((p / q).log(), "This is the best logit; D itself is asked for.",
             "Section 2 says how D comes from its logit."),
            ((p > q).double(), "Every bin is given to one side: 0 or 1.",
             "A bin that holds points of both sides leaves a doubt, and the best D says how large."),
            (ratio, "The counts are divided by each other.", "Densities first, then the formula for D*."),
            (p, "This is the density of the real points.", "D* sets it against something."),
        ]
        variants = [(torch.where(empty, fill, value.double()), *words)
                    for value, *words in hinted for fill in (0.5, 0.0, 1.0)]
        zero, one = (torch.where(empty, fill, right.double()) for fill in (0.0, 1.0))
        silent = ("An empty bin is given to one of the two sides.", "Undecided: which D is neither real nor synthetic?")
        compare(given, right, [(zero, *silent), (one, *silent), *variants])


@Check
def check_smooth_step(answer):
    """A step of D with softened targets for real images only; the generator is left alone. Returns the loss."""
    rate = 0.5
    for seed, (b_real, b_fake), target in ((0, (6, 4), 0.9), (1, (3, 8), 0.7), (2, (5, 5), 0.9)):
        x, z, w_d, w_g, left = draws(seed, (b_real, 1, 3, 2), (b_fake, 4), (1, 6), (6, 4), (1, 6))
        w_d = w_d / 3       # logits so small that a sigmoid and its logarithm are exact, too
        discriminator = nn.Sequential(nn.Flatten(), nn.Linear(6, 1, bias=False))
        generator = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Unflatten(1, (1, 3, 2)))
        for layer, weights in ((discriminator[1], w_d), (generator[0], w_g)):
            layer.weight = nn.Parameter(weights.clone())
        discriminator[1].weight.grad = left.clone()             # as a generator's plain backward() leaves it
        generator[0].weight.grad = torch.ones(6, 4)             # its own step would clear them
        optimizer = torch.optim.SGD(discriminator.parameters(), lr=rate)
        try:
            loss = answer(discriminator, generator, optimizer, x, z, target)
        except ValueError as error:
            refuse(f"The loss refuses its targets: {error}.",
                   "There is one target for each logit, and the two batches need not be equally large.")
        weight, fed = discriminator[1].weight.detach(), (x.flatten(1), z @ w_g.T)

        def halves(w, real_target=target, fake_target=0.0):
            """Value and slope by w of each half, by the formulas of logistic regression."""
            found = []
            for inputs, t in zip(fed, (real_target, fake_target)):
                d = torch.distributions.Bernoulli(logits=inputs @ w.T)
                entropy = -(t * d.log_prob(torch.ones(1)) + (1 - t) * d.log_prob(torch.zeros(1)))
                found.append((entropy.mean(), (d.probs - t).T @ inputs / len(inputs)))
            return found

        def after(*slopes):
            """The weights after a step along these slopes."""
            return w_d - rate * sum(slopes)

        (real_loss, real), (fake_loss, fake) = halves(w_d)
        sharp, both, swapped, wrong_side, onto_fake = (
            halves(w_d, *targets)
            for targets in ((1, 0), (target, 1 - target), (0, target), (1, 1 - target), (target, target)))
        joined = (b_real * real + b_fake * fake) / (b_real + b_fake)
        between = after(real)
        require(torch.equal(generator[0].weight, w_g), "The weights of the generator have moved.",
                "This step belongs to the discriminator alone: whose weights may change?")
        kept = generator[0].weight.grad
        require(kept is not None and torch.equal(kept, torch.ones(6, 4)),
                "The gradients of the generator have changed in the step of the discriminator.",
                "Where must the graph of the synthetic images be cut?")
        require(not torch.equal(weight, w_d), "The weights of the discriminator have not moved.",
                "A gradient alone changes nothing: who applies it?")
        compare(weight, after(real, fake), [
            (after(real, fake, left),
                    "Old gradients have entered the step: the ones that were there before the call.",
                    "Before the call, other steps have left something in the gradients. What removes it, and when?"),
            (after(real), "Only the real images have had a say in the step.",
                    "Two halves, one step: follow both gradients."),
            (after(fake), "Only the synthetic images have had a say in the step.",
                    "Is something removed between the two halves?"),
            (after(sharp[0][1], fake), "The real images have the target 1: nothing is softened.",
                    "Use the argument."),
            (after(both[0][1], both[1][1]), "Both sides are softened, where only the real one should be.",
                    "What does the method say of the target of synthetic images?"),
            (after(wrong_side[0][1], wrong_side[1][1]), "The wrong side is softened.",
                    "It is the real images that get a target below 1."),
            (after(swapped[0][1], swapped[1][1]),
                    "The targets are exchanged: real images are taught to be synthetic.",
                    "D is the probability that an image is real."),
            (after(onto_fake[0][1], onto_fake[1][1]), "Synthetic images have the target of real ones.",
                    "With one target for all there is nothing to tell apart."),
            (after(-real, -fake), "The step goes uphill: the loss has become larger.",
                    "Optimisers minimise. What is the sign of V in the loss?"),
            (after(real / 2, fake / 2), "The step is half as long as it should be: the two means are averaged.",
                    "A sum of two means is asked for."),
            (after(joined),
                    "The mean is taken over both batches at once, so that the larger one counts for more.",
                    "A mean for each batch, then the sum."),
            (after(b_real * real, b_fake * fake), "The batches are summed: the step would grow with their size.",
                    "A mean over each batch."),
            (between - rate * halves(between)[1][1], "There are two steps, one for each half; one is asked for.",
                    "The second half should be judged by the weights that the first one saw."),
            (between - rate * (real + halves(between)[1][1]),
                    "There are two steps, and the first half enters both.",
                    "One step after both gradients."),
        ])
        compare(loss, real_loss + fake_loss, [
            (sharp[0][0] + fake_loss, "The step is right, but the loss that is returned has the target 1.",
                    "Return what was minimised."),
            (real_loss, "The step is right, but only the loss of the real images is returned.",
                    "The sum of both halves."),
            (fake_loss, "The step is right, but only the loss of the synthetic images is returned.",
                    "The sum of both halves."),
            ((real_loss + fake_loss) / 2, "The step is right, but half the loss is returned.",
                    "The sum of both halves."),
        ])


@Check
def check_js_bound(answer):
    """Lower bound on JS in bits from logits (N, 1) of real and (M, 1) of synthetic images: a scalar."""
    nat = torch.log2(torch.tensor(torch.e)).item()              # bits in a nat

    def mean_log(logits, outcome):
        return torch.distributions.Bernoulli(logits=logits).log_prob(torch.tensor(outcome)).mean()
    sure = torch.full((3, 1), 200.0)
    undecided = torch.zeros(4, 1)
    cases = [(*draws(seed, (n, 1), (m, 1)), None) for seed, n, m in ((0, 5, 9), (1, 40, 3))]
    cases[0] = (cases[0][0] + 1, cases[0][1] - 1, None)
    for real, fake, known in (*cases, (undecided, undecided[:2], 0.0), (sure, -sure, 1.0), (-sure, -sure[:1], None)):
        real_term, fake_term = mean_log(real, 1.0), mean_log(fake, 0.0)
        value = real_term + fake_term
        right = torch.tensor(known) if known is not None else 1 + nat * value / 2
        joined = (len(real) * real_term + len(fake) * fake_term) / (len(real) + len(fake))
        lost = -sum(F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, t))
                    for logits, t in ((real, 1.0), (fake, 0.0)))
        given = answer(real, fake)
        finite = not isinstance(given, (float, torch.Tensor)) or bool(torch.as_tensor(given).isfinite().all())
        require(finite, "A discriminator that is very sure gives inf or nan.",
                "The sigmoid of a large logit is 0 or 1 to the last digit. Which function takes the logit as it is?")
        compare(given, right, [
            (right.clamp(min=0), "Negative bounds are cut off; they should be returned as they are.",
                    "A figure below 0 says how bad the discriminator is."),
            (right / nat, "This is the bound in nats; bits are asked for.", "How many nats are a bit?"),
            (right * nat, "The step from nats to bits goes the wrong way.", "The largest value must be 1."),
            (2 * right, "This bounds twice the divergence.",
                    "In the value of the game the divergence has a factor."),
            (2 * right / nat, "This bounds twice the divergence, and in nats.",
                    "In the value of the game the divergence has a factor."),
            (-value, "This is the D loss, from which the bound has still to be made.",
                    "Solve V = -log 4 + 2 JS for JS."),
            (value, "This is V, from which the bound has still to be made.", "Solve V = -log 4 + 2 JS for JS."),
            (1 - nat * value / 2, "The sign of V is wrong: a worse discriminator would give a higher bound.",
                    "An undecided discriminator must give 0."),
            (1 + nat * (mean_log(real, 0.0) + mean_log(fake, 1.0)) / 2, "Real and synthetic are exchanged.",
                    "A large logit says real."),
            (1 + nat * joined, "One mean is taken over all logits, so that the larger sample counts for more.",
                    "The two terms of the game are two means."),
            (1 + nat * (mean_log(real.sigmoid(), 1.0) + mean_log(fake.sigmoid(), 0.0)) / 2,
                    "A sigmoid too many: a probability is taken for a logit.",
                    "Look at what your loss does to its input first."),
            (1 + nat * (real.sigmoid().mean().log() + (1 - fake.sigmoid()).mean().log()) / 2,
                    "The logarithm is taken of the mean; the mean of the logarithms is asked for.",
                    "Which of the two stands inside in V?"),
            (1 + nat * lost / 2, "The digits of a discriminator that is very sure are lost.",
                    "A cross entropy of probabilities stops at 100; one of logits does not."),
        ])


@Check
def check_with_labels(answer):
    """Codes (B, d) or images (B, C, H, W) and labels (B,) with one-hot columns or channels behind them."""
    cases = (((4, 4), [2, 0, 2, 1], 4), ((7, 5), [0, 3, 1, 1, 6, 2, 0], 10), ((4, 1, 3, 2), [1, 3, 0, 1], 4),
             ((3, 2, 4, 4), [2, 0, 1], 5))
    for seed, (shape, labels, n) in enumerate(cases):
        [a], y = draws(seed, shape), torch.tensor(labels)
        kept, rest, b = a.clone(), shape[2:], shape[0]

        def spread(row):
            """A row of a batch (B, m) as the shape of `a` wants it."""
            return row.reshape(b, -1, *[1] * len(rest)).expand(-1, -1, *rest) if rest else row

        def beside(hot):
            return torch.cat([kept, spread(hot)], dim=1)
        flags = torch.tensor([[float(label == c) for c in range(n)] for label in labels])
        number = beside(y[:, None].float())
        mixed = flags.repeat(1, int(torch.tensor(rest).prod())).reshape(b, n, *rest)
        try:
            given = answer(a, y.clone(), n)
        except NotImplementedError:
            raise
        except RuntimeError as error:
            refuse(f"The parts do not fit together: {str(error).splitlines()[0]}",
                   "Print both shapes. They may differ in the dimension of the columns or channels only.")
        require(torch.equal(a, kept), "The codes or images that were handed over have been changed.",
                "Build a new tensor.")
        compare(given, beside(flags), [
            (number, "The label is appended as a number: class 8 would be twice class 4.",
                    "Classes have no order. A column for each of them."),
            (torch.cat([spread(flags), kept], dim=1),
                    "The labels stand in front, where they should stand behind.",
                    "First what was there, then the classes."),
            (torch.cat([kept, spread(flags)], dim=0) if flags.shape[1] == shape[1] else torch.zeros(0),
                    "The labels are put below, as more rows of the batch, and not beside.",
                    "Which dimension counts the samples, and must stay as long as it is?"),
            (beside(flags[:, :max(labels) + 1]),
                    "The number of classes is taken from the batch, which need not hold them all.",
                    "The argument says how many there are."),
            (beside(flags.roll(-1, dims=1)), "The classes are moved by one column.", "The first class is 0."),
            (beside(flags.roll(1, dims=1)), "The classes are moved by one column.", "The first class is 0."),
            (beside(flags.flip(1)), "The classes are in the opposite order.", "Class 0 has the first column."),
            (beside(torch.eye(max(b, n))[:b, :n]),
                    "The column is chosen by the place in the batch, not by the label.",
                    "Two samples of one class must get the same columns."),
            (beside(1 - flags), "Ones and zeros are exchanged.", "One-hot: a single 1 in a row."),
            (flags if not rest else spread(flags), "The labels alone are returned.",
                    "They should stand beside what was there."),
            (torch.cat([kept, mixed], dim=1),
                    "The channels mix the classes: a channel must be 1 or 0 everywhere.",
                    "Give the rows two more dimensions before you stretch them; a reshape does not know which is which."),
        ])


@Check
def check_js_missing(answer):
    """JS in nats of packs of samples where a generator draws k of n_modes modes: three whole numbers -> a number."""
    for k, n_modes, pack in ((1, 2, 1), (7, 8, 1), (7, 8, 2), (1, 8, 3), (3, 5, 4), (8, 8, 2)):
        def packs(n_drawn, size=pack):
            """Probability of every pack, one by one: (n_modes ** size,)."""
            each = (torch.arange(n_modes) < n_drawn).double() / n_drawn
            joint = torch.ones(1, dtype=torch.float64)
            for _ in range(size):
                joint = torch.outer(joint, each).flatten()
            return joint

        def divergence(p, q):
            return torch.special.xlogy(p, p / q).nan_to_num().sum()

        def both(size):
            p, q = packs(n_modes, size), packs(k, size)
            return p, q, (divergence(p, (p + q) / 2) + divergence(q, (p + q) / 2)) / 2
        p, q, right = both(pack)
        single = both(1)[2]
        m, reverse = (p + q) / 2, divergence(q, p)
        given = answer(k, n_modes, pack)
        require(not isinstance(given, (float, torch.Tensor)) or not torch.as_tensor(given).isinf().any(),
                "The result is infinite: somewhere the mixture is missing.",
                "The divergence of p from q is infinite where q is zero. What does JS compare both with?")
        # the true value first: for pack = 1 or k = n_modes some of the mistakes give it too
        compare(given, right, [
            (single, "The packs are not used: this is the divergence of single samples.",
                    "How likely is it that a real pack holds no missing mode?"),
            (pack * single, "The divergence of single samples is multiplied by the size of the pack.",
                    "KL adds up over independent samples; JS, with its bound of log 2, cannot."),
            (right.sqrt(), "This is the root of the divergence.",
                    "Some libraries return a distance under this name: read what they say it is."),
            (2 * right, "The result is twice too large.", "Half of each of two divergences."),
            (right / torch.log(torch.tensor(2.0)), "This is in bits; nats are asked for.",
                    "The natural logarithm."),
            (divergence(p, m), "Only the divergence of the data from the mixture is counted.",
                    "Both sides have their half."),
            (divergence(q, m), "Only the divergence of the generator from the mixture is counted.",
                    "Both sides have their half."),
            (reverse, "This is the KL of the generator from the data.", "JS goes through the mixture m."),
            (reverse / 2, "This is half the KL of the generator from the data.",
                    "JS goes through the mixture m."),
            (-right, "The sign is wrong: a divergence is never negative.",
                    "For k = n_modes the result must be 0."),
        ], tolerance=1e-5)
