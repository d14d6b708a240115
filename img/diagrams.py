"""Draw the diagrams of the labs, img/*.svg, and put them into the notebooks as attachments (`python img/diagrams.py`).

Drawing needs the standard library only; the notebooks need what the tests need, and Chromium. It writes what has
changed, and nothing else.
"""

import base64
import hashlib
import io
import math
import random
import re
import shutil
from itertools import accumulate
from pathlib import Path

HERE = Path(__file__).parent
WIDTH = 680
CARD, EDGE, GUIDE, INK, SOFT = "#fbfbf8", "#d0d0ca", "#8b9098", "#1f2328", "#4b535c"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
LINE, GRADIENT, BOLD = 2, ' stroke-dasharray="6 4"', ' font-weight="bold"'
THREE = "M-13-12C-6-20 10-20 11-10C12-2 2-1-2-1C5-1 14 1 13 9C12 20-6 20-14 12"
EIGHT = "M2-2C-12-7-10-18 1-18C12-18 12-7 2-2C-14 4-12 18 0 18C13 18 13 4 2-2"


def write(name, height, title, description, body):
    """Put the parts on a light card, which reads on any ground, and save them."""
    heads = "".join(
        f'<marker id="{name}-{colour[1:]}" viewBox="0 0 10 10" refX="6" refY="5" markerWidth="10" markerHeight="10"'
        f' markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5L10 5L0 9.5z" fill="{colour}"/></marker>\n'
        for colour in (INK, VERMILION, GREEN, BLUE) if f"url(#NAME-{colour[1:]})" in "".join(body))
    content = "\n".join(body).replace("NAME-", f"{name}-")
    (HERE / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' role="img" aria-labelledby="{name}-title {name}-desc" font-family="{FONT}" font-size="16" fill="{INK}">\n'
        f'<title id="{name}-title">{title}</title>\n<desc id="{name}-desc">{description}</desc>\n'
        f"<defs>\n{heads}</defs>\n"
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12" fill="{CARD}" stroke="{EDGE}"/>\n'
        f"{content}\n</svg>\n", encoding="utf-8")


def text(x, y, words, size=16, anchor="middle", more=""):
    """Write a line; *letters* between stars are italic."""
    words = re.sub(r"\*(.+?)\*", r'<tspan font-style="italic">\1</tspan>', str(words))
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{more}>{words}</text>'


def note(x, y, words, anchor="middle"):
    """Write a smaller line in grey."""
    return text(x, y, words, 14, anchor, f' fill="{SOFT}"')


def box(x, y, width, height, colour, words="", radius=8):
    """Draw a rounded box around its centre (x, y)."""
    shape = (f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}" rx="{radius}"'
             f' fill="{colour}" fill-opacity="0.18" stroke="{colour}" stroke-width="{LINE}"/>')
    return shape + (text(x, y + 5.5, words) if words else "")


def rounded(corners, radius=8):
    """Return the path of a polygon with rounded corners."""
    path = ""
    for before, corner, after in zip(corners[-1:] + corners, corners, corners[1:] + corners[:1]):
        (x0, y0), (x1, y1) = ((corner[0] + (end[0] - corner[0]) * radius / math.dist(corner, end),
                               corner[1] + (end[1] - corner[1]) * radius / math.dist(corner, end))
                              for end in (before, after))
        path += f"{'L' if path else 'M'}{x0:.1f} {y0:.1f}Q{corner[0]:g} {corner[1]:g} {x1:.1f} {y1:.1f}"
    return path + "z"


def network(x, y, width, left, right, colour, words):
    """Draw a network as a box whose height goes from `left` to `right`."""
    a, b, w = left / 2, right / 2, width / 2
    shape = rounded([(x - w, y - a), (x + w, y - b), (x + w, y + b), (x - w, y + a)])
    return (f'<path d="{shape}" fill="{colour}" fill-opacity="0.18" stroke="{colour}" stroke-width="{LINE}"/>'
            + text(x, y + 5.5, words))


def picture(x, y, path=THREE, soft=False):
    """Draw a tile with a digit; a soft one is a little blurred, as a reconstruction is."""
    blur = '<filter id="NAME-blur"><feGaussianBlur stdDeviation="1.6"/></filter>' if soft else ""
    more = ' filter="url(#NAME-blur)"' if soft else ""
    return (f'<g transform="translate({x:g} {y:g})">{blur}<rect x="-30" y="-30" width="60" height="60" rx="8"'
            f' fill="{INK}"/><path d="{path}" fill="none" stroke="#fff" stroke-width="5" stroke-linecap="round"'
            f' stroke-linejoin="round"{more}/></g>')


def arrow(path, colour=INK, more=""):
    """Draw a line with a head at its end; the point reaches 4 beyond the path."""
    return (f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{LINE}" stroke-linejoin="round"{more}'
            f' marker-end="url(#NAME-{colour[1:]})"/>')


def cross(x, y):
    """Mark the place where a gradient ends."""
    return (f'<path d="M{x - 6} {y - 6}l12 12m0-12l-12 12" stroke="{VERMILION}" stroke-width="3"'
            ' stroke-linecap="round"/>')


def autoencoder():
    """Picture, encoder, code, decoder, reconstruction; the loss compares both ends."""
    y = 122
    body = [note(70, 32, "picture"), note(340, 32, "code"), note(610, 32, "reconstruction"),
            text(70, 56, "*x*", 18), text(340, 56, "*z*", 18), text(610, 56, "*x̂*", 18),
            picture(70, y), picture(610, y, soft=True), box(340, y, 28, 52, ORANGE),
            network(210, y, 128, 120, 52, BLUE, "encoder"), network(470, y, 128, 52, 120, GREEN, "decoder"),
            *(arrow(f"M{x} {y}h26") for x in (108, 282, 362, 542)),
            box(340, 224, 190, 44, VERMILION, "loss = ‖*x* − *x̂*‖²"),
            arrow("M70 160V224H237", VERMILION), arrow("M610 160V224H443", VERMILION)]
    write("autoencoder", 268, "Autoencoder", "A picture x goes through the encoder to a narrow code z and through the "
          "decoder to the reconstruction x-hat. The loss is the squared distance between x and x-hat.", body)


def vae():
    """As the autoencoder, with a distribution for a code, and two terms of loss."""
    y = 158
    body = [text(52, y - 42, "*x*", 18), picture(52, y), network(154, y, 80, 116, 84, BLUE, "encoder"),
            f'<rect x="224" y="{y - 62}" width="88" height="124" rx="12" fill="none" stroke="{GUIDE}"/>',
            box(268, y - 29, 70, 42, BLUE, "*μ*"), box(268, y + 29, 70, 42, BLUE, "logvar"),
            box(398, y, 112, 44, ORANGE, "*z* = *μ* + *σ*·*ε*"), note(398, y + 46, "*σ* = exp(½ logvar)"),
            box(398, 44, 44, 40, PURPLE, "*ε*"), text(430, 49.5, "~ *N*(0, *I*)", anchor="start"),
            arrow(f"M398 70V{y - 32}"),
            network(526, y, 80, 84, 116, GREEN, "decoder"), text(628, y - 42, "*x̂*", 18), picture(628, y, soft=True),
            *(arrow(f"M{x} {y}h16") for x in (88, 200, 318, 460, 572)),
            box(268, 44, 176, 40, VERMILION, "KL(*q*(*z*|*x*) ‖ *N*(0, *I*))"), arrow(f"M268 {y - 63}V74", VERMILION),
            box(340, 268, 250, 44, VERMILION, "reconstruction: −log *p*(*x*|*z*)"),
            arrow(f"M52 {y + 38}V268H205", VERMILION), arrow(f"M628 {y + 38}V268H475", VERMILION)]
    write("vae", 312, "Variational autoencoder", "The encoder turns a picture x into mu and logvar, the mean and "
          "the log variance of q(z|x). The code is z = mu + sigma times epsilon, with noise epsilon from N(0, I) that "
          "comes from the side. The decoder turns z into the reconstruction x-hat. The loss has two terms: the "
          "reconstruction term, minus log p(x|z), and the divergence KL of q(z|x) from N(0, I).", body)


def reparameterisation():
    """Two graphs: a drawn code stops the gradient, a computed one lets it through."""
    body = [f'<path d="M340 24V258" stroke="{EDGE}" stroke-width="{LINE}"/>']
    for x, words, width, colour, title in ((170, "*z* ~ *N*(*μ*, *σ*²)", 180, PURPLE, "Sampling inside the graph"),
                                           (510, "*z* = *μ* + *σ*·*ε*", 220, ORANGE, "Noise as an input")):
        body += [text(x, 36, title, more=BOLD), box(x, 72, 76, 38, VERMILION, "loss"),
                 box(x, 152, width, 38, colour, words), arrow(f"M{x - 11} 127V101"),
                 arrow(f"M{x + 11} 97v26", VERMILION, GRADIENT)]
    for x, words, passes in ((125, "*μ*", False), (215, "*σ*", False), (435, "*μ*", True), (510, "*σ*", True)):
        body += [box(x, 232, 52, 38, BLUE, words), arrow(f"M{x - 11} 207v-26")]
        body += [arrow(f"M{x + 11} 177v26", VERMILION, GRADIENT)] if passes else [cross(x + 11, 192)]
    body += [box(585, 232, 52, 38, PURPLE, "*ε*"), arrow("M585 207v-26"), note(585, 270, "~ *N*(0, *I*)"),
             arrow("M168 292h30"), note(212, 297, "value", "start"),
             arrow("M286 292h30", VERMILION, GRADIENT), note(330, 297, "gradient", "start"),
             box(436, 292, 22, 16, PURPLE, radius=4), note(456, 297, "random", "start")]
    write("reparameterisation", 316, "Reparameterisation", "Two graphs side by side. Left: z is drawn from N(mu, sigma "
          "squared) inside the graph; the gradient of the loss reaches z and is blocked there. Right: z = mu + sigma "
          "times epsilon, with the noise epsilon as an input; the gradient flows through z to mu and to sigma.", body)


def gan():
    """The game, and below it the ways of the two gradients."""
    body = [box(60, 150, 28, 52, ORANGE, "*z*"), note(60, 96, "noise"), note(178, 96, "generator"),
            network(178, 150, 76, 52, 84, GREEN, "*G*"), picture(300, 150, EIGHT), note(300, 198, "*G*(*z*)"),
            picture(300, 64), note(256, 69, "data *x*", "end"), note(445, 40, "discriminator"),
            network(445, 107, 90, 112, 76, BLUE, "*D*"), box(598, 107, 116, 44, VERMILION, "real or not?"),
            arrow("M82 150h44"), arrow("M224 150h36"), arrow("M338 72L386 89"), arrow("M338 142L386 125"),
            arrow("M498 107h32"),
            f'<path d="M178 204V290M445 174V290M598 137V290" stroke="{GUIDE}"/>',
            text(32, 241.5, "*D*’s step", anchor="start", more=BOLD),
            text(32, 291.5, "*G*’s step", anchor="start", more=BOLD),
            arrow("M598 236H451", VERMILION, GRADIENT), cross(424, 236),
            note(408, 241, "detach: no gradient to *G*", "end"),
            note(522, 224, "gradient"),
            arrow("M598 286H184", VERMILION, GRADIENT), note(311, 275, "through *D*, whose weights hold still"),
            f'<circle cx="445" cy="286" r="6" fill="{CARD}" stroke="{VERMILION}" stroke-width="{LINE}"/>']
    write("gan", 316, "Generative adversarial network", "The generator G turns noise z into a picture G(z). The "
          "discriminator D gets data x and G(z) and says which is real. Below, the gradients: in D's step the gradient "
          "goes from the verdict to D and no further, since G(z) is detached; in G's step it goes from the verdict "
          "through D, whose weights stay as they are, to G.", body)


def heap(x, y, colours):
    """Draw blocks of earth on each other, the first one at the bottom."""
    return "".join(f'<rect x="{x - 13}" y="{y - 26 * (i + 1)}" width="26" height="26" rx="4" fill="{colour}"'
                   f' stroke="{CARD}" stroke-width="{LINE}"/>' for i, colour in enumerate(colours))


def earth_mover():
    """Two heaps on a line, the cheapest plan, and its cost by the plan and by the cumulative sums."""
    p, q = [2, 3, 0, 0, 0], [0, 0, 2, 1, 2]
    plan = [(2, 1, 3, GREEN), (1, 2, 4, BLUE), (2, 2, 5, VERMILION)]  # mass, from, to; nobody overtakes
    gaps = [abs(a - b) for a, b in zip(accumulate(p), accumulate(q))]
    cost = sum(gaps)
    assert cost == sum(mass * (end - start) for mass, start, end, _ in plan)
    assert all(sum(m for m, start, _, _ in plan if start == i) == p[i - 1] for i in range(1, 6))
    assert all(sum(m for m, _, end, _ in plan if end == i) == q[i - 1] for i in range(1, 6))
    top, ground, at = 122, 266, lambda i: 20 + 70 * i
    body = [f'<path d="M56 {top}H404M56 {ground}H404" stroke="{SOFT}" stroke-width="{LINE}" stroke-linecap="round"/>',
            text(34, top - 8, "*p*", 18), text(34, ground - 8, "*q*", 18)]
    body += [note(34, ground + 22, "place")]
    body += [note(at(i), ground + 22, i) for i in range(1, 6)]
    for i in range(1, 6):
        body += [heap(at(i), top - 1, [c for m, start, _, c in plan[::-1] if start == i for _ in range(m)]),
                 heap(at(i), ground - 1, [c for m, _, end, c in plan if end == i for _ in range(m)])]
    for (mass, start, end, colour), shift in zip(plan, (0, -7, 7)):
        body += [arrow(f"M{at(start) + shift} {top + 8}L{at(end) - 5} {ground - 26 * q[end - 1] - 12}", colour)]
    body += [text(440, 48, "mass × distance", anchor="start", more=BOLD),
             note(440, 70, "in blocks × places", "start")]
    for i, (mass, start, end, colour) in enumerate(plan):
        y = 104 + 28 * i
        body += [f'<rect x="440" y="{y - 13}" width="16" height="16" rx="4" fill="{colour}"/>',
                 text(470, y, f"{mass} × {end - start} = {mass * (end - start)}", anchor="start")]
    body += [f'<path d="M440 178H640" stroke="{EDGE}" stroke-width="{LINE}"/>',
             text(440, 206, f"total cost = {cost}", anchor="start", more=BOLD),
             note(440, 244, "check by cumulative sums:", "start"),
             note(440, 266, f"Σ |*P* − *Q*| = {'+'.join(map(str, gaps))} = {cost}", "start")]
    write("earth_mover", 306, "Earth mover's distance", "Two heaps of earth on a line of five places: p has 2 blocks "
          "at place 1 and 3 at place 2; q has 2 blocks at place 3, 1 at place 4 and 2 at place 5. The plan moves 2 "
          "blocks by 2 places, 1 block by 2 and 2 blocks by 3. The cost is 4 + 2 + 6 = 12, and the "
          f"cumulative sums agree: {' + '.join(map(str, gaps))} = {cost}.", body)


def grid(x, y, rows, colours=None, side=32):
    """Draw a table of numbers; None is an empty cell. `colours` maps (row, column) to a fill."""
    parts = []
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            colour = (colours or {}).get((i, j))
            fill = f'fill="{colour}" fill-opacity="0.3"' if colour else 'fill="none"'
            parts += [f'<rect x="{x + side * j}" y="{y + side * i}" width="{side}" height="{side}" {fill}/>',
                      "" if value is None else text(x + side * (j + 0.5), y + side * (i + 0.5) + 5.5, value)]
    height, width = side * len(rows), side * len(rows[0])
    lines = "".join(f"M{x} {y + side * i}h{width}" for i in range(1, len(rows)))
    lines += "".join(f"M{x + side * j} {y}v{height}" for j in range(1, len(rows[0])))
    return "".join(parts) + (f'<path d="{lines}" stroke="{EDGE}"/><rect x="{x}" y="{y}" width="{width}"'
                             f' height="{height}" rx="4" fill="none" stroke="{SOFT}" stroke-width="{LINE}"/>')


def transposed_convolution():
    """Four stamps of the kernel, one for each input value, and their sum."""
    values, places = [[0, 1], [2, 3]], [(0, 0), (0, 1), (1, 0), (1, 1)]
    colours = dict(zip(places, (SKY, ORANGE, GREEN, PURPLE)))
    total = [[0] * 3 for _ in range(3)]
    body = [grid(28, 52, values, colours), note(60, 38, "input"), grid(156, 52, values), note(188, 38, "kernel *K*"),
            text(252, 78, "Each input value times *K*, stamped at its place;", 16, "start"),
            text(252, 102, "where stamps overlap, they add up (stride 1).", 16, "start")]
    for n, (i, j) in enumerate(places):
        stamp = [[None] * 3 for _ in range(3)]
        for a, b in places:
            stamp[i + a][j + b] = values[i][j] * values[a][b]
            total[i + a][j + b] += values[i][j] * values[a][b]
        body += [grid(28 + 132 * n, 184, stamp, {(i + a, j + b): colours[i, j] for a, b in places}),
                 text(76 + 132 * n, 168, f"{values[i][j]} · *K*"),
                 text(142 + 132 * n, 238, "=" if n == 3 else "+", 18)]
    assert total == [[0, 0, 1], [0, 4, 6], [4, 12, 9]]
    body += [grid(556, 184, total), text(604, 168, "output")]
    write("transposed_convolution", 308, "Transposed convolution", "The input, rows 0 1 and 2 3, and the kernel K, "
          "rows 0 1 and 2 3. Each of the four input values times K is stamped on a 3 by 3 output at the value's place. "
          "The sum of the four stamps has the rows 0 0 1, 0 4 6 and 4 12 9.", body)


def dot(x, y, fill, size=5, stroke="none", width=LINE):
    """Draw a point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{fill}" stroke="{stroke}" stroke-width="{width}"/>'


def residual(x, y, to_x, to_y):
    """Draw a dotted line."""
    return (f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{VERMILION}" stroke-width="{LINE}"'
            ' stroke-dasharray="0 5" stroke-linecap="round"/>')


def tilted_cloud(count=60, seed=376):
    """Draw points from a Gaussian that lies across the picture."""
    rng, turn = random.Random(seed), math.radians(-22)
    points = [(rng.gauss(0, 105), rng.gauss(0, 34)) for _ in range(count)]
    return [(262 + a * math.cos(turn) - b * math.sin(turn), 158 + a * math.sin(turn) + b * math.cos(turn))
            for a, b in points]


def pca():
    """A tilted cloud, its mean and principal axes, and some points with their projections."""
    cloud = tilted_cloud()
    mx, my = (sum(values) / len(cloud) for values in zip(*cloud))
    sxx, sxy, syy = (sum((x - mx) ** 2 for x, _ in cloud), sum((x - mx) * (y - my) for x, y in cloud),
                     sum((y - my) ** 2 for _, y in cloud))
    angle = 0.5 * math.atan2(2 * sxy, sxx - syy)  # of the first eigenvector of the covariance
    ux, uy = math.cos(angle), math.sin(angle)
    body = [dot(x, y, SKY, 4, BLUE, 1) for x, y in cloud]
    for x, y, colour in ((246 * ux, 246 * uy, BLUE), (104 * uy, -104 * ux, GREEN)):
        body += [arrow(f"M{mx - x:.1f} {my - y:.1f}L{mx + x:.1f} {my + y:.1f}", colour)]
    for x, y in (cloud[i] for i in (32, 40, 50, 8, 55)):
        along = (x - mx) * ux + (y - my) * uy
        foot = mx + along * ux, my + along * uy
        body += [residual(x, y, *foot), dot(x, y, VERMILION), dot(*foot, CARD, 5, VERMILION)]
    body += [dot(mx, my, INK, 6), note(mx + 256 * ux, my + 256 * uy + 2, "first principal axis", "start"),
             note(mx + 110 * uy, my - 110 * ux - 6, "second principal axis")]
    marks = (dot(522, 154, SKY, 4, BLUE, 1), dot(522, 182, INK, 6), dot(522, 210, VERMILION),
             dot(522, 238, CARD, 5, VERMILION), residual(510, 266, 534, 266))
    names = "data", "mean *x̄*", "point *x*", "projection *x̂*", "residual *x* − *x̂*"
    body += [mark + note(546, 159 + 28 * i, words, "start") for i, (mark, words) in enumerate(zip(marks, names))]
    write("pca", 316, "Principal component analysis", "A tilted cloud of points with its mean, the first principal "
          "axis along the cloud and the second one across it. Five points are projected on the first axis; dotted "
          "lines, perpendicular to the axis, show the residuals.", body)


def precision_recall():
    """The balls of Kynkäänniemi's metrics for seven real pictures and five samples in the plane."""
    real = [(62, 84), (88, 66), (118, 84), (92, 110), (232, 184), (262, 168), (266, 206)]
    samples = [(76, 92), (103, 78), (104, 108), (72, 62), (146, 152)]
    panels = (("Precision: 4 of 5 samples", "are in the balls of the real pictures", real, SKY, samples, 0),
              ("Recall: 4 of 7 real pictures", "are in the balls of the samples", samples, ORANGE, real, 340))
    body = [f'<path d="M340 24V296" stroke="{EDGE}" stroke-width="{LINE}"/>']
    for title, words, centres, colour, points, shift in panels:
        radii = [min(math.dist(a, b) for b in centres if b != a) for a in centres]
        inside = [any(math.dist(point, c) <= r for c, r in zip(centres, radii)) for point in points]
        assert f"{sum(inside)} of {len(points)}" in title
        body += [text(shift + 170, 268, title, more=BOLD), note(shift + 170, 290, words)]
        look = f'fill="{colour}" fill-opacity="0.15" stroke="{colour}"'
        body += [f'<circle cx="{x + shift}" cy="{y}" r="{r:.1f}" {look}/>'
                 for (x, y), r in zip(centres, radii)]
        body += [dot(x + shift, y, SKY, 5, BLUE, 1.5) for x, y in real]
        body += [f'<rect x="{x + shift - 5}" y="{y - 5}" width="10" height="10" fill="{ORANGE}" stroke="{VERMILION}"'
                 ' stroke-width="1.5"/>' for x, y in samples]
    body += [dot(236, 40, SKY, 5, BLUE, 1.5), note(250, 45, "real", "start"),
             f'<rect x="231" y="59" width="10" height="10" fill="{ORANGE}" stroke="{VERMILION}" stroke-width="1.5"/>',
             note(250, 69, "sample", "start")]
    write("precision_recall", 312, "Precision and recall", "Seven real pictures and five samples as points in the "
          "plane. Left, each real picture has a ball that reaches its nearest real neighbour: four of the five samples "
          "are in such a ball. Right, each sample has a ball that reaches its nearest sample: four of the seven real "
          "pictures are in such a ball, and the heap of three at the lower right is missed.", body)


def families():
    """The families by what they know of p(x), each with its labs; arrows lead to what is made of two of them."""
    columns = ((114, BLUE, "its value", "explicit, exact", (("autoregressive", "lab 06"), ("coupling flow", "lab 09"))),
               (334, GREEN, "a bound on it", "explicit, bounded",
                (("VAE", "labs 02 and 03"), ("VQ-VAE", "lab 07"), ("flow matching", "and diffusion, lab 09"))),
               (554, VERMILION, "nothing: it only draws", "implicit",
                (("GAN", "lab 04"), ("Wasserstein GAN", "lab 05"))))
    body = [text(334, 40, "What does the model know of *p*(*x*)?", 18, more=BOLD)]
    for x, colour, answer, kind, members in columns:
        body += [f'<path d="M334 52V66H{x}V76" fill="none" stroke="{GUIDE}" stroke-width="{LINE}"/>',
                 text(x, 98, answer), note(x, 120, kind)]
        for y, (name, labs) in zip((162, 226, 290), members):
            body += [box(x, y, 184, 50, colour), text(x, y - 1, name), note(x, y + 18, labs)]
    body += [arrow("M206 162H224V226H234", BLUE, GRADIENT), note(114, 286, "also draws the codes"),
             note(114, 304, "of the VQ-VAE"),
             box(554, 290, 184, 50, PURPLE), text(554, 289, "VAE-GAN"), note(554, 308, "lab 08"),
             arrow("M426 162H444V290H454", GREEN, GRADIENT), arrow("M646 162H662V290H654", VERMILION, GRADIENT)]
    write("families", 336, "The families of generative models", "Three columns, by what a model knows of the density "
          "p(x). Its value, explicit and exact: autoregressive models, lab 06, and coupling flows, lab 09. A bound on "
          "it, explicit and bounded: the VAE, labs 02 and 03, the VQ-VAE, lab 07, flow matching and diffusion, lab 09. "
          "Nothing, implicit: the GAN, lab 04, and the Wasserstein GAN, lab 05. Dashed arrows: an autoregressive model "
          "also draws the codes of the VQ-VAE, and the VAE-GAN, lab 08, is made of a VAE and a GAN.", body)


def autoregressive():
    """What a pixel may see, and which of the two stacks brings it."""
    panels = ((101, "before the pixel", "known: *b*₁ to *b*ᵢ₋₁", BLUE, lambda i, j: (i, j) < (3, 3)),
              (299, "vertical stack", "all rows above", GREEN, lambda i, j: i < 3),
              (497, "horizontal stack", "to the left", ORANGE, lambda i, j: i == 3 and j < 3))
    body = [text(x, 36, title, more=BOLD) for x, title, *_ in panels]
    for x, _, _, colour, seen in panels:
        looks = [(i, j, f'"{VERMILION}"' if (i, j) == (3, 3) else f'"{colour}" fill-opacity="0.3"' if seen(i, j)
                  else '"none"') for i in range(7) for j in range(7)]
        body.append("".join(f'<rect x="{x - 77 + 22 * j}" y="{56 + 22 * i}" width="22" height="22" fill={look}'
                            f' stroke="{GUIDE}"/>' for i, j, look in looks))
    body += [arrow("M382 133h30"), note(397, 121, "link"), arrow("M580 133h22"), text(638, 139, "*p*(*b*ᵢ)", 18),
             *(note(x, 234, words) for x, _, words, *_ in panels),
             note(638, 167, "given"), note(638, 185, "all before")]
    write("autoregressive", 256, "What a pixel sees", "Three pictures of seven by seven pixels; the pixel in turn is "
          "in the middle. Left: all pixels before it in raster order, the rows above and those to its left, are known. "
          "Middle: the vertical stack sees all rows above. Right: the horizontal stack sees the pixels to the left, "
          "and a link brings it what the vertical stack has found. From it comes the probability of the pixel given "
          "all before.", body)


def vqvae():
    """Points of the encoder, the book, codes and their vectors; the gradient goes past the book."""
    y, codes = 168, (5, 5, 17, 5, 41, 17, 5, 41, 41)
    shades = {5: SKY, 17: ORANGE, 41: PURPLE}

    book = tuple(zip(("0", "…", "5", "…", "17", "…", "41", "…", "63"),
                     (GUIDE, "", SKY, "", ORANGE, "", PURPLE, "", GUIDE)))
    ways = (78, 94), (183, 200), (290, 310), (399, 417), (505, 520), (592, 601)

    def tiles(x, colours, words):
        places = [(x + 26 * (i % 3 - 1), y + 26 * (i // 3 - 1)) for i in range(9)]
        return [box(*place, 24, 24, colour, radius=4) + (text(place[0], place[1] + 5, word, 13) if word else "")
                for place, colour, word in zip(places, colours, words)]

    def label(x, words, below):
        return [text(x, y - 58, words, 18), note(x, y + 64, below)]
    body = [text(44, y - 58, "*x*", 18), picture(44, y), network(140, y, 78, 112, 76, BLUE, "encoder"),
            *tiles(246, [BLUE] * 9, [""] * 9), *label(246, "*z*", "points"),
            *tiles(356, [shades[c] for c in codes], codes), *label(356, "*c*", "nearest: codes"),
            *tiles(462, [shades[c] for c in codes], [""] * 9), *label(462, "*e*", "their vectors"),
            network(558, y, 62, 76, 112, GREEN, "decoder").replace('font-size="16"', 'font-size="14"'),
            text(638, y - 58, "*x̂*", 18), picture(638, y, soft=True),
            *(arrow(f"M{a} {y}H{b}") for a, b in ways),
            text(150, 290, "the book", anchor="end", more=BOLD)]
    for i, (word, colour) in enumerate(book):
        x = 186 + 42 * i
        body += [box(x, 284, 34, 30, colour, word, radius=4)] if colour else [text(x, 289, word)]
    body += [arrow("M356 264V246"), note(552, 289, "64 vectors", "start"),
             arrow(f"M462 {y - 82}V48H246V{y - 86}", VERMILION, GRADIENT),
             note(354, 36, "gradient, copied from *e* to *z*")]
    write("vqvae", 320, "VQ-VAE", "The encoder turns a picture x into a grid of points z. Each point is replaced by "
          "the nearest of 64 vectors in a book, whose number is the code c of this place. The decoder gets these "
          "vectors e and makes the reconstruction x-hat. The gradient is copied from e to z, past the replacement.",
          body)


def vae_gan():
    """Three networks in a row, and below them which loss reaches which."""
    y = 118
    body = [picture(52, y), text(52, y - 50, "*x*", 18), network(150, y, 84, 104, 64, BLUE, "encoder"),
            box(246, y, 30, 46, ORANGE, "*z*"), box(246, y - 62, 30, 34, PURPLE, "*z*ₚ"),
            network(344, y, 84, 64, 104, GREEN, "decoder"), picture(452, y, soft=True),
            text(452, y - 50, "*x̃*, *x*ₚ", 18), note(452, y + 62, "and *x* itself"),
            network(558, y, 92, 104, 76, ORANGE, "discrim."), note(618, y - 62, "features *h*"),
            note(630, y + 62, "logit *ℓ*"),
            arrow(f"M90 {y}H102"), arrow(f"M198 {y}H225"), arrow(f"M267 {y}H296"), arrow(f"M267 {y - 56}L296 {y - 22}"),
            arrow(f"M392 {y}H414"), arrow(f"M490 {y}H506"),
            f'<path d="M150 {y + 58}V316M344 {y + 58}V316M558 {y + 58}V316" stroke="{GUIDE}"/>']
    stop = f'r="6" fill="{CARD}" stroke="{VERMILION}" stroke-width="{LINE}"/>'
    body += [text(20, 221, "KL", anchor="start", more=BOLD), arrow("M246 216H156", VERMILION, GRADIENT),
             text(20, 257, "distance", anchor="start", more=BOLD),
             arrow("M618 252H350", VERMILION, GRADIENT), arrow("M332 252H156", VERMILION, GRADIENT),
             f'<circle cx="558" cy="252" {stop}',
             text(20, 301, "game", anchor="start", more=BOLD),
             arrow("M640 296H564", VERMILION, GRADIENT), arrow("M546 296H350", VERMILION, GRADIENT),
             cross(320, 296), note(304, 301, "not to the encoder", "end"),
             note(340, 344, "Circle: the gradient passes through, and is not left in the weights.")]
    write("vae_gan", 364, "VAE-GAN", "The encoder turns a picture x into a code z. The decoder turns z, and codes z_p "
          "of the prior, into pictures. The discriminator gives features h and a logit for each. Below, the gradients: "
          "the KL reaches the encoder; the distance in features runs through the discriminator to the decoder and to "
          "the encoder; the game reaches the discriminator and the decoder, and stops before the encoder.", body)


def flow_matching():
    """Straight lines from noise to data that cross, and the mean of their arrows where they do."""
    left, right, y = 150, 530, 190
    ends = ((96, 284), (190, 190), (284, 96), (128, 210))         # heights of noise and data of each line
    at = 0.5
    body = [text(left, 40, "noise *x*₀", more=BOLD), note(left, 60, "*t* = 0"),
            text(right, 40, "data *x*₁", more=BOLD), note(right, 60, "*t* = 1"),
            text(340, 40, "*x*ₜ = (1 − *t*) *x*₀ + *t* *x*₁"), note(340, 60, "a point on the way")]
    body += [f'<path d="M{left} {a}L{right} {b}" stroke="{GUIDE}" stroke-width="1.5"{GRADIENT} fill="none"/>'
             for a, b in ends[:3]]
    body += [dot(left, a, BLUE) + dot(right, b, GREEN) for a, b in ends[:3]]
    x = left + at * (right - left)
    for a, b in ends[:3]:
        slope = (b - a) / (right - left)
        body.append(arrow(f"M{x} {y}L{x + 74} {y + 74 * slope:g}", VERMILION))
    body += [dot(x, y, INK), note(340, 318, "Three lines meet here. Their arrows *x*₁ − *x*₀ differ;"),
             note(340, 338, "the best velocity *v*\u2217 is the mean of them, the one in the middle.")]
    write("flow_matching", 360, "Flow matching", "Three straight dashed lines from points of noise on the left to "
          "points of data on the right. They cross in one place in the middle, where each has an arrow in its own "
          "direction. The best velocity there is the mean of the three arrows.", body)


def embed(path):
    """Attach to each cell of a notebook the diagrams that it shows: ![...](attachment:NAME.svg).

    An attachment has two forms. JupyterLab and VS Code show the first one, and of an attachment no SVG; nbconvert
    takes the SVG. The PNG has the SHA-256 of the SVG that it was made from in its text `source`.
    """
    import nbformat
    notebook = nbformat.read(path, as_version=4)
    before = nbformat.writes(notebook)
    for cell in notebook.cells:
        files = re.findall(r"\]\(attachment:(\w+\.svg)\)", cell.source) if cell.cell_type == "markdown" else []
        old = cell.pop("attachments", {})
        if files:
            cell.attachments = {file: attachment(HERE / file, old.get(file)) for file in files}
    if nbformat.writes(notebook) != before:
        nbformat.write(notebook, path)


def attachment(path, old):
    """Return {type: base64} of a diagram; `old` itself, if that was made from the same SVG."""
    svg = base64.b64encode(path.read_bytes()).decode()
    if old and old.get("image/svg+xml") == svg:
        return old
    return {"image/png": base64.b64encode(as_png(path.read_bytes())).decode(), "image/svg+xml": svg}


def as_png(svg, scale=1.5):
    """Return a PNG of an SVG; what the SVG leaves free is transparent."""
    from PIL import Image, PngImagePlugin
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(device_scale_factor=scale)
        page.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block }}</style>{svg.decode()}")
        shot = page.locator("svg").screenshot(omit_background=True)
        browser.close()
    about, file = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text("source", hashlib.sha256(svg).hexdigest())
    palette = Image.open(io.BytesIO(shot)).quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(file, "PNG", optimize=True, pnginfo=about)     # a quarter of the size in all colours
    return file.getvalue()


if __name__ == "__main__":
    for draw in (autoencoder, vae, reparameterisation, gan, earth_mover, transposed_convolution, pca,
                 precision_recall, families, autoregressive, vqvae, vae_gan, flow_matching):
        draw()
    for lab in sorted(HERE.parent.glob("notebooks/*.ipynb")):
        embed(lab)
