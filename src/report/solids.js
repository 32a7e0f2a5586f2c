// Solids that can be turned, drawn without WebGL. Every pixel keeps the depths of all surfaces above
// it, so that what is inside one solid and outside the other can be shown exactly.

/** The view of the input pictures: from (1, -1, 1), with z up. */
const START = { turn: -Math.PI / 4, tilt: Math.asin(1 / Math.sqrt(3)), zoom: 1 };

const MODES = [
  ['both', 'Both'],
  ['true', 'True'],
  ['built', 'Built'],
  ['difference', 'Difference'],
];

const PAINTS = {
  light: {
    true: [92, 142, 196],
    built: [221, 140, 60],
    same: [150, 153, 157],
    missing: [38, 108, 190],
    extra: [206, 84, 28],
    edge: [20, 22, 25],
  },
  dark: {
    true: [126, 176, 232],
    built: [240, 168, 92],
    same: [168, 172, 178],
    missing: [110, 170, 245],
    extra: [244, 132, 76],
    edge: [8, 9, 11],
  },
};

/** The numbers of a packed solid. */
function unpacked(solid) {
  const numbers = text => new Uint16Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
  const places = numbers(solid.vertices),
    points = new Float64Array(places.length);
  for (let i = 0; i < places.length; i++) points[i] = solid.low[i % 3] + solid.step * places[i];
  return { points, triangles: numbers(solid.triangles), edges: numbers(solid.edges) };
}

/** Centre and radius of a ball around solids. */
function surroundings(solids) {
  const low = [Infinity, Infinity, Infinity],
    high = [-Infinity, -Infinity, -Infinity];
  for (const { points } of solids) {
    for (let i = 0; i < points.length; i++) {
      low[i % 3] = Math.min(low[i % 3], points[i]);
      high[i % 3] = Math.max(high[i % 3], points[i]);
    }
  }
  return {
    center: low.map((value, axis) => (value + high[axis]) / 2),
    radius: Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2 || 1,
  };
}

/** The surfaces above the pixels of the picture that is being drawn: one linked list a pixel. */
const surfaces = {
  count: 0,
  head: new Int32Array(0),
  next: new Int32Array(1 << 16),
  depth: new Float32Array(1 << 16),
  kind: new Uint8Array(1 << 16),
  shade: new Uint8Array(1 << 16),
  clear(pixels) {
    if (this.head.length < pixels) this.head = new Int32Array(pixels);
    this.head.fill(-1, 0, pixels);
    this.count = 0;
  },
  add(pixel, depth, kind, shade) {
    if (this.count === this.next.length) {
      for (const name of ['next', 'depth', 'kind', 'shade']) {
        const longer = new this[name].constructor(2 * this.count);
        longer.set(this[name]);
        this[name] = longer;
      }
    }
    this.next[this.count] = this.head[pixel];
    this.depth[this.count] = depth;
    this.kind[this.count] = kind;
    this.shade[this.count] = shade;
    this.head[pixel] = this.count++;
  },
};

/** Points in pixels, in sixteenths, and their depths towards the viewer. */
function projected(points, { turn, tilt, zoom }, { center, radius }, width, height) {
  const [sa, ca, se, ce] = [Math.sin(turn), Math.cos(turn), Math.sin(tilt), Math.cos(tilt)];
  const scale = (0.48 * zoom * Math.min(width, height)) / radius,
    count = points.length / 3;
  const x = new Float64Array(count),
    y = new Float64Array(count),
    z = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const [a, b, c] = [points[3 * i] - center[0], points[3 * i + 1] - center[1], points[3 * i + 2] - center[2]];
    x[i] = Math.round(16 * (width / 2 + scale * (ca * b - sa * a)));
    y[i] = Math.round(16 * (height / 2 - scale * (ce * c - se * (ca * a + sa * b))));
    z[i] = (ce * (ca * a + sa * b) + se * c) / radius;
  }
  return { x, y, z };
}

const BUILT = 1,
  FRONT = 2;

/** Adds the triangles of a solid. A pixel belongs to one of two triangles that share a side (the top-left rule). */
function addTriangles(solid, { x, y, z }, kind, width, height) {
  for (let t = 0; t < solid.triangles.length; t += 3) {
    let [a, b, c] = [solid.triangles[t], solid.triangles[t + 1], solid.triangles[t + 2]];
    let area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a]);
    if (area === 0) continue;
    const isFront = area < 0;
    if (isFront) {
      [b, c] = [c, b];
      area = -area;
    }
    // The light comes from the viewer: a face is as light as it is large in the picture.
    const nx = (y[b] - y[a]) * (z[c] - z[a]) - (z[b] - z[a]) * (y[c] - y[a]);
    const ny = (z[b] - z[a]) * (x[c] - x[a]) - (x[b] - x[a]) * (z[c] - z[a]);
    const perDepth = 16 * 0.48 * Math.min(width, height);
    const facing = area / Math.hypot(nx * perDepth, ny * perDepth, area);
    const shade = Math.round(255 * (0.42 + 0.58 * facing));
    const sides = [
      [b, c],
      [c, a],
      [a, b],
    ].map(([from, to]) => {
      const [dx, dy] = [x[to] - x[from], y[to] - y[from]];
      return { from, dx, dy, least: dy < 0 || (dy === 0 && dx > 0) ? 0 : 1 };
    });
    const first = values => Math.floor((Math.min(...values) - 8) / 16),
      last = values => Math.ceil((Math.max(...values) - 8) / 16);
    const [xs, ys] = [
      [x[a], x[b], x[c]],
      [y[a], y[b], y[c]],
    ];
    const [left, right] = [Math.max(0, first(xs)), Math.min(width - 1, last(xs))];
    const [top, bottom] = [Math.max(0, first(ys)), Math.min(height - 1, last(ys))];
    const [s0, s1, s2] = sides;
    const flags = kind | (isFront ? FRONT : 0);
    for (let row = top; row <= bottom; row++) {
      const [px, py] = [16 * left + 8, 16 * row + 8];
      let w0 = s0.dx * (py - y[s0.from]) - s0.dy * (px - x[s0.from]);
      let w1 = s1.dx * (py - y[s1.from]) - s1.dy * (px - x[s1.from]);
      let w2 = s2.dx * (py - y[s2.from]) - s2.dy * (px - x[s2.from]);
      let wasInside = false;
      for (let column = left; column <= right; column++) {
        if (w0 >= s0.least && w1 >= s1.least && w2 >= s2.least) {
          wasInside = true;
          surfaces.add(row * width + column, (w0 * z[a] + w1 * z[b] + w2 * z[c]) / area, flags, shade);
        } else if (wasInside) break;
        w0 -= 16 * s0.dy;
        w1 -= 16 * s1.dy;
        w2 -= 16 * s2.dy;
      }
    }
  }
}

/** Surfaces nearer to each other than this, in radii, are one. */
const NEAR = 2e-3;

/** Paints every pixel from front to back. Returns the depth of what is seen first. */
function paintSurfaces(pixels, width, height, mode, paints) {
  const seen = new Float32Array(width * height).fill(-Infinity);
  const list = new Int32Array(256);
  const { head, next, depth, kind, shade } = surfaces;
  for (let pixel = 0; pixel < width * height; pixel++) {
    let count = 0;
    for (let at = head[pixel]; at >= 0 && count < 256; at = next[at]) {
      let place = count++;
      for (; place > 0 && depth[list[place - 1]] < depth[at]; place--) list[place] = list[place - 1];
      list[place] = at;
    }
    let red = 0,
      green = 0,
      blue = 0,
      through = 1,
      inTrue = 0,
      inBuilt = 0,
      before = null,
      isGhosted = false;
    for (let i = 0; i < count && through > 0.04;) {
      const z = depth[list[i]],
        light = shade[list[i]] / 255;
      let entersTrue = false,
        entersBuilt = false,
        toTrue = 0,
        toBuilt = 0;
      for (; i < count && z - depth[list[i]] <= NEAR; i++) {
        const flags = kind[list[i]],
          step = flags & FRONT ? 1 : -1;
        if (flags & BUILT) {
          toBuilt += step;
          entersBuilt ||= step > 0 && inBuilt <= 0;
        } else {
          toTrue += step;
          entersTrue ||= step > 0 && inTrue <= 0;
        }
      }
      inTrue += toTrue;
      inBuilt += toBuilt;
      let paint = null,
        opacity = 1;
      if (mode === 'true') paint = entersTrue ? paints.true : null;
      else if (mode === 'built') paint = entersBuilt ? paints.built : null;
      else if (mode === 'both') {
        paint = entersTrue && entersBuilt ? paints.same : entersTrue ? paints.true : entersBuilt ? paints.built : null;
        opacity = entersTrue && entersBuilt ? 0.85 : 0.55;
      } else {
        const now = inTrue > 0 ? (inBuilt > 0 ? 'same' : 'missing') : inBuilt > 0 ? 'extra' : null;
        if (now !== before && (now === 'missing' || now === 'extra')) paint = paints[now];
        else if (now === 'same' && !isGhosted) {
          paint = paints.same;
          opacity = 0.22;
          isGhosted = true;
        }
        before = now;
      }
      if (!paint) continue;
      const weight = through * opacity * light;
      red += weight * paint[0];
      green += weight * paint[1];
      blue += weight * paint[2];
      if (seen[pixel] === -Infinity && opacity > 0.5) seen[pixel] = z;
      through *= 1 - opacity;
    }
    const covered = 1 - through;
    if (covered > 0) pixels.set([red / covered, green / covered, blue / covered, 255 * covered], 4 * pixel);
  }
  return seen;
}

/** Draws the edges of a solid where nothing is in front of them, and, if `isBound`, only on what is seen. */
function paintEdges(pixels, seen, solid, { x, y, z }, width, height, paint, thickness, isBound) {
  for (let e = 0; e < solid.edges.length; e += 2) {
    const [a, b] = [solid.edges[e], solid.edges[e + 1]];
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(x[b] - x[a]), Math.abs(y[b] - y[a])) / 16));
    for (let k = 0; k <= steps; k++) {
      const share = k / steps,
        depth = z[a] + share * (z[b] - z[a]) + 0.012;
      const [column, row] = [
        Math.floor((x[a] + share * (x[b] - x[a])) / 16),
        Math.floor((y[a] + share * (y[b] - y[a])) / 16),
      ];
      for (let i = 0; i < thickness * thickness; i++) {
        const [px, py] = [column + (i % thickness), row + Math.floor(i / thickness)];
        if (px < 0 || py < 0 || px >= width || py >= height) continue;
        const front = seen[py * width + px];
        if (depth < front || (isBound && depth > front + 0.024)) continue;
        pixels.set([...paint, 255], 4 * (py * width + px));
      }
    }
  }
}

/** Draws `solids` (`{true, built}`, unpacked; one may be null) to a canvas at `scale` pixels a unit of its size. */
function drawSolids(canvas, solids, mode, view, scale) {
  const width = Math.max(16, Math.round(canvas.clientWidth * scale)),
    height = Math.max(16, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const around = surroundings([solids.true, solids.built].filter(Boolean));
  const paints = PAINTS[document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light'];
  const shown = [
    ['true', 0],
    ['built', BUILT],
  ].filter(([name]) => solids[name] && (mode === name || mode === 'both' || mode === 'difference'));
  const places = shown.map(([name]) => projected(solids[name].points, view, around, width, height));
  surfaces.clear(width * height);
  shown.forEach(([name, kind], index) => addTriangles(solids[name], places[index], kind, width, height));
  const image = new ImageData(width, height);
  const seen = paintSurfaces(image.data, width, height, mode, paints);
  const thickness = Math.max(1, Math.round(scale));
  shown.forEach(([name], index) =>
    paintEdges(
      image.data,
      seen,
      solids[name],
      places[index],
      width,
      height,
      paints.edge,
      thickness,
      mode === 'difference',
    ),
  );
  // Nothing is drawn by the GPU.
  canvas.getContext('2d', { willReadFrequently: true }).putImageData(image, 0, 0);
}
