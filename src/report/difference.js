// Two programs beside each other, with what differs between them.

/**
 * The longest common subsequence of two lists, as pairs of indices. Of long lists, only the common
 * ends.
 */
function common(a, b) {
  let start = 0,
    end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const [n, m] = [a.length - start - end, b.length - start - end];
  const pairs = Array.from({ length: start }, (_, i) => [i, i]);
  if (n * m <= 1e6) {
    const longest = Array.from({ length: n + 1 }, () => new Uint32Array(m + 1));
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        longest[i][j] =
          a[start + i] === b[start + j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
      }
    }
    for (let i = 0, j = 0; i < n && j < m;) {
      if (a[start + i] === b[start + j]) pairs.push([start + i++, start + j++]);
      else if (longest[i + 1][j] >= longest[i][j + 1]) i++;
      else j++;
    }
  }
  for (let i = end; i > 0; i--) pairs.push([a.length - i, b.length - i]);
  return pairs;
}

/** Words, numbers, spaces and signs of a line. */
function words(line) {
  return line.match(/[A-Za-z_]\w*|\d+\.?\d*(?:e[-+]?\d+)?|\s+|[^]/g) ?? [];
}

/** The nodes of two lines that stand for each other; words that only one of them has are marked. */
function marked(a, b) {
  const [left, right] = [words(a), words(b)];
  const pairs = common(left, right),
    kept = [new Set(pairs.map(pair => pair[0])), new Set(pairs.map(pair => pair[1]))];
  return [left, right].map((list, side) =>
    list.map((word, index) => (kept[side].has(index) ? word : el('mark', {}, word))),
  );
}

/** Two blocks: the lines of `a` and of `b`. */
function difference(a, b) {
  const [left, right] = [a, b].map(text => text.replace(/\n+$/, '').split('\n'));
  const blocks = [[], []];
  const line = (side, kind, content) =>
    blocks[side].push(el('span', { class: kind ? `line ${kind}` : 'line' }, content));
  let [i, j] = [0, 0];
  for (const [nextLeft, nextRight] of [...common(left, right), [left.length, right.length]]) {
    while (i < nextLeft || j < nextRight) {
      if (i < nextLeft && j < nextRight) {
        const [before, after] = marked(left[i++], right[j++]);
        line(0, 'removed', before);
        line(1, 'added', after);
      } else if (i < nextLeft) {
        line(0, 'removed', left[i++]);
        line(1, '', '');
      } else {
        line(0, '', '');
        line(1, 'added', right[j++]);
      }
    }
    if (nextLeft < left.length) {
      line(0, '', left[i++]);
      line(1, '', right[j++]);
    }
  }
  return blocks.map(lines => el('pre', { tabindex: 0 }, lines));
}
