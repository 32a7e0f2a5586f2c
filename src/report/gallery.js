// The gallery of parts.

const gallery = {
  policy: Math.max(0, data.policies.length - 1),
  base: 0,
  sort: 'data',
  outcome: '',
  text: '',
  shown: [],
};

function resultOf(part, policy) {
  return part.results.find(result => result.policy === policy);
}

/** IoU of the chosen policy minus that of the one it is compared with. */
function change(part) {
  const [now, before] = [resultOf(part, gallery.policy), resultOf(part, gallery.base)];
  return now && before && gallery.policy !== gallery.base ? now.iou - before.iou : null;
}

const SORTS = {
  data: ['in the order of the data', null],
  best: ['IoU, best first', part => -(resultOf(part, gallery.policy)?.iou ?? -1)],
  worst: ['IoU, worst first', part => resultOf(part, gallery.policy)?.iou ?? 2],
  gains: ['largest gain first', part => -(change(part) ?? -2)],
  losses: ['largest loss first', part => change(part) ?? 2],
};

function changeNode(value) {
  return value === null
    ? null
    : el('span', { class: value >= 5e-4 ? 'up' : value <= -5e-4 ? 'down' : 'faint' }, ` ${signed(value)}`);
}

/** Draws canvases when they come into view, and all of them before the page is printed. */
const pending = new Map();
const watcher = new IntersectionObserver(
  entries => entries.filter(entry => entry.isIntersecting).forEach(entry => drawPending(entry.target)),
  { rootMargin: '200px' },
);

function drawPending(canvas) {
  const draw = pending.get(canvas);
  if (!draw) return;
  pending.delete(canvas);
  watcher.unobserve(canvas);
  draw();
}

function thumbnail(result) {
  const canvas = el('canvas', { 'aria-hidden': 'true' });
  const draw = () => {
    drawSolids(
      canvas,
      { true: null, built: unpacked(result.solid) },
      'built',
      START,
      Math.min(2, devicePixelRatio || 1),
    );
  };
  pending.set(canvas, draw);
  watcher.observe(canvas);
  return canvas;
}

function card(part, place) {
  const result = resultOf(part, gallery.policy);
  const input = part.picture
    ? el('img', { src: part.picture, alt: '', loading: 'lazy' })
    : el('span', { class: 'none' }, 'no picture');
  const built = result?.solid
    ? thumbnail(result)
    : el(
        'span',
        { class: 'none' },
        result ? (result.outcome === 'solid' ? 'no solid here' : result.outcome) : 'not evaluated',
      );
  const score = result ? `IoU ${fixed(result.iou)}` : 'no result';
  const text = el(
    'span',
    {},
    el('strong', {}, score),
    changeNode(change(part)),
    result && result.outcome !== 'solid' ? ` ${result.outcome}` : null,
  );
  return el(
    'li',
    {},
    el(
      'button',
      {
        class: 'card',
        type: 'button',
        'data-part': part.id,
        'data-iou': result?.iou,
        'data-outcome': result?.outcome,
        'aria-label': `${part.id}: ${score}, ${result?.outcome ?? ''}`,
        onclick: () => openPart(place),
      },
      el('span', { class: 'pictures' }, input, built),
      el('span', { class: 'name' }, part.id),
      text,
    ),
  );
}

/** Shows the parts that the controls choose. */
function refresh() {
  const [, key] = SORTS[gallery.sort];
  const isShown = part =>
    (!gallery.outcome || resultOf(part, gallery.policy)?.outcome === gallery.outcome) &&
    part.id.toLowerCase().includes(gallery.text.toLowerCase());
  gallery.shown = data.parts.filter(isShown);
  if (key) gallery.shown.sort((a, b) => key(a) - key(b));
  for (const canvas of pending.keys()) watcher.unobserve(canvas);
  pending.clear();
  document.getElementById('cards').replaceChildren(...gallery.shown.map(card));
  document.getElementById('count').textContent = `${gallery.shown.length} of ${data.parts.length} parts`;
}

function choice(id, label, options, name, parse = value => value) {
  const select = el(
    'select',
    {
      id,
      onchange: event => {
        gallery[name] = parse(event.target.value);
        refresh();
      },
    },
    options.map(([value, text]) => el('option', { value, selected: String(gallery[name]) === String(value) }, text)),
  );
  return el('label', { for: id }, label, select);
}

function parts() {
  if (!data.parts.length) {
    section('parts', 'Parts', el('p', {}, data.parts_total ? 'The gallery was left out.' : 'No part was evaluated.'));
    return;
  }
  const policies = data.policies.map((policy, number) => [number, policy.label]);
  const search = el('input', {
    id: 'search',
    type: 'search',
    oninput: event => {
      gallery.text = event.target.value;
      refresh();
    },
  });
  section(
    'parts',
    'Parts',
    el(
      'p',
      { class: 'faint' },
      (data.parts.length < data.parts_total
        ? `${data.parts.length} of ${data.parts_total} parts, evenly over the IoU of the last policy. `
        : '') + 'Choose a part to turn it, and to compare its programs.',
    ),
    el(
      'div',
      { class: 'controls' },
      choice('policy', 'Policy', policies, 'policy', Number),
      policies.length > 1 && choice('base', 'Change from', policies, 'base', Number),
      choice(
        'sort',
        'Sort by',
        Object.entries(SORTS).map(([value, [text]]) => [value, text]),
        'sort',
      ),
      choice('outcome', 'Outcome', [['', 'all'], ...outcomeNames().map(name => [name, name])], 'outcome'),
      el('label', { for: 'search' }, 'Part', search),
      el('output', { id: 'count', 'aria-live': 'polite' }),
    ),
    el('ul', { class: 'gallery', id: 'cards' }),
  );
  refresh();
  document.addEventListener('theme', refresh);
  addEventListener('beforeprint', () => [...pending.keys()].forEach(drawPending));
}
