"""One chest radiograph, drawn from the image-visible causes: anatomy, findings, exposure and noise, as 8-bit grey.

A drawing, not a simulation of physics: soft-edged shapes are laid over each other in a frame in which x runs from -1
(the patient's right, which is the image's left) to 1 and y from 0 (top) to 1. What is seen of a cause covers several
pixels at 32 x 32, so that a small network can learn it; what is not a cause (build, pose, exposure, leads, markers)
varies at random. Which cause is drawn how stands in docs/synthetic-hospital.md. Which image belongs to whom is the
business of studies.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.canvas import Canvas, band, blob, edge, grain, softplus

Pixels = NDArray[np.uint8]
Field = NDArray[Any]  # float32, [H, W]
View = Literal["AP", "PA", "LATERAL"]


@dataclass(frozen=True)
class Findings:
    """What the image shows of each cause, in standard deviations (0 is average); `breasts` is anatomy, not a cause."""

    heart_size: float = 0.0
    aorta: float = 0.0
    effusion: float = 0.0
    opacity: float = 0.0
    hyperinflation: float = 0.0
    air: float = -1.0
    gas_exchange: float = 0.0
    overload: float = 0.0
    pacing: float = -1.0
    breasts: bool = False


@dataclass(frozen=True)
class _Body:
    """Build and pose of one exposure: what no phenotype depends on, and the extent of the lungs."""

    apex: float
    base: float
    width: float
    dome: float
    centre: float
    hila: float


def draw(findings: Findings, *, view: View, height: int, width: int, seed: list[int]) -> Pixels:
    """Grey pixels, uint8 [height, width]; the same arguments give the same bytes."""
    rng = np.random.default_rng(seed)
    canvas = Canvas.of(height, width, rng)
    field = _lateral(canvas, findings, rng) if view == "LATERAL" else _frontal(canvas, findings, view, rng)
    return _expose(canvas, field, view, rng)


def _frontal(canvas: Canvas, f: Findings, view: View, rng: np.random.Generator) -> Field:
    portable = view == "AP"
    inflation = float(np.clip(f.hyperinflation, -2.5, 2.5))
    body = _Body(
        apex=0.15 + rng.normal(0, 0.008) - 0.006 * inflation,
        base=(0.74 if portable else 0.78) + rng.normal(0, 0.012) + 0.042 * inflation,
        width=0.80 + rng.normal(0, 0.02),
        dome=max(0.025, 0.085 - 0.022 * inflation),
        centre=rng.normal(0, 0.010),
        hila=0.44 + rng.normal(0, 0.01),
    )
    x, y = canvas.x - body.centre, canvas.y
    side = np.abs(x)
    field = _torso(canvas, x, y, body, f.breasts, rng)
    lungs, rim = _lungs(x, y, body)

    aerated = 0.22 - 0.022 * inflation + 0.04 * np.clip(y - 0.3, 0, 1) + (0.03 if portable else 0.0)
    field = field * (1 - lungs) + aerated * lungs
    field += lungs * (_ribs(side, y, body) + _vessels(canvas, side, y, body, rng))
    field -= (
        0.10 * blob(x - 0.40, y - body.base - 0.055, 0.15, 0.030) * edge(y - body.base - 0.02, 0.01)
    )  # gas in the stomach
    field += lungs * _lung_findings(canvas, f, x, y, body, rng)
    field += 0.10 * edge(0.016 - np.abs(rim), 0.006) * edge(y - body.apex - 0.06, 0.02) * edge(body.base - y, 0.02)
    sides = rng.choice((-1.0, 1.0), 2)  # drawn in any case: a finding must not change what is at random after it
    if f.air > 0:
        field = _pneumothorax(field, f.air, x, y, lungs, rim, float(sides[0]))

    field = _mediastinum(canvas, field, f, x, y, body, 1.12 if portable else 1.0)
    field = _effusion(field, f.effusion, x, y, lungs, body, float(sides[1]))
    field = _clavicles(field, side, y, body, portable)
    if f.pacing > 0:
        field = _pacemaker(field, f.pacing, x, y, body)
    return _hardware(field, x, y, rng) if portable else field


def _torso(canvas: Canvas, x: Field, y: Field, body: _Body, breasts: bool, rng: np.random.Generator) -> Field:
    """Soft tissue from neck to abdomen on a dark background; lighter where the body is thicker."""
    neck = 0.20 + 0.5 * np.clip((y - 0.02) / 0.12, 0, 1) ** 2.2
    shoulder = np.clip((y - 0.07) / 0.10, 0, 1)
    half = np.where(y < 0.08, neck, np.maximum(neck, 0.45 + 0.62 * shoulder))
    flank = 1.03 + rng.normal(0, 0.05) - 0.10 * np.clip((y - 0.35) / 0.4, 0, 1)
    inside = edge(np.minimum(half, flank) - np.abs(x), 0.012)
    thick = 0.47 + 0.13 * (1 - np.clip(np.abs(x), 0, 1) ** 2) + 0.17 * np.clip((y - 0.62) / 0.2, 0, 1)
    armpit = edge(np.abs(x) - body.width - 0.10, 0.03) * edge(y - 0.42, 0.05)
    thick = thick - 0.14 * armpit
    field = 0.03 + inside * (thick + 0.03 * grain(canvas, 5, rng))
    if breasts:
        for s in (-1.0, 1.0):
            field = field + 0.07 * inside * edge(1 - np.hypot((x - s * 0.50) / 0.34, (y - 0.66) / 0.15), 0.10)
    return field


def _lungs(x: Field, y: Field, body: _Body) -> tuple[Field, Field]:
    """The two aerated fields (0 to 1), and the signed distance to the chest wall (positive inside)."""
    t = np.clip((y - body.apex) / (body.base + 0.05 - body.apex), 0, 1)
    outer = body.width * np.sqrt(np.clip(1 - (1 - t) ** 2.5, 0, 1)) * (0.93 + 0.07 * t)
    rim = outer - np.abs(x)
    floor = _floor(x, body)
    inside = edge(rim, 0.010) * edge(np.abs(x) - 0.085, 0.012) * edge(y - body.apex, 0.012) * edge(floor - y, 0.008)
    return inside, rim


def _floor(x: Field, body: _Body) -> Field:
    """Height of the diaphragm: two domes, the patient's right one higher, deepest at the costophrenic angles."""
    bend = ((np.abs(x) - 0.36) / 0.42) ** 2
    return body.base - body.dome + (body.dome + 0.01) * np.clip(bend, 0, 1.3) - 0.022 * edge(-x, 0.03)


def _ribs(side: Field, y: Field, body: _Body) -> Field:
    """Posterior ribs, which fall away from the spine, and fainter anterior ribs, which fall towards it."""
    shade = np.zeros_like(y)
    spacing = (body.base - body.apex) / 8.6
    fall = y - body.apex + 0.03 - 0.40 * side**1.8 + 0.16 * np.sqrt(side)
    rise = y - body.apex - 0.02 - 0.30 * np.clip(0.85 - side, 0, 1) ** 1.5
    front = edge(side - 0.30, 0.06)
    for k in range(10):
        shade += 0.070 * band(fall - k * spacing, 0.014) + 0.035 * band(fall - k * spacing - 0.013, 0.005)
        if 1 <= k <= 6:
            shade += 0.040 * band(rise - k * spacing * 1.02, 0.012) * front
    return shade


def _vessels(canvas: Canvas, side: Field, y: Field, body: _Body, rng: np.random.Generator) -> Field:
    """Hila and the vascular markings that thin out towards the wall."""
    hilum = np.exp(-(((side - 0.17) / 0.09) ** 2) - ((y - body.hila) / 0.085) ** 2)
    reach = np.exp(-(((side - 0.15) / 0.32) ** 2) - ((y - body.hila - 0.06) / 0.26) ** 2)
    return 0.13 * hilum + reach * (0.05 + 0.035 * grain(canvas, 20, rng)) + 0.010 * grain(canvas, 30, rng)


def _lung_findings(canvas: Canvas, f: Findings, x: Field, y: Field, body: _Body, rng: np.random.Generator) -> Field:
    """Added inside of the lungs: diffuse haze (gas exchange), haze at the hila (overload), patches (opacity)."""
    side = np.abs(x)
    fine, patchy = grain(canvas, 22, rng), grain(canvas, 9, rng)
    outer = edge(side - 0.33, 0.06)
    haze = 0.085 * softplus(1.5 * f.gas_exchange + 2.0) / 1.5 * (0.55 + 0.45 * outer) * (1 + 0.20 * fine)
    wings = np.exp(-(((side - 0.22) / 0.16) ** 2) - ((y - body.hila - 0.02) / 0.14) ** 2)
    wings = 0.15 * softplus(1.3 * f.overload + 0.2) * wings * (1 + 0.15 * patchy)
    where = float(rng.choice((-1.0, 1.0)))
    middle, level = 0.48 + rng.normal(0, 0.02), body.base - 0.25 + rng.normal(0, 0.015)
    patch = blob(x - where * middle, y - level, 0.20, 0.10) + 0.5 * blob(
        x + where * middle, y - level - 0.02, 0.17, 0.08
    )
    patch = 0.34 * softplus(2.0 * f.opacity + 1.0) / 2.0 * patch * (1 + 0.30 * patchy)
    return np.minimum(haze + wings + patch, 0.54)


def _pneumothorax(field: Field, shown: float, x: Field, y: Field, lungs: Field, rim: Field, where: float) -> Field:
    """A dark rim without markings around the lung of one side, with the visceral line at its inner border."""
    strength = min(shown, 2.0) / 2.0
    half = edge(where * x, 0.01) * edge(0.66 - y, 0.03) * lungs
    depth = rim - 0.17 - 0.10 * np.clip(0.42 - y, 0, 1)
    empty = half * edge(-depth, 0.008) * strength
    field = field * (1 - 0.88 * empty) + 0.09 * 0.88 * empty
    return field + 0.20 * strength * half * band(depth, 0.009)


def _mediastinum(canvas: Canvas, field: Field, f: Findings, x: Field, y: Field, body: _Body, magnified: float) -> Field:
    """Heart, great vessels, spine and trachea, over the lungs; an AP exposure magnifies the heart."""
    size = float(np.clip(f.heart_size, -2.6, 2.8))
    left, right = (0.37 + 0.088 * size) * magnified, (0.145 + 0.022 * size) * magnified
    tall, middle = 0.185 + 0.012 * size, body.base - 0.125
    slant = x - 0.42 * (y - middle)
    reach = np.where(slant > 0, left, right)
    heart = edge(1 - (np.abs(slant / reach) ** 2.1 + np.abs((y - middle) / tall) ** 2.1), 0.05)

    bulge = float(np.clip(f.aorta, -2.4, 2.4))
    knob_y = body.apex + 0.185
    knob = edge(
        1 - np.hypot((x - 0.125 - 0.022 * bulge) / (0.085 * 1.36**bulge), (y - knob_y) / (0.06 * 1.25**bulge)), 0.10
    )
    descending = edge(0.135 + 0.065 * bulge - x, 0.012) * edge(x, 0.01) * edge(y - knob_y, 0.02)
    ascending = edge(0.11 + 0.045 * bulge + x, 0.012) * edge(-x, 0.01) * edge(y - knob_y + 0.03, 0.03)
    trunk = edge(0.10 + 0.16 * np.clip(0.32 - y, 0, 1) ** 1.3 + 0.02 * np.sin(9 * y + 2 * x) - np.abs(x), 0.016)
    heart = heart * (1 - 0.85 * edge(y - body.base + 0.035, 0.018))
    cover = np.maximum.reduce([0.92 * heart, 0.96 * knob, 0.90 * descending, 0.86 * ascending, 0.90 * trunk])
    cover = cover * edge(y - body.apex + 0.06, 0.03)
    spine = band(x, 0.055) * (0.05 + 0.025 * np.cos(2 * np.pi * y / 0.062))
    tissue = 0.68 + 0.08 * heart + 0.05 * knob + spine + 0.015 * grain(canvas, 8, np.random.default_rng(0))
    field = field * (1 - cover) + tissue * cover
    airway = band(x + 0.008, 0.026) * edge(body.hila - 0.06 - y, 0.02)
    return field - 0.13 * airway


def _effusion(field: Field, shown: float, x: Field, y: Field, lungs: Field, body: _Body, where: float) -> Field:
    """Fluid over the diaphragm with a meniscus that climbs the chest wall; the other side holds half of it."""
    depth = 0.15 * softplus(2.0 * float(np.clip(shown, -3, 2.4)) + 1.6) / 2.0
    amount = np.where(where * x > 0, depth, 0.60 * depth)
    surface = body.base + 0.015 - amount * (0.62 + 0.75 * np.clip(np.abs(x) / 0.8, 0, 1.1) ** 3)
    fluid = lungs * edge(y - surface, 0.016) * np.clip(amount / 0.03, 0, 1)
    return field * (1 - 0.93 * fluid) + 0.72 * 0.93 * fluid


def _clavicles(field: Field, side: Field, y: Field, body: _Body, portable: bool) -> Field:
    """Clavicles from the sternum to the shoulders, and in portable exposures the shoulder blades over the lungs."""
    line = body.apex + 0.115 - (0.025 if portable else 0.0) - 0.21 * np.clip(side - 0.09, 0, 1)
    line = line + 0.022 * np.sin(7 * (side - 0.09))
    along = edge(side - 0.09, 0.015) * edge(0.80 - side, 0.03)
    field = field + along * (0.11 * band(y - line, 0.013) + 0.04 * edge(0.018 - np.abs(y - line), 0.004))
    if portable:
        blade = side - 0.70 - 0.10 * np.sin(5 * (y - 0.2))
        field = field + 0.05 * band(blade, 0.014) * edge(y - 0.20, 0.02) * edge(0.50 - y, 0.03)
    return field


def _pacemaker(field: Field, shown: float, x: Field, y: Field, body: _Body) -> Field:
    """A generator under the left clavicle and its lead into the heart."""
    strength = min(shown, 1.75) / 1.75
    cx, cy = 0.56, body.apex + 0.135
    box = edge(0.115 - np.abs(x - cx), 0.010) * edge(0.058 - np.abs(y - cy), 0.007)
    t = np.clip((y - cy + 0.06) / (body.base - 0.10 - cy + 0.06), 0, 1)
    lead = 0.47 * (1 - t) ** 2.4 + 0.26 * t**3
    wire = band(x - lead, 0.016) * edge(y - cy + 0.055, 0.01) * edge(body.base - 0.09 - y, 0.01)
    field = field * (1 - 0.95 * strength * box) + 0.99 * 0.95 * strength * box
    return field + 0.28 * strength * wire


def _hardware(field: Field, x: Field, y: Field, rng: np.random.Generator) -> Field:
    """What lies on a patient in bed: leads of the monitor and a tube, at random."""
    for _ in range(int(rng.integers(0, 4))):
        start, slope, bow = rng.uniform(-0.9, 0.9), rng.normal(0, 0.5), rng.normal(0, 0.35)
        low, high = np.sort(rng.uniform(0.05, 0.95, 2))
        path = start + slope * (y - low) + bow * np.sin(3 * (y - low))
        field = field + 0.13 * band(x - path, 0.009) * edge(y - low, 0.01) * edge(high - y, 0.01)
        field = field + 0.25 * blob(x - start, y - low, 0.028, 0.018)
    if rng.random() < 0.35:
        field = field + 0.13 * band(x + 0.005, 0.012) * edge(rng.normal(0.33, 0.02) - y, 0.005)
    return field


def _lateral(canvas: Canvas, f: Findings, rng: np.random.Generator) -> Field:
    """A lateral exposure: one lung outline with the spine behind (image right) and the heart in front, low."""
    x, y = canvas.x - rng.normal(0, 0.03), canvas.y
    inflation = float(np.clip(f.hyperinflation, -2.5, 2.5))
    base = 0.80 + 0.03 * inflation
    field = 0.03 + edge(0.92 - np.abs(x + 0.02), 0.02) * edge(y - 0.04 - 0.10 * x**2, 0.02) * (
        0.58 + 0.04 * grain(canvas, 5, rng)
    )
    chest = edge(1 - np.hypot((x - 0.02) / 0.68, (y - 0.50) / 0.40), 0.03) * edge(
        base - 0.10 * (x + 0.3) + 0.14 * x**2 - y, 0.012
    )
    lung = 0.26 - 0.02 * inflation + 0.06 * softplus(f.gas_exchange) + 0.02 * grain(canvas, 18, rng)
    field = field * (1 - chest) + lung * chest
    for k in range(8):
        field = field + 0.045 * chest * band(y - 0.14 - 0.075 * k - 0.16 * (0.5 - x) ** 2 * np.sign(0.5 - x), 0.012)
    heart = edge(
        1 - np.hypot((x + 0.24 - 0.5 * (y - base + 0.15)) / (0.33 + 0.06 * f.heart_size), (y - base + 0.15) / 0.20),
        0.10,
    )
    heart = heart * edge(base - 0.02 - y, 0.03)
    field = field * (1 - 0.85 * heart) + 0.66 * 0.85 * heart
    spine = band(x - 0.50 + 0.25 * (y - 0.5) ** 2, 0.09) * edge(y - 0.08, 0.02)
    field = field + 0.20 * spine * (0.75 + 0.25 * np.cos(2 * np.pi * y / 0.075)) * (1 - 0.4 * y)
    level = base - 0.09 * softplus(1.5 * f.effusion - 0.4) * (0.7 + 0.5 * np.clip(x, 0, 1))
    fluid = chest * edge(y - level, 0.016) * edge(x - 0.05, 0.1)
    field = field * (1 - 0.9 * fluid) + 0.68 * 0.9 * fluid
    return np.asarray(field + 0.10 * softplus(2.0 * f.opacity + 1.6) * chest * blob(x - 0.2, y - base + 0.2, 0.2, 0.1))


def _expose(canvas: Canvas, field: Field, view: View, rng: np.random.Generator) -> Pixels:
    """Exposure, contrast, unevenness, grain, collimation and a side marker; then 8 bits."""
    field = np.clip(field, 0, 1) ** (1 + rng.normal(0, 0.03))
    field = field * (1 + rng.normal(0, 0.02)) + rng.normal(0, 0.008)
    field = field + 0.015 * grain(canvas, 3, rng)
    noise = 0.022 if view == "AP" else 0.013
    field = field + noise * rng.standard_normal(field.shape, dtype=np.float32)
    if rng.random() < 0.30:  # collimation: a black strip at one edge
        strip = rng.uniform(0.02, 0.05)
        edge_of = int(rng.integers(3))
        field = field * (
            canvas.v > strip if edge_of == 0 else canvas.u > strip if edge_of == 1 else canvas.u < 1 - strip
        )
    if rng.random() < 0.7:  # the marker of the patient's left side
        mx, my = 0.90 + rng.normal(0, 0.02), 0.10 + rng.normal(0, 0.02)
        mark = (np.abs(canvas.u - mx) < 0.014) & (np.abs(canvas.v - my) < 0.03)
        mark |= (np.abs(canvas.u - mx - 0.016) < 0.026) & (np.abs(canvas.v - my - 0.025) < 0.010)
        field = np.where(mark, 0.96, field)
    return np.asarray(np.clip(np.rint(255 * field), 0, 255), dtype=np.uint8)
