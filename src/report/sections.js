// The sections before and after the gallery.

/** What must come first: what is missing. */
function missing() {
  const notes = [
    ...data.notes,
    ...data.runs.flatMap(run => run.missing.map(text => (data.runs.length > 1 ? `${run.name}: ${text}` : text))),
  ];
  return notes.map(text => el('p', { class: 'note' }, text));
}

function overview() {
  const rows = [];
  for (const name of [...new Set(data.runs.flatMap(run => run.facts.map(([fact]) => fact)))]) {
    rows.push([name, ...data.runs.map(run => (run.facts.find(([fact]) => fact === name) ?? ['', '-'])[1])]);
  }
  const stage = ({ name, ended, steps, seconds, best_step, val_iou }) => {
    const facts = [`${steps ?? '?'} steps`];
    if (seconds !== undefined) facts.push(duration(seconds));
    if (val_iou !== undefined) facts.push(`best at step ${best_step}: validation IoU ${fixed(val_iou)}`);
    return el('div', {}, `${name}: ${facts.join(', ')}${ended ? '' : ' (not ended)'}`);
  };
  rows.push(['Stages', ...data.runs.map(run => (run.stages.length ? run.stages.map(stage) : 'none has begun'))]);
  rows.push([
    'Machine',
    ...data.runs.map(({ about }) => (about ? `${about.device}, ${about.threads} threads, ranks: ${about.ranks}` : '-')),
  ]);
  rows.push([
    'Version',
    ...data.runs.map(({ about }) => (about ? `${about.version}, commit ${about.commit}, seed ${about.seed}` : '-')),
  ]);
  section('run', 'What was run', missing(), table(['', ...data.runs.map(run => run.name)], rows));
}

function results() {
  if (!data.policies.length) {
    section('results', 'Results', el('p', {}, 'No policy of these runs was evaluated.'));
    return;
  }
  const rows = data.policies.map((policy, number) => {
    const label = [swatch(colour(number)), policy.label];
    const found = policy.summary;
    if (!found) return [label, '-', '-', '-', '', '-', '-', '-', '-'];
    return [
      label,
      String(found.n),
      interval(found.vsr),
      interval(found.iou),
      whisker(found.iou, colour(number)),
      interval(found.iou_valid),
      found.quartiles.map(value => fixed(value, 2)).join(', '),
      String(found.truncated),
      duration(found.seconds),
    ];
  });
  const head = [
    'Policy',
    'Parts#',
    'VSR [95 %]#',
    'IoU over all [95 %]#',
    '0 to 1',
    'IoU over valid [95 %]#',
    'Quartiles of IoU#',
    'Cut off#',
    'Took#',
  ];
  const compared = data.comparisons.map(({ a, b, n, iou, vsr }) => [
    `${data.policies[b].label} minus ${data.policies[a].label}`,
    String(n),
    signedInterval(iou),
    iou.p < 0.001 ? 'below 0.001' : fixed(iou.p),
    `${iou.wins} / ${iou.ties} / ${iou.losses}`,
    signedInterval(vsr),
  ]);
  const found = data.policies.find(policy => policy.summary)?.summary;
  const warned = data.policies
    .filter(({ summary }) => summary && (summary.ground_truth_failures || summary.panics))
    .map(({ label, summary }) =>
      el(
        'p',
        { class: 'note' },
        `${label}: ${summary.ground_truth_failures} true parts that build no solid, ${summary.panics} programs on ` +
          'which cadwright failed. They count as IoU 0.',
      ),
    );
  const protocols = data.policies
    .filter(({ summary }) => summary?.protocols)
    .map(({ label, summary }) =>
      el(
        'details',
        {},
        el('summary', {}, `Published protocols: ${label}`),
        el('pre', {}, JSON.stringify(summary.protocols, null, 2)),
      ),
    );
  section(
    'results',
    'Results',
    warned,
    table(head, rows),
    el(
      'p',
      { class: 'faint' },
      `VSR is the share of programs that build a solid. IoU is in the ${data.frame} frame; a failure counts 0.` +
        (found
          ? ` Programs were executed by ${found.engine} and compared on ${found.grid} cells along each axis.`
          : ''),
    ),
    compared.length > 0 && [
      el('h3', {}, 'Compared part by part'),
      table(['Difference', 'Parts#', 'IoU [95 %]#', 'p#', 'Better / equal / worse#', 'VSR [95 %]#'], compared),
      el('p', { class: 'faint' }, 'Paired bootstrap intervals over parts; p of a two-sided sign-flip test.'),
    ],
    protocols,
  );
  outcomes();
  section(
    'distribution',
    'IoU before and after',
    el(
      'ul',
      { class: 'legend' },
      data.policies.map((policy, number) => el('li', {}, swatch(colour(number)), policy.label)),
    ),
    el(
      'div',
      { class: 'charts' },
      distribution(
        'Share of parts by IoU',
        data.policies.map((policy, number) => ({ label: policy.label, paint: colour(number), values: policy.ious })),
      ),
    ),
  );
}

const OUTCOMES = ['solid', 'syntax', 'exception', 'no_solid', 'empty', 'timeout', 'memory', 'crash'];

/** The outcomes that occur, in their usual order. */
function outcomeNames() {
  const found = new Set(data.policies.flatMap(policy => Object.keys(policy.outcomes)));
  return [...OUTCOMES.filter(name => found.has(name)), ...[...found].filter(name => !OUTCOMES.includes(name))];
}

function outcomes() {
  const names = outcomeNames();
  const paint = name => (name === 'solid' ? 'var(--good)' : colour(OUTCOMES.indexOf(name) + 3));
  const rows = data.policies.map(policy => {
    const total = Object.values(policy.outcomes).reduce((sum, count) => sum + count, 0);
    const bar = el(
      'div',
      {
        class: 'bar',
        role: 'img',
        'aria-label': names.map(name => `${name} ${policy.outcomes[name] ?? 0}`).join(', '),
      },
      names.map(name =>
        el('span', {
          style: `background:${paint(name)};width:${(100 * (policy.outcomes[name] ?? 0)) / Math.max(1, total)}%`,
          title: `${name}: ${policy.outcomes[name] ?? 0} of ${total}`,
        }),
      ),
    );
    return [policy.label, bar, ...names.map(name => String(policy.outcomes[name] ?? 0))];
  });
  section(
    'outcomes',
    'Outcomes of the programs',
    el(
      'ul',
      { class: 'legend' },
      names.map(name => el('li', {}, swatch(paint(name)), name)),
    ),
    table(['Policy', 'Share', ...names.map(name => name + '#')], rows),
  );
}

/** Curves that come first; the others are folded. */
const FIRST = [
  'val_iou',
  'val_vsr',
  'loss',
  'val_loss',
  'reward_mean',
  'iou_mean',
  'vsr',
  'kl',
  'entropy',
  'response_length',
  'lr',
];

function curves() {
  const stages = [...new Set(data.runs.flatMap(run => run.curves.map(curve => curve.stage)))];
  const order = ['sft', 'control', 'ppo'];
  stages.sort((a, b) => order.indexOf(a) - order.indexOf(b));
  const legend =
    data.runs.length > 1 &&
    el(
      'ul',
      { class: 'legend' },
      data.runs.map((run, number) => el('li', {}, swatch(colour(number)), run.name)),
    );
  const drawn = (stage, name) =>
    lineChart(
      `${stage}/${name}`,
      data.runs.flatMap((run, number) =>
        run.curves
          .filter(curve => curve.stage === stage && curve.name === name)
          .map(curve => ({ label: run.name, paint: colour(number), steps: curve.steps, values: curve.values })),
      ),
    );
  const of = stage => {
    const names = [
      ...new Set(data.runs.flatMap(run => run.curves.filter(curve => curve.stage === stage).map(curve => curve.name))),
    ];
    const first = FIRST.filter(name => names.includes(name)),
      rest = names.filter(name => !FIRST.includes(name));
    const folded = el('details', {}, el('summary', {}, `${rest.length} more of ${stage}`));
    // Drawn when it is opened.
    folded.addEventListener('toggle', () => {
      if (folded.open && folded.children.length === 1)
        folded.append(
          el(
            'div',
            { class: 'charts' },
            rest.map(name => drawn(stage, name)),
          ),
        );
    });
    return [
      el('h3', {}, stage),
      el(
        'div',
        { class: 'charts' },
        first.map(name => drawn(stage, name)),
      ),
      rest.length > 0 && folded,
    ];
  };
  const all = stages.flatMap(of);
  section(
    'curves',
    'Curves',
    el(
      'p',
      { class: 'faint' },
      'Over the steps of a stage. Point at a chart for its values, or focus it and use the arrow keys. ' +
        'docs/metrics.md defines every name.',
    ),
    legend,
    all.length ? all : el('p', {}, 'These runs have recorded nothing.'),
  );
}

function reproduce() {
  const one = run => {
    const about = run.about;
    const quoted = word => (/^[\w@%+=:,.\/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
    const command = Array.isArray(about?.command) ? about.command.map(word => quoted(String(word))).join(' ') : null;
    return [
      data.runs.length > 1 && el('h3', {}, run.name),
      el('p', { class: 'faint' }, run.path),
      about &&
        el(
          'p',
          {},
          `cadwright ${about.version} at commit ${about.commit}, seed ${about.seed}, on ${about.device} ` +
            `with ${about.threads} threads; ranks: ${about.ranks}.`,
        ),
      command && el('pre', {}, command),
      run.config && el('details', {}, el('summary', {}, 'config.toml: every key'), el('pre', {}, run.config)),
    ];
  };
  section(
    'reproduce',
    'To reproduce it',
    data.runs.map(one),
    el('p', { class: 'faint' }, `This report was written by cadwright ${data.version} at commit ${data.commit}.`),
  );
}
