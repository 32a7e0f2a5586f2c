// The data, and how elements are made of it. Texts of runs reach the page through text nodes only.

const data = JSON.parse(document.getElementById('data').textContent);

/** An element. `attributes` sets attributes, or a listener for `onname`; children are nodes or texts. */
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same, of a drawing. */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/** A number with as many digits as `digits` says. */
function fixed(number, digits = 3) {
  return typeof number === 'number' && isFinite(number) ? number.toFixed(digits) : '-';
}

/** A number of any size in four digits. */
function brief(number) {
  if (typeof number !== 'number' || !isFinite(number)) return 'not a number';
  const size = Math.abs(number);
  return number === 0
    ? '0'
    : size >= 1e5 || size < 1e-3
      ? number.toExponential(2)
      : String(Number(number.toPrecision(4)));
}

function signed(number, digits = 3) {
  return (number >= 0 ? '+' : '') + fixed(number, digits);
}

/** `0.345 [0.320, 0.371]` */
function interval({ mean, ci95: [low, high] }) {
  return `${fixed(mean)} [${fixed(low)}, ${fixed(high)}]`;
}

function signedInterval({ mean, ci95: [low, high] }) {
  return `${signed(mean)} [${signed(low)}, ${signed(high)}]`;
}

/** `1:15`, `1:02:05` */
function duration(seconds) {
  const whole = Math.round(seconds),
    two = number => String(number).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return (hours ? `${hours}:${two(minutes)}` : String(minutes)) + `:${two(whole % 60)}`;
}

/** The colour of the policy or run with a number, as a style. */
function colour(number) {
  return `var(--s${number % 8})`;
}

function swatch(paint) {
  return el('span', { class: 'swatch', style: `background:${paint}`, 'aria-hidden': 'true' });
}

/** A section with its entry in the contents. */
function section(id, title, ...children) {
  document.getElementById('contents').append(el('a', { href: `#${id}` }, title));
  document.getElementById('main').append(el('section', { id, 'aria-label': title }, el('h2', {}, title), ...children));
}

/** A table in a box that scrolls. `head` has names; a name that ends with `#` is of numbers. */
function table(head, rows) {
  const kind = name => ({ class: name.endsWith('#') ? 'number' : null });
  const titles = head.map(name => el('th', { ...kind(name), scope: 'col' }, name.replace(/#$/, '')));
  const body = rows.map(row =>
    el(
      'tr',
      {},
      row.map((cell, column) => (column === 0 ? el('th', { scope: 'row' }, cell) : el('td', kind(head[column]), cell))),
    ),
  );
  return el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr', {}, titles)), el('tbody', {}, body)));
}

/** Light or dark: as the system is, until the button says otherwise. */
function startTheme() {
  const system = matchMedia('(prefers-color-scheme: dark)');
  let chosen = null;
  // A page from a file may have no storage.
  try {
    chosen = localStorage.getItem('cadwright-theme');
  } catch {
    chosen = null;
  }
  const show = () => {
    document.documentElement.dataset.theme = chosen ?? (system.matches ? 'dark' : 'light');
    document.dispatchEvent(new Event('theme'));
  };
  system.addEventListener('change', show);
  document.getElementById('theme').addEventListener('click', () => {
    chosen = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    try {
      localStorage.setItem('cadwright-theme', chosen);
    } catch {
      /* It then holds for this view. */
    }
    show();
  });
  show();
}
