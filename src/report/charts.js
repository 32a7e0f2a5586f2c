// Charts: lines over steps, and distributions. The value at the pointer, or at the cursor that the
// arrow keys move, is written below the chart.

const PLOT = { width: 360, height: 190, left: 46, right: 8, top: 8, bottom: 24 };

/** Round numbers between two, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / count,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

/** Scales and axes of a chart over `[x0, x1]` and `[y0, y1]`. */
function axes([x0, x1], [y0, y1]) {
  if (x1 <= x0) x1 = x0 + 1;
  if (y1 <= y0) [y0, y1] = [y0 - 0.5 * Math.abs(y0 || 1), y1 + 0.5 * Math.abs(y1 || 1)];
  const { width, height, left, right, top, bottom } = PLOT;
  const x = value => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = value => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
  const marks = [
    ...ticks(y0, y1, 4).flatMap(value => [
      svg('line', { class: 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg('text', { x: left - 4, y: y(value) + 4, 'text-anchor': 'end' }, brief(value)),
    ]),
    ...ticks(x0, x1, 5).map(value =>
      svg('text', { x: x(value), y: height - 8, 'text-anchor': 'middle' }, brief(value)),
    ),
  ];
  return { x, y, marks };
}

/**
 * A chart with a cursor. `places` are the values of x where the cursor stops, `told` says what is
 * there.
 */
function chart(title, description, places, scale, drawn, told) {
  const cursor = svg('line', {
    y1: PLOT.top,
    y2: PLOT.height - PLOT.bottom,
    stroke: 'currentColor',
    'stroke-dasharray': '2 2',
    visibility: 'hidden',
  });
  const output = el('output', { 'aria-live': 'polite' });
  const picture = svg(
    'svg',
    { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: 'img', tabindex: 0, 'aria-label': `${title}. ${description}` },
    ...scale.marks,
    ...drawn,
    cursor,
  );
  let at = -1;
  const show = index => {
    if (!places.length) return;
    at = Math.max(0, Math.min(places.length - 1, index));
    const place = scale.x(places[at]);
    for (const [name, value] of [
      ['x1', place],
      ['x2', place],
      ['visibility', 'visible'],
    ])
      cursor.setAttribute(name, value);
    output.textContent = told(places[at]);
  };
  picture.addEventListener('pointermove', event => {
    const box = picture.getBoundingClientRect();
    const pointer = ((event.clientX - box.left) / box.width) * PLOT.width;
    let nearest = 0;
    places.forEach((place, index) => {
      if (Math.abs(scale.x(place) - pointer) < Math.abs(scale.x(places[nearest]) - pointer)) nearest = index;
    });
    show(nearest);
  });
  picture.addEventListener('keydown', event => {
    const move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(at + move);
  });
  return el('figure', {}, el('figcaption', {}, title), picture, output);
}

/** Lines over steps: `lines` has `{label, paint, steps, values}`; a value may be null. */
function lineChart(title, lines) {
  const finite = lines.flatMap(line => line.values).filter(value => value !== null);
  const steps = [...new Set(lines.flatMap(line => line.steps))].sort((a, b) => a - b);
  if (!finite.length)
    return el('figure', {}, el('figcaption', {}, title), el('p', { class: 'faint' }, 'No finite value.'));
  const scale = axes([steps[0], steps[steps.length - 1]], [Math.min(...finite), Math.max(...finite)]);
  const drawn = lines.flatMap(line => {
    let path = '',
      pen = 'M';
    line.steps.forEach((step, index) => {
      if (line.values[index] === null) pen = 'M';
      else {
        path += `${pen}${scale.x(step).toFixed(1)} ${scale.y(line.values[index]).toFixed(1)}`;
        pen = 'L';
      }
    });
    const shape = svg('path', {
      d: path,
      fill: 'none',
      stroke: line.paint,
      'stroke-width': 1.6,
      'stroke-linejoin': 'round',
    });
    // A line of one or two points would be hard to see.
    const dots =
      line.steps.length > 30
        ? []
        : line.steps.map((step, index) =>
            line.values[index] === null
              ? null
              : svg('circle', { cx: scale.x(step), cy: scale.y(line.values[index]), r: 2.4, fill: line.paint }),
          );
    return [shape, ...dots];
  });
  const told = step =>
    `step ${step}: ` +
    lines
      .map(line => {
        let nearest = 0;
        line.steps.forEach((other, index) => {
          if (Math.abs(other - step) < Math.abs(line.steps[nearest] - step)) nearest = index;
        });
        const value = line.values[nearest];
        const where = line.steps[nearest] === step ? '' : ` (step ${line.steps[nearest]})`;
        return `${lines.length > 1 ? line.label + ' ' : ''}${value === null ? 'not finite' : brief(value)}${where}`;
      })
      .join(', ');
  const ends = lines.map(
    line => `${line.label}: from ${brief(line.values[0])} to ${brief(line.values[line.values.length - 1])}`,
  );
  return chart(title, ends.join('; '), steps, scale, drawn, told);
}

/** Shares of values in [0, 1] in 20 equal bins: `sets` has `{label, paint, values}`. */
function distribution(title, sets) {
  const BINS = 20;
  const shares = sets.map(set => {
    const counts = new Array(BINS).fill(0);
    for (const value of set.values) counts[Math.max(0, Math.min(BINS - 1, Math.floor(value * BINS)))]++;
    return counts.map(count => count / Math.max(1, set.values.length));
  });
  const scale = axes([0, 1], [0, Math.max(0.05, ...shares.flat())]);
  const drawn = sets.flatMap((set, number) => {
    let path = `M${scale.x(0)} ${scale.y(0)}`;
    shares[number].forEach((share, bin) => {
      path += `L${scale.x(bin / BINS)} ${scale.y(share)}L${scale.x((bin + 1) / BINS)} ${scale.y(share)}`;
    });
    path += `L${scale.x(1)} ${scale.y(0)}Z`;
    return [svg('path', { d: path, fill: set.paint, 'fill-opacity': 0.14, stroke: set.paint, 'stroke-width': 1.6 })];
  });
  const told = middle => {
    const bin = Math.floor(middle * BINS);
    const parts = sets.map((set, number) => `${set.label} ${(100 * shares[number][bin]).toFixed(1)} %`);
    return `IoU ${fixed(bin / BINS, 2)} to ${fixed((bin + 1) / BINS, 2)}: ${parts.join(', ')}`;
  };
  const places = shares.length ? Array.from({ length: BINS }, (_, bin) => (bin + 0.5) / BINS) : [];
  const described = sets.map(set => `${set.label}: ${set.values.length} parts`).join('; ');
  return chart(title, described, places, scale, drawn, told);
}

/** A mean with its interval on a line from 0 to 1. */
function whisker({ mean, ci95: [low, high] }, paint) {
  const x = value => 4 + 112 * Math.max(0, Math.min(1, value));
  return svg(
    'svg',
    { viewBox: '0 0 120 16', width: 120, height: 16, 'aria-hidden': 'true' },
    svg('line', { x1: 4, x2: 116, y1: 8, y2: 8, class: 'grid' }),
    svg('line', { x1: x(low), x2: x(high), y1: 8, y2: 8, stroke: paint, 'stroke-width': 3 }),
    svg('circle', { cx: x(mean), cy: 8, r: 4, fill: paint }),
  );
}
