// Turns a stream of events into a verdict, a list of what needs attention, and a card for each StatefulSet.
// Read-only. Every text from the cluster becomes a text node.

import { attention, clock, command, count, gaps, informed, level, listed, moment, range, relay, remedy, shardBlocks, steps as stepsOf, troubles } from './findings.js';
import { STATE_NAMES, aged, ages, dated, el, isLost, isOpen, length, same, span, strip, text, timeline } from './timeline.js';

/** Limits of what is drawn; the search field finds the rest. */
const MAX_CARDS = 100, MAX_ROWS = 100, MAX_BLOCKS = 8, MAX_SETTINGS = 4, MAX_SHARDS = 24;
/** Milliseconds without an event after which the stream counts as broken. The server sends one at least every 10 s. */
const SILENCE = 25000;
/** Milliseconds before the next try: the first delay, which doubles up to the maximum. */
const RETRY_FIRST = 1000, RETRY_MAX = 30000;

const $ = (id) => document.getElementById(id);
const state = { head: null, sets: new Map(), shown: false, kind: 'log', filter: [], ahead: 0, heard: 0, down: null };
const cards = new Map();

// ---- time ------------------------------------------------------------------------------------------------------------

/** The server's clock, in seconds. */
const now = () => Date.now() / 1000 + state.ahead;
function lasted(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min`;
  if (all < 172800) return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
  return `${Math.floor(all / 86400)} d`;
}
/** A duration that keeps counting on the page. */
const growing = (since) => el('span', { 'data-since': since }, lasted(now() - since));

// ---- the stream ------------------------------------------------------------------------------------------------------

const handlers = {
  set(set) { set.at = now(); state.sets.set(`${set.namespace}/${set.name}`, complete(set)); changed.add(`${set.namespace}/${set.name}`); },
  gone({ namespace, name }) { state.sets.delete(`${namespace}/${name}`); changed.add(`${namespace}/${name}`); },
  head(head) { state.head = head; },
  shown(time) { syncClock(time); state.shown = true; render(); },
  beat: syncClock,
  bye() { throw new Error('this replica of the server is shutting down'); },
};
const changed = new Set();
function syncClock(time) { state.ahead = time.now - Date.now() / 1000; }

/** For a StatefulSet whose pods do not report their blocks. */
const NO_BLOCKS = { known_pods: 0, unknown_pods: 0, unserved_total: 0, unserved: [], missing_total: 0, missing: [], outside_windows: null, bucket_total: null };

/** Restores the defaults that the server omits. */
function complete(set) {
  for (const pod of set.pods) {
    pod.name = `${set.name}-${pod.ordinal}`;
    pod.desired ??= set.shards[pod.shard]?.window ?? null;
    if (pod.published === undefined) pod.published = pod.desired;
    if (pod.applied === undefined) pod.applied = pod.published;
    pod.state ??= 'confirmed';
    pod.phase ??= '';
    pod.restarts ??= 0;
  }
  set.blocks ??= NO_BLOCKS;
  set.queriers ??= [];
  return set;
}

/** One stream, until it ends or breaks. */
async function listen() {
  const stop = new AbortController();
  const watchdog = setInterval(() => { if (Date.now() - state.heard > SILENCE) stop.abort(new Error(`no event for ${SILENCE / 1000} s`)); }, 1000);
  state.heard = Date.now();
  try {
    const response = await fetch('events', { signal: stop.signal, cache: 'no-store' });
    if (!response.ok) throw new Error((await response.text()).trim().slice(0, 300) || `status ${response.status}`);
    const known = new Set(state.sets.keys());
    let first = true, rest = '';
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error('the server closed the stream');
      state.heard = Date.now();
      const events = (rest + value).split('\n\n');
      rest = events.pop();
      for (const event of events) {
        const [, name, data] = /^event: ([^\n]*)\ndata: ([^\n]*)$/.exec(event) ?? [];
        const body = name && handlers[name] ? JSON.parse(data) : null;
        if (first && name === 'set') known.delete(`${body.namespace}/${body.name}`);
        if (first && name === 'shown') {
          // StatefulSets that were deleted while the stream was broken.
          for (const key of known) { state.sets.delete(key); changed.add(key); }
          first = false;
          retry = RETRY_FIRST;
          connected();
        }
        if (body) handlers[name](body);
      }
    }
  } finally {
    clearInterval(watchdog);
    stop.abort();
  }
}
let retry = RETRY_FIRST;
async function follow() {
  for (;;) {
    try { await listen(); } catch (error) { broken(error); }
    const wait = retry * (0.75 + Math.random() / 2);
    retry = Math.min(retry * 2, RETRY_MAX);
    state.next = Date.now() + wait;
    tick();
    await new Promise((done) => setTimeout(done, wait));
  }
}
function connected() {
  state.down = null;
  document.body.classList.remove('stale');
  live();
}
function broken(error) {
  state.down ??= { since: Date.now() / 1000, heard: state.heard };
  state.down.why = error instanceof Error ? error.message : String(error);
  if (state.shown) document.body.classList.add('stale');
  live();
  verdict();
}
function live() {
  $('live').dataset.state = state.down ? 'off' : state.shown ? 'on' : 'off';
  const wait = Math.max(0, Math.ceil((state.next - Date.now()) / 1000));
  put($('live-text'), !state.down ? 'live'
    : `${state.shown ? `stale since ${clock(state.down.heard / 1000)}` : 'no connection'}${wait > 0 ? `, next try in ${wait} s` : ', trying again'}`);
}
/** Writes only changes, so that screen readers announce nothing twice. */
function put(node, value) { if (node.textContent !== value) node.textContent = value; }

// ---- the verdict -----------------------------------------------------------------------------------------------------

const STATES = {
  settled: ['settled', 'ok'], rolling: ['rolling', 'busy'], waiting: ['waiting', 'warn'], paused: ['paused', 'warn'],
  blocked: ['blocked', 'bad'], refused: ['refused', 'bad'], unknown: ['not reconciled', 'warn'],
};
const RANK = { gap: 0, unserved: 1, unknown: 3, thin: 2, none: 3, complete: 4 };
const retention = (set) => (isOpen(set, now()) ? 'forever' : length(span(set, now())[0]));
const drifts = (pod) => !!pod.applied && !same(pod.applied, pod.published);
const since = (set) => (set.gap_since ? Date.parse(set.gap_since) / 1000 : null);

/** On a replica that does not lead and has no reports of the leader. */
function withoutReports({ leader: { holder }, relayed, namespace }) {
  if (!holder) return ['unknown', 'There is no leader at the moment', ['A new leader takes over within 15 s. Until then pods keep their windows. The plan is shown below.']];
  if (!relayed?.error) return ['unknown', 'This replica is not the leader', [`It is asking ${holder}, the leader, for its reports. The plan is shown below.`]];
  const forward = command`kubectl -n ${namespace ?? 'timeshard-system'} port-forward pod/${holder} 8080`;
  return ['unknown', 'This replica is not the leader and cannot reach it: what is served is unknown here',
    [`${holder} is the leader: it polls the pods and moves windows. `, `${relayed.error}. `, ...(forward ? ['Open its page with ', el('code', {}, forward)] : []), 'The plan is shown below. Admission works on every replica.']];
}

/** Returns level, heading and details. */
function assess() {
  const { head } = state;
  const sets = [...state.sets.values()];
  if (!state.shown || !head) return ['unknown', 'Not reconciled yet', [state.down ? `The server does not answer: ${state.down.why}` : 'Waiting for the first report.']];
  if (head.webhook_only) return ['unknown', 'This server does not know any StatefulSets', ['It runs with --webhook-only: every pod gets the configuration’s defaults.']];
  if (!head.leader) return ['unknown', 'This server does not know what is served', ['It runs without a refresher (--no-refresher): it admits pods and moves no window. The plan is shown below.']];
  if (!informed(head)) return withoutReports(head);
  if (!head.synced) return ['unknown', 'Not reconciled yet', ['Some labelled namespaces have not been listed yet.']];
  if (sets.length === 0) {
    return ['unknown', 'No StatefulSets yet', head.namespaces.length ? [`No StatefulSet in ${listed(head.namespaces, 5)} runs thanos store.`]
      : ['No namespace is labelled:', el('code', {}, 'kubectl label namespace NAME thanos-timeshard.io/injection=enabled')]];
  }
  const of = (wantedLevel) => sets.filter((set) => level(set) === wantedLevel);
  const [gap, unserved, unknown, thin, none] = ['gap', 'unserved', 'unknown', 'thin', 'none'].map(of);
  const pods = sets.reduce((all, set) => all + set.pods.length, 0);
  const scope = `${count(sets.length, 'StatefulSet')}, ${count(pods, 'pod')}`;
  if (gap.length) {
    const [set] = gap, ranges = gaps(set);
    const others = ranges.length + gap.length - 2;
    const when = since(set);
    const parts = [`${ranges.length > 1 ? `It has ${ranges.length} gaps. ` : ''}Queries over this range are incomplete. `];
    if (when) parts.push('This has lasted for ', growing(when), '. ');
    if (gap.length > 1) parts.push(`${count(gap.length, 'StatefulSet')} of ${sets.length} have gaps.`);
    return ['gap', `GAP: no ready pod serves ${ranges[0]} of ${set.namespace}/${set.name}${others > 0 && gap.length > 1 ? `, and ${count(gap.length - 1, 'StatefulSet')} more` : ''}`, parts];
  }
  if (unserved.length) {
    const [{ namespace, name, blocks }] = unserved;
    const [newest] = blocks.unserved;
    const total = unserved.reduce((all, set) => all + set.blocks.unserved_total, 0);
    const parts = ['Queries over this range succeed with missing samples. '];
    if (newest?.since_unix_seconds > 0) parts.push('This has lasted for ', growing(newest.since_unix_seconds), '. ');
    if (newest?.missing_on.length) parts.push(`Not loaded on ${listed(newest.missing_on, 3)}. `);
    parts.push(el('code', {}, `timeshard status ${namespace}/${name}`));
    const which = newest ? `${range(newest)} of ${namespace}/${name}` : `${namespace}/${name}`;
    return ['unserved', `${count(total, 'block')} served by no pod: ${which}${total > 1 && newest ? ` and ${total - 1} more` : ''}`, parts];
  }
  if (unknown.length) {
    const unpolled = unknown.reduce((all, set) => all + set.not_asked, 0);
    return ['unknown', unknown.length === sets.length ? 'Not reconciled yet' : `Not reconciled yet: ${unknown.length} of ${count(sets.length, 'StatefulSet')}`,
      [unpolled ? `${count(unpolled, 'sidecar')} not polled yet, so coverage is unknown.` : 'The leader has just started.']];
  }
  const covered = sets.filter((set) => level(set) !== 'none');
  if (!covered.length) return ['thin', 'Nothing is served: every StatefulSet is scaled to zero', [scope]];
  const least = Math.min(...covered.map((set) => set.least));
  const spans = [...new Set(covered.map(retention))];
  const rolling = sets.filter((set) => set.state === 'rolling').length;
  const known = Math.min(...covered.map((set) => set.least_confirmed));
  const more = [`${scope}. At each instant at least ${count(known, 'pod')} ${known === 1 ? 'is' : 'are'} confirmed: known to every querier. ${rolling ? `${count(rolling, 'rollout')} in progress. ` : ''}${none.length ? `${listed(none.map((set) => set.name), 3)} scaled to zero. ` : ''}${loaded(covered)}`.trim()];
  if (thin.length) return ['thin', `Coverage is complete but thin: a single pod serves part of ${thin[0].namespace}/${thin[0].name}${thin.length > 1 ? ` and ${thin.length - 1} more` : ''}`, more];
  return ['complete', `Coverage is complete: every instant of ${spans.length > 1 ? 'each retention' : spans[0] === 'forever' ? 'all time' : spans[0]} is served by at least ${count(least, 'ready pod')}`, more];
}

/** A sentence about blocks, if none is unserved. */
function loaded(sets) {
  const sum = (value) => sets.reduce((all, { blocks }) => all + (value(blocks) ?? 0), 0);
  const [known, unknown] = [sum((blocks) => blocks.known_pods), sum((blocks) => blocks.unknown_pods)];
  if (!known) return '';
  if (unknown) return `The loaded blocks of ${count(unknown, 'pod')} are unknown.`;
  return 'Every block within the retention is served.';
}

// ---- drawing it ------------------------------------------------------------------------------------------------------

const SIGNS = { complete: '✓', thin: '!', gap: '✕', unserved: '✕', unknown: '…' };
const TITLES = { gap: '✕ GAP', unserved: '✕ BLOCKS' };
function verdict() {
  const [found, heading, more] = assess();
  // A stale state is not shown as good.
  const is = state.down && state.shown && !TITLES[found] ? 'unknown' : found;
  $('verdict').dataset.level = is;
  put($('verdict-sign'), SIGNS[is]);
  // Screen readers announce each change once, but no counting of seconds.
  put($('say'), state.down && state.shown ? 'The stream broke; this page is stale.' : heading);
  put($('verdict-text'), state.down && state.shown ? `${heading} (as of ${clock(state.down.heard / 1000)})` : heading);
  const parts = state.down && state.shown ? [`Stale: the stream broke at ${clock(state.down.since)} (${state.down.why}). `, ...more] : more;
  const plain = parts.map((part) => (part instanceof Node ? part.textContent : part)).join('');
  if ($('verdict-more').textContent !== plain || is === 'unknown') $('verdict-more').replaceChildren(...parts);
  document.title = `${TITLES[is] ?? SIGNS[is]} ${state.head?.cluster_name ? `${state.head.cluster_name} – ` : ''}thanos-timeshard`;
}

function notes() {
  const { head } = state;
  const expires = head.certificate_not_after_unix_seconds;
  const short = expires && expires - now() < 7 * 86400 ? lasted(expires - now()) : null;
  const found = [relay(head), ...troubles(head, short)].filter(Boolean).map((one) => el('li', { 'data-kind': one.kind }, one.message, ...remedy(one)));
  $('notes').hidden = found.length === 0;
  $('notes-list').replaceChildren(...found);
  const urgent = [...state.sets.values()].flatMap(attention).sort((a, b) => (a.kind === b.kind ? 0 : a.kind === 'bad' ? -1 : 1));
  const items = urgent.slice(0, 8).map((one) => {
    const link = el('a', { href: `#${anchor(one.key)}` }, 'show');
    link.addEventListener('click', () => reveal(one.key));
    return el('li', { 'data-kind': one.kind }, `${one.message} `, link, ...remedy(one));
  });
  if (urgent.length > 8) items.push(el('li', {}, `and ${urgent.length - 8} more`));
  $('attention').hidden = items.length === 0;
  if (!$('attention').contains(document.activeElement)) $('attention-list').replaceChildren(...items);
}
const anchor = (key) => `set-${key.replace(/[^a-z0-9-]/gi, '_')}`;
function reveal(key) {
  if (!cards.has(key)) { $('filter').value = key; filtered(); }
  const card = cards.get(key);
  if (card) { card.root.open = true; card.summary.focus(); }
}

function fits(set, key) {
  const own = `${key} ${set.state} ${level(set)}`.toLowerCase();
  const rest = state.filter.filter((token) => !own.includes(token));
  const pods = rest.length ? set.pods.filter((pod) => rest.every((token) => matches(pod, token))) : null;
  return [!rest.length || pods.length > 0, pods];
}
const matches = (pod, token) => `${pod.name} ${STATE_NAMES[pod.state] ?? pod.state} ${pod.phase} ${pod.why ?? ''}`.toLowerCase().includes(token);

function render() {
  live();
  put($('version'), state.head.version);
  put($('cluster'), state.head.cluster_name ?? '');
  verdict();
  notes();
  $('tools').hidden = state.sets.size === 0;
  const found = [];
  for (const [key, set] of state.sets) {
    const [is, pods] = fits(set, key);
    if (is) found.push({ key, set, pods, rank: RANK[level(set)] - (attention(set).length ? 0.5 : 0) });
  }
  found.sort((a, b) => a.rank - b.rank || a.key.localeCompare(b.key));
  const shown = found.slice(0, MAX_CARDS);
  const keys = new Set(shown.map(({ key }) => key));
  for (const [key, card] of cards) if (!keys.has(key)) { card.root.remove(); cards.delete(key); }
  shown.forEach(({ key, set, pods }, i) => {
    let card = cards.get(key);
    if (!card) {
      card = make(key, shown.length <= 3 || (i < 3 && RANK[level(set)] < 3));
      cards.set(key, card);
      changed.add(key);
    }
    const narrowed = pods ? pods.map((pod) => pod.name).join() : '';
    if (changed.has(key) || card.narrowed !== narrowed) {
      Object.assign(card, { set, pods, narrowed });
      fill(card);
    }
    // A card with the focus keeps its place.
    const there = $('cards').children[i];
    if (there !== card.root && !card.root.contains(document.activeElement)) $('cards').insertBefore(card.root, there ?? null);
  });
  changed.clear();
  put($('found'), state.filter.length ? `${found.length} of ${count(state.sets.size, 'StatefulSet')}` : '');
  put($('more'), found.length > shown.length ? `${found.length - shown.length} more StatefulSets are not drawn; use Find.` : '');
}

function make(key, open) {
  const summary = el('summary', {}), body = el('div', { class: 'body' });
  const root = el('details', { class: 'card', id: anchor(key) }, summary, body);
  const card = { key, root, summary, body, all: false, inner: new Map() };
  root.open = open;
  root.addEventListener('toggle', () => { if (root.open) inside(card); else body.replaceChildren(); });
  return card;
}

function fill(card) {
  const { set, summary } = card;
  const is = level(set);
  card.root.dataset.level = is;
  const [badge, kind] = !informed(state.head) ? ['plan only', ''] : set.not_asked > 0 ? STATES.unknown : STATES[set.state] ?? [set.state, 'warn'];
  const badges = [el('span', { class: 'badge', 'data-kind': kind }, badge)];
  const cover = { complete: [`served by ${set.least}+`, 'ok'], thin: ['thin', 'warn'], gap: ['GAP', 'bad'], unserved: [count(set.blocks.unserved_total, 'unserved block'), 'bad'], none: ['no pods', 'warn'] }[is];
  if (cover) badges.unshift(el('span', { class: 'badge', 'data-kind': cover[1] }, cover[0]));
  summary.replaceChildren(
    el('h2', {}, el('span', { class: 'quiet' }, `${set.namespace} / `), set.name), el('span', { class: 'badges' }, ...badges),
    el('p', { class: 'message' }, set.state === 'unknown' ? `${count(set.replicas, 'replica')} in ${count(set.shards.length, 'shard')}, as planned` : sentence(set.message)), strip(set, state.kind, now()));
  if (card.root.open) inside(card);
}
/** Capitalises a sentence, unless it begins with a name. */
const sentence = (raw) => (/^[a-z]+[ ,:]/.test(raw) ? raw[0].toUpperCase() + raw.slice(1) : raw);

/** Fills an open card and keeps the focus. */
function inside(card) {
  const { set, body } = card;
  if (!set) return;
  const focus = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const parts = [facts(set)];
  for (const warning of set.warnings) parts.push(el('p', { class: 'note' }, sentence(warning)));
  const picture = el('div', { class: 'picture' });
  parts.push(picture, blocks(set), queriers(set), progress(set), shards(set), pods(card), table(card));
  body.replaceChildren(...parts.filter(Boolean));
  paint(card, picture);
  if (focus) body.querySelector(`[data-key="${focus}"]`)?.focus();
}
function paint(card, picture = card.body.querySelector('.picture')) {
  if (!picture) return;
  const { set } = card, width = Math.floor(picture.clientWidth);
  if (width > 0) picture.replaceChildren(timeline(set, width, state.kind, now(), described(set), card.root.id));
}
function described(set) {
  const parts = set.shards.slice(0, 50).map((shard, i) => `shard ${i}: ${text(shard.window)}, ${count(shard.replicas, 'pod')}`);
  const is = level(set);
  const cover = { unserved: `${count(set.blocks.unserved_total, 'block')} served by no pod. `, gap: `Gaps: ${listed(gaps(set), 5)}. `, unknown: 'Coverage is unknown. ', none: 'Nothing is served. ' }[is] ?? `Every instant is served by at least ${count(set.least, 'pod')}. `;
  return `${cover}${parts.join('; ')}. The tables below have the same data.`;
}

function facts(set) {
  if (set.state === 'unknown') return el('dl', { class: 'facts' }, fact('Replicas', set.replicas), fact('Shards', set.shards.length), fact('ConfigMap', set.configmap));
  const of = (is) => set.pods.filter(is).length;
  const some = (name, number, kind) => (number ? [fact(name, number, kind)] : []);
  return el('dl', { class: 'facts' },
    fact('Confirmed pods', `${of((pod) => pod.state === 'confirmed')} of ${set.replicas}`), fact('Shards', set.shards.length), fact('Retention', retention(set)),
    fact('Fewest ready pods', set.not_asked ? 'unknown yet' : set.least, set.least === 0 && !set.not_asked ? 'bad' : ''),
    fact('Fewest confirmed pods', set.not_asked ? 'unknown yet' : set.least_confirmed),
    ...(set.gap_seconds && !set.not_asked ? [fact('Missing', length(set.gap_seconds), 'bad')] : []),
    fact('Drift', of(drifts), of(drifts) && set.state !== 'rolling' ? 'warn' : ''), fact('Not injected', of((pod) => pod.state === 'not_injected'), of((pod) => pod.state === 'not_injected') ? 'bad' : ''),
    ...blockFacts(set), ...some('Unreachable', of((pod) => pod.state === 'unreachable'), 'bad'), ...some('Unverified', of((pod) => pod.unverified), 'warn'),
    ...some('Other agent version', of((pod) => pod.agent), ''), fact('ConfigMap', set.configmap));
}
function blockFacts({ blocks, not_asked: notAsked }) {
  if (notAsked) return [];
  const found = [];
  if (blocks.known_pods) found.push(fact('Blocks served by no pod', blocks.unserved_total, blocks.unserved_total ? 'bad' : ''));
  if (blocks.missing_total) found.push(fact('Blocks missing on a pod', blocks.missing_total, 'warn'));
  if (blocks.outside_windows !== null) {
    found.push(fact('Blocks outside the windows', blocks.bucket_total === null ? blocks.outside_windows : `${blocks.outside_windows} of ${blocks.bucket_total}`));
  }
  if (blocks.unknown_pods) found.push(fact('Pods with unknown blocks', blocks.unknown_pods));
  return found;
}
const fact = (name, value, kind = '') => el('div', {}, el('dt', {}, name), el('dd', { 'data-kind': kind }, `${value}`));

/** Blocks that are not loaded: range, duration and pods. */
function blocks(set) {
  if (set.not_asked) return null;
  const columns = [];
  for (const [title, list, total] of [
    ['Blocks that no confirmed pod has loaded', set.blocks.unserved, set.blocks.unserved_total],
    ['Blocks missing on some pods but served by others', set.blocks.missing, set.blocks.missing_total],
  ]) {
    if (!total) continue;
    const items = list.slice(0, MAX_BLOCKS).map((block) => el('li', {}, el('code', {}, block.ulid), ` ${range(block)}`,
      ...(block.since_unix_seconds > 0 ? [', for ', growing(block.since_unix_seconds)] : []),
      block.missing_on.length ? el('span', { class: 'quiet' }, `, not on ${listed(block.missing_on, 4)}`) : null));
    if (total > items.length) items.push(el('li', { class: 'quiet' }, `and ${total - items.length} more: timeshard status -o json`));
    columns.push(el('div', {}, el('h3', {}, title), el('ul', { class: 'blocks' }, ...items)));
  }
  return columns.length ? el('div', { class: 'columns' }, ...columns) : null;
}

/** What a step needs of each querier. */
function queriers(set) {
  if (set.state === 'settled' || !set.queriers.length) return null;
  const says = { answers: 'answers', pending: 'has not answered yet', group: 'lists a group instead of pods: drain and discovery_delay hold', unknown: 'cannot be asked: drain and discovery_delay hold' };
  const items = set.queriers.slice(0, MAX_BLOCKS).map((querier) => el('li', {}, el('code', {}, querier.name), ' ',
    ...(querier.waits_for ? [`the step waits for it ${querier.waits_for}, for `, growing(querier.since_unix_seconds)] : [says[querier.state] ?? querier.state]),
    querier.why ? el('span', { class: 'quiet' }, ` (${querier.why})`) : null));
  if (set.queriers.length > items.length) items.push(el('li', { class: 'quiet' }, `and ${set.queriers.length - items.length} more: timeshard status -o json`));
  return el('div', { class: 'columns' }, el('div', {}, el('h3', {}, 'Queriers'), el('ul', { class: 'blocks' }, ...items)));
}

/** What changed, and the rollout's steps, next to the latest changes. */
function progress(set) {
  const columns = [];
  const left = [...settings(set), ...rollout(set)];
  if (left.length) columns.push(el('div', {}, ...left));
  if (set.changes.length) {
    const max = set.rollout ? 10 : 6;
    const items = set.changes.slice(0, max).map((change) => dateline(change, sentence(change.text), change.kind));
    columns.push(el('div', {}, el('h3', {}, 'Latest changes, as the leader saw them'), el('ul', { class: 'changes' }, ...items)));
  }
  return columns.length ? el('div', { class: 'columns' }, ...columns) : null;
}
const dateline = ({ at }, content, kind) => el('li', { 'data-kind': kind }, el('time', { datetime: at, title: at }, when(at)), el('span', {}, content));
/** Settings with their old and new values, as the leader saw them change. */
function settings(set) {
  if (!set.setting_changes.length) return [];
  const items = set.setting_changes.slice(0, MAX_SETTINGS).map((change) => dateline(change, `${change.key}: ${change.old} → ${change.new}`));
  return [el('h3', {}, 'What changed'), el('ul', { class: 'changes' }, ...items)];
}
function rollout(set) {
  if (!set.rollout && !set.steps.length) return [];
  const { published, over, all, left, expected, moving } = stepsOf(set);
  const lines = [];
  if (over > 0) lines.push(step('done', '✓', `${count(over, 'step')} done`));
  if (moving.length) {
    const names = moving.slice(0, 6).map((pod) => `${pod.name} ${pod.phase && pod.phase !== 'serving' ? pod.phase : STATE_NAMES[pod.state] ?? pod.state}`);
    lines.push(step('now', `${Math.max(published, 1)}`, listed([...names, ...moving.slice(6)], 6)));
  }
  set.steps.slice(0, 6).forEach((one, i) => {
    const names = one.moves.slice(0, 6).map((move) => move.pod);
    const more = one.moves.length - names.length + one.more;
    const to = [...new Set(one.moves.map((move) => text(move.to)))];
    lines.push(step('next', `${published + 1 + i}`, `${names.join(', ')}${more > 0 ? ` and ${more} more` : ''}`, to.length <= 2 ? `to ${to.join(', ')}` : `to ${to.length} windows`));
  });
  const unseen = left - Math.min(set.steps.length, 6);
  if (unseen > 0) lines.push(step('next', '…', `${count(unseen, 'step')} more${set.steps.length ? '' : ' at most'}`));
  const title = `Rollout: ${over} of ${count(all, 'step')} done`;
  const began = expected && expected !== all ? `, ${expected} expected when it began` : '';
  return [el('h3', {}, title + began), el('progress', { max: Math.max(all, 1), value: over, 'aria-label': title }), ...ends(set), el('ol', { class: 'steps' }, ...lines)];
}
/** Beginning and expected end. */
function ends(set) {
  const parts = [];
  if (set.rollout?.began) parts.push(`Began ${when(set.rollout.began)}.`);
  if (set.eta_seconds) {
    const end = set.at + set.eta_seconds;
    const at = end - now() > 43200 ? moment(end) : clock(end);
    // Without a forecast the end is the least time of the steps.
    const known = typeof set.forecast?.seconds === 'number';
    parts.push(known ? `About ${lasted(set.eta_seconds)} to go: the expected end is ${at}.` : `At least ${lasted(set.eta_seconds)} to go: ends at ${at} or later.`);
    if (set.forecast?.basis) parts.push(`Loads: ${set.forecast.basis}.`);
  }
  return parts.length ? [el('p', { class: 'quiet' }, parts.join(' '))] : [];
}
function step(is, sign, title, more) {
  const read = { done: 'done: ', now: 'now: ', next: 'then: ' }[is];
  return el('li', { 'data-is': is }, el('span', { class: 'n', 'aria-hidden': 'true' }, sign), el('span', {}, el('span', { class: 'hidden' }, read), title, more ? el('span', { class: 'quiet' }, ` ${more}`) : null));
}
function when(at) {
  const time = Date.parse(at) / 1000;
  return Number.isNaN(time) ? at : now() - time > 43200 ? moment(time) : clock(time);
}

/** The pods as a table; of many pods, only those not as planned. */
function pods(card) {
  const { set } = card;
  if (!set.pods.length) return null;
  const many = set.pods.length > MAX_ROWS / 2;
  const worth = card.pods ?? (many && !card.all ? set.pods.filter((pod) => pod.state !== 'confirmed' || !same(pod.desired, pod.published)) : set.pods);
  const shown = worth.slice(0, card.all ? Math.max(MAX_ROWS, card.rows ?? 0) : MAX_ROWS);
  const planned = shown.some((pod) => !same(pod.desired, pod.published));
  const why = shown.some((pod) => pod.why), counted = shown.some((pod) => pod.blocks !== undefined);
  const columns = ['Pod', 'Shard', 'State', 'Published', 'Served', ...(planned ? ['Planned'] : []), ...(counted ? ['Blocks'] : []), 'For', 'Restarts', ...(why ? ['Why'] : [])];
  const lines = shown.map((pod) => row(columns, isLost(pod) ? 'bad' : pod.state === 'confirmed' ? '' : 'busy', {
    Pod: pod.name, Shard: `${pod.shard}${pod.surplus ? ' (extra)' : ''}`, State: `${STATE_NAMES[pod.state] ?? pod.state}${pod.phase && pod.phase !== 'serving' ? ` (${pod.phase})` : ''}`,
    Published: text(pod.published), Served: same(pod.applied, pod.published) ? 'the same' : `${text(pod.applied)}${pod.unverified ? ' (unverified)' : ''}`,
    Blocks: pod.blocks === undefined ? '–' : pod.missing ? `${pod.blocks - pod.missing} of ${pod.blocks}` : `${pod.blocks}`,
    Planned: same(pod.desired, pod.published) ? 'the same' : text(pod.desired), For: pod.since ? growing(pod.since) : '–', Restarts: `${pod.restarts}`, Why: pod.why ?? '',
  }));
  const rest = set.pods.length - shown.length;
  const caption = rest === 0 ? count(set.pods.length, 'pod') : card.pods ? `${shown.length} of ${count(set.pods.length, 'pod')}` : card.all ? `the first ${shown.length} of ${count(set.pods.length, 'pod')}`
    : shown.length ? `${count(shown.length, 'pod')} of ${set.pods.length} that ${shown.length === 1 ? 'is' : 'are'} not as planned` : `all ${set.pods.length} pods are confirmed`;
  const parts = [el('h3', {}, sentence(caption))];
  if (shown.length) parts.push(tabular(columns, lines, `Pods of ${set.name}`, 'hidden'));
  if (rest > 0 && !card.pods) {
    const more = el('button', { type: 'button', 'data-key': 'more' }, card.all ? `Show ${Math.min(rest, MAX_ROWS)} more` : `Show pods one by one`);
    more.addEventListener('click', () => { card.rows = card.all ? shown.length + MAX_ROWS : MAX_ROWS; card.all = true; inside(card); });
    parts.push(more);
  }
  return el('div', {}, ...parts);
}

/** The shards with the blocks in their windows, where pods report them. */
function shards(set) {
  if (set.not_asked || !set.pods.some((pod) => pod.blocks !== undefined)) return null;
  const columns = ['Shard', 'Window', 'Dates', 'Confirmed', 'Blocks', 'Not loaded'];
  const shown = set.shards.slice(0, MAX_SHARDS);
  const lines = shown.map((shard, i) => {
    const [old, young] = ages(shard.window, now());
    const own = set.pods.filter((pod) => pod.shard === i), found = shardBlocks(set, i);
    return row(columns, found?.missing ? 'bad' : '', {
      Shard: `shard ${i}`, Window: text(shard.window), Dates: `${dated(old, now())} .. ${dated(young, now())} UTC`, Confirmed: `${own.filter((pod) => pod.state === 'confirmed').length} of ${count(own.length, 'pod')}`,
      Blocks: found ? `${found.expected}` : 'unknown', 'Not loaded': found ? `${found.missing}` : 'unknown',
    });
  });
  const parts = [el('h3', {}, count(set.shards.length, 'shard')), tabular(columns, lines, `Shards of ${set.name}, newest first`, 'hidden')];
  if (set.shards.length > shown.length) parts.push(el('p', { class: 'quiet' }, `${set.shards.length - shown.length} more shards: timeshard status -o json`));
  return el('div', { class: 'shards' }, ...parts);
}

/** The coverage row as a table. */
function table(card) {
  const { set } = card;
  const columns = ['From', 'To', 'Dates', 'Ready pods', 'Confirmed'];
  const parts = set.coverage.length ? set.coverage : null;
  const lines = parts ? parts.slice(0, MAX_ROWS * 2).map((part) => row(columns, part.serving ? '' : 'bad', {
    From: aged(part.oldest_age_seconds), To: aged(part.newest_age_seconds), Dates: `${dated(part.oldest_age_seconds, now())} .. ${dated(part.newest_age_seconds, now())} UTC`,
    'Ready pods': part.serving ? `${part.serving}` : 'GAP: none', Confirmed: `${part.confirmed}`,
  })) : set.shards.slice(0, MAX_ROWS * 2).map((shard, i) => {
    const [old, young] = ages(shard.window, now());
    return row(columns, '', { From: aged(old), To: aged(young), Dates: `${dated(old, now())} .. ${dated(young, now())} UTC`, 'Ready pods': 'unknown', Confirmed: `planned: ${shard.replicas} (shard ${i})` });
  });
  const inner = el('details', { class: 'tables' }, el('summary', { 'data-key': 'table' }, parts ? 'Coverage as a table' : 'Plan as a table'), tabular(columns, lines, parts ? 'Pods that serve each part, oldest first' : 'Planned shards, newest first'));
  inner.open = card.inner.get('table') ?? false;
  inner.addEventListener('toggle', () => card.inner.set('table', inner.open));
  return inner;
}
/** Roles are explicit: on a phone CSS turns rows into blocks, but it must stay a table. */
function tabular(columns, lines, caption, kind = 'quiet') {
  const head = el('tr', { role: 'row' }, ...columns.map((column) => el('th', { scope: 'col', role: 'columnheader' }, column)));
  return el('table', { role: 'table' }, el('caption', { class: kind }, caption), el('thead', { role: 'rowgroup' }, head), el('tbody', { role: 'rowgroup' }, ...lines));
}
const WINDOWS = ['Published', 'Served', 'Planned', 'Dates', 'Window'];
function row(columns, kind, cells) {
  return el('tr', { role: 'row', 'data-kind': kind }, ...columns.map((column, i) =>
    i === 0 ? el('th', { scope: 'row', role: 'rowheader' }, cells[column])
      : el('td', { role: 'cell', 'data-label': column, class: column === 'State' ? 'state' : WINDOWS.includes(column) ? 'window' : null }, ...(cells[column] === '' ? [] : [cells[column]]))));
}

// ---- user input ------------------------------------------------------------------------------------------------------

function filtered() {
  state.filter = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  if (state.shown) render();
}
function tick() {
  live();
  for (const node of document.querySelectorAll('[data-since]')) put(node, lasted(now() - Number(node.dataset.since)));
}
let typing;
$('filter').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(filtered, 120); });
$('tools').addEventListener('submit', (event) => event.preventDefault());
$('tools').addEventListener('change', (event) => {
  if (event.target.name !== 'scale') return;
  state.kind = event.target.value;
  for (const card of cards.values()) { card.summary.querySelector('.strip')?.replaceWith(strip(card.set, state.kind, now())); if (card.root.open) paint(card); }
});
let resized;
// A scroll bar also changes the width, without a resize of the window.
new ResizeObserver(() => { clearTimeout(resized); resized = setTimeout(() => { for (const card of cards.values()) if (card.root.open) paint(card); }, 100); }).observe($('cards'));
setInterval(tick, 1000);
follow();
