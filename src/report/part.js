// The view of one part.

const opened = { place: 0, policy: 0, mode: 'both', viewer: null };

/** Opens the part at a place of the gallery. */
function openPart(place) {
  Object.assign(opened, { place, policy: gallery.policy });
  opened.viewer ??= viewer();
  const dialog = document.getElementById('part');
  if (!dialog.open) dialog.showModal();
  showPart();
}

function step(by) {
  opened.place = Math.max(0, Math.min(gallery.shown.length - 1, opened.place + by));
  showPart();
}

/** Buttons of which one is pressed. */
function pressed(label, options, current, act) {
  return el(
    'div',
    { class: 'buttons', role: 'group', 'aria-label': label },
    options.map(([value, text, isOff]) =>
      el(
        'button',
        {
          type: 'button',
          'data-value': value,
          'aria-pressed': String(value === current),
          disabled: isOff,
          onclick: () => act(value),
        },
        text,
      ),
    ),
  );
}

function scoresOf(part, result) {
  const rows = [
    ['Outcome', result.outcome],
    ['IoU', fixed(result.iou, 4)],
  ];
  for (const [frame, value] of Object.entries(result.ious ?? {})) {
    if (frame !== data.frame) rows.push([`IoU, ${frame}`, value === null ? '-' : fixed(value, 4)]);
  }
  for (const other of part.results) {
    if (other.policy !== result.policy)
      rows.push([
        `IoU of ${data.policies[other.policy].label}`,
        [fixed(other.iou, 4), changeNode(result.iou - other.iou)],
      ]);
  }
  const size = solid => (solid ? solid.size.map(value => brief(value)).join(' x ') : '-');
  rows.push([
    'Volume, built / true',
    `${result.solid ? brief(result.solid.volume) : '-'} / ${part.solid ? brief(part.solid.volume) : '-'}`,
  ]);
  rows.push(['Size, built', size(result.solid)], ['Size, true', size(part.solid)]);
  const told = value =>
    typeof value === 'number'
      ? brief(value)
      : Array.isArray(value)
        ? value.map(told).join(', ')
        : typeof value === 'object'
          ? Object.entries(value)
              .map(([name, inner]) => `${name} ${told(inner)}`)
              .join(', ')
          : String(value);
  for (const [name, value] of Object.entries(result.more)) rows.push([name.replaceAll('_', ' '), told(value)]);
  if (result.error) rows.push(['Message', result.error]);
  return table(['Score', 'Value'], rows);
}

function programs(part, result) {
  const other = part.program === null ? part.results.find(candidate => candidate.policy !== result.policy) : null;
  const [reference, name] =
    part.program !== null
      ? [part.program, 'True program']
      : other
        ? [other.program, `Program of ${data.policies[other.policy].label}`]
        : [null, ''];
  if (reference === null) return [el('h3', {}, 'Program'), el('pre', { tabindex: 0 }, result.program)];
  const [left, right] = difference(reference, result.program);
  return [
    el(
      'div',
      { class: 'diff' },
      el('div', {}, el('h3', {}, name), left),
      el('div', {}, el('h3', {}, `Program of ${data.policies[result.policy].label}`), right),
    ),
  ];
}

function showPart() {
  const part = gallery.shown[opened.place];
  const result = resultOf(part, opened.policy) ?? part.results[0];
  opened.policy = result.policy;
  const isMode = {
    both: part.solid && result.solid,
    true: part.solid,
    built: result.solid,
    difference: part.solid && result.solid,
  };
  const mode = isMode[opened.mode] ? opened.mode : ['built', 'true'].find(name => isMode[name]);
  const { canvas, show, reset } = opened.viewer;
  const legend = {
    both: 'Blue: true. Orange: built. Grey: both.',
    difference: 'Blue: missing. Orange: too much. Faint grey: right.',
    true: 'The true part.',
    built: 'What the program builds.',
  }[mode];
  const coarse = [part.solid, result.solid].some(solid => solid?.coarse);
  const solid = mode
    ? [
        canvas,
        pressed(
          'What is shown',
          MODES.map(([name, text]) => [name, text, !isMode[name]]),
          mode,
          name => {
            opened.mode = name;
            showPart();
          },
        ),
        el(
          'p',
          { class: 'faint' },
          `${legend} Drag or use the arrow keys to turn, the wheel or + and - to zoom. `,
          coarse ? 'Corners are coarser than in the run. ' : '',
          el('button', { type: 'button', onclick: reset }, 'Reset the view'),
        ),
      ]
    : [el('p', { class: 'none' }, 'There is no solid to show.')];
  const focused = document.activeElement,
    dialog = document.getElementById('part');
  dialog.replaceChildren(
    el(
      'div',
      { class: 'top' },
      el('h2', { id: 'part-title' }, part.id),
      el('span', { class: 'faint' }, `${opened.place + 1} of ${gallery.shown.length}`),
      el(
        'button',
        { type: 'button', id: 'previous', disabled: opened.place === 0, onclick: () => step(-1) },
        'Previous (p)',
      ),
      el(
        'button',
        { type: 'button', id: 'next', disabled: opened.place === gallery.shown.length - 1, onclick: () => step(1) },
        'Next (n)',
      ),
      el(
        'button',
        { type: 'button', id: 'close', onclick: () => document.getElementById('part').close() },
        'Close (Esc)',
      ),
    ),
    pressed(
      'Policy',
      part.results.map(({ policy, iou }) => [policy, `${data.policies[policy].label}: ${fixed(iou)}`]),
      result.policy,
      policy => {
        opened.policy = policy;
        showPart();
      },
    ),
    el(
      'div',
      { class: 'look' },
      el(
        'div',
        {},
        el('h3', {}, 'Input'),
        part.picture
          ? el('img', { src: part.picture, alt: 'The input picture' })
          : el('p', { class: 'none' }, 'no picture'),
      ),
      el('div', {}, el('h3', {}, 'Solids'), solid),
      el('div', {}, el('h3', {}, 'Scores'), scoresOf(part, result)),
    ),
    ...programs(part, result),
  );
  if (mode)
    show(
      { true: part.solid && unpacked(part.solid), built: result.solid && unpacked(result.solid) },
      mode,
      `Solids of ${part.id}: ${mode}. ${legend}`,
    );
  // The buttons are new ones. Keys reach the dialog only while something in it has the focus.
  const again =
    focused.id && focused !== dialog
      ? `#${focused.id}:enabled`
      : focused.dataset.value
        ? `[data-value="${CSS.escape(focused.dataset.value)}"]:enabled`
        : null;
  ((again && dialog.querySelector(again)) || (mode ? canvas : document.getElementById('close'))).focus();
}

document.getElementById('part').addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'n') step(1);
  else if (event.key === 'p') step(-1);
});
