// A picture of solids that a reader turns.

/** A canvas that is turned by pointer and keys. Returns it with `show(solids, mode)`. */
function viewer() {
  const view = { ...START };
  let solids = null,
    mode = 'both',
    waiting = false,
    settle = 0;
  const canvas = el('canvas', { tabindex: 0, role: 'img' });
  const draw = scale => {
    if (solids && canvas.isConnected && canvas.clientWidth) drawSolids(canvas, solids, mode, view, scale);
  };
  // Coarse while it is turned, fine when it rests.
  const turned = () => {
    clearTimeout(settle);
    settle = setTimeout(() => draw(fine()), 150);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw(1);
    });
  };
  const fine = () => Math.min(2, Math.max(1, devicePixelRatio || 1));
  const turn = (x, y) => {
    view.turn -= x;
    view.tilt = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, view.tilt + y));
    turned();
  };
  const zoom = factor => {
    view.zoom = Math.max(0.3, Math.min(12, view.zoom * factor));
    turned();
  };
  const reset = () => {
    Object.assign(view, START);
    turned();
  };
  const pointers = new Map();
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener('pointerdown', event => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener('pointermove', event => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const far = pointers.size > 1 ? spread() : 0;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (pointers.size > 1) zoom(spread() / Math.max(1, far));
    else turn((event.clientX - before.x) * 0.01, (event.clientY - before.y) * 0.01);
  });
  for (const name of ['pointerup', 'pointercancel'])
    canvas.addEventListener(name, event => pointers.delete(event.pointerId));
  canvas.addEventListener(
    'wheel',
    event => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * 0.001));
    },
    { passive: false },
  );
  canvas.addEventListener('dblclick', reset);
  canvas.addEventListener('keydown', event => {
    const act = {
      ArrowLeft: () => turn(-0.15, 0),
      ArrowRight: () => turn(0.15, 0),
      ArrowUp: () => turn(0, -0.15),
      ArrowDown: () => turn(0, 0.15),
      '+': () => zoom(1.2),
      '=': () => zoom(1.2),
      '-': () => zoom(1 / 1.2),
      0: reset,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
  document.addEventListener('theme', () => draw(fine()));
  addEventListener('resize', turned);
  const show = (newSolids, newMode, description) => {
    [solids, mode] = [newSolids, newMode];
    canvas.setAttribute('aria-label', description);
    canvas.dataset.mode = mode;
    if (canvas.isConnected) draw(fine());
  };
  return { canvas, show, reset };
}
