"use strict";
// The gallery's records: columns of the whole pool, cards in chunks that are loaded when they are
// asked for and forgotten again.
PRISM.records = (() => {
  const CHUNKS_HELD = 4;
  const chunks = new Map(); // number -> promise of its cards; the latest used last
  const orders = new Map(); // view -> rows
  let opened = null; // promise of the columns
  let columns = null;
  let prepared = null;
  let groups = null; // number -> {records, kept} of its near-duplicates
  const meta = () => PRISM.data.gallery;

  function open() {
    opened ??= (async () => {
      const [packed, cards] = await Promise.all([
        PRISM.packed.bytes("gallery-columns"),
        PRISM.packed.json("gallery-prepared"),
      ]);
      const number = meta().records;
      const part = (Type, place) => new Type(packed, 4 * number * place, number);
      columns = {
        uid: part(Uint32Array, 0),
        score: part(Float32Array, 1),
        rank: part(Uint32Array, 2),
        source: part(Uint32Array, 3),
        reason: part(Uint32Array, 4),
        group: part(Uint32Array, 5),
        cluster: part(Uint32Array, 6),
        closest: part(Float32Array, 7),
        kept: part(Uint8Array, 8),
      };
      prepared = cards;
    })();
    return opened;
  }

  // --- orders: the keys of views.py -------------------------------------------------------------
  function group(row) {
    return meta().perSource ? columns.source[row] : 0;
  }

  function fromCut(row) {
    const at = group(row);
    return Math.abs(columns.rank[row] - meta().kept[at] - 0.5) / meta().sizes[at];
  }

  const isRanked = (row) => !Number.isNaN(columns.score[row]);
  // [which rows, by what]
  const views = {
    high: [isRanked, (row) => -columns.score[row]],
    low: [isRanked, (row) => columns.score[row]],
    cut: [isRanked, fromCut],
    draw: [() => true, () => 0],
    alone: [(row) => columns.kept[row] === 0 && columns.closest[row] < meta().relative, (row) => columns.closest[row]],
    groups: [(row) => columns.group[row] > 0, (row) => 2 * columns.group[row] - columns.kept[row]],
    clusters: [(row) => columns.cluster[row] > 0, (row) => columns.cluster[row]],
  };

  function order(view) {
    if (orders.has(view)) return orders.get(view);
    const number = meta().records;
    const [isIn, keyOf] = views[view];
    const key = new Float64Array(number);
    const rows = new Uint32Array(number);
    let count = 0;
    for (let row = 0; row < number; row += 1) {
      if (!isIn(row)) continue;
      key[row] = keyOf(row);
      rows[count] = row;
      count += 1;
    }
    const { uid } = columns;
    const sorted = rows.subarray(0, count).sort((a, b) => key[a] - key[b] || uid[a] - uid[b] || a - b);
    orders.set(view, sorted);
    return sorted;
  }

  // `filter`: numbers of what must hold, by column, null for all; and a kind of mark.
  function matches(row, filter) {
    for (const name of ["source", "kept", "cluster", "group"]) {
      if (filter[name] !== null && columns[name][row] !== filter[name]) return false;
    }
    if (filter.mark === null) return true;
    return (PRISM.marks.of(row) ?? "none") === filter.mark;
  }

  // {records, kept} of a group of near-duplicates.
  function groupOf(number) {
    if (groups === null) {
      groups = new Map();
      for (let row = 0; row < meta().records; row += 1) {
        const at = columns.group[row];
        if (at === 0) continue;
        const known = groups.get(at) ?? { records: 0, kept: 0 };
        known.records += 1;
        known.kept += columns.kept[row];
        groups.set(at, known);
      }
    }
    return groups.get(number);
  }

  // --- records ----------------------------------------------------------------------------------
  function chunk(number) {
    let cards = chunks.get(number);
    if (cards === undefined) {
      cards = PRISM.packed.json(`gallery-${number}`);
      cards.catch(() => chunks.delete(number)); // another try may do
    }
    chunks.delete(number);
    chunks.set(number, cards);
    if (chunks.size > CHUNKS_HELD) chunks.delete(chunks.keys().next().value);
    return cards;
  }

  // A file name as a part of an address, unless it may lead out of the image folder.
  function addressOf(name) {
    const parts = name.split("/");
    const isPlain = !/^embedded:|[\\\0]/.test(name) && parts.every((part) => part && part !== "..");
    return isPlain && meta().images !== null
      ? [meta().images, ...parts.map(encodeURIComponent)].join("/")
      : null;
  }

  // {name, small, full}: a thumbnail beside the page, else drawn by the server; the picture itself as
  // the server draws it, else in the image folder, where that is still where it was.
  function pictures([uid, , images], known) {
    const { served } = PRISM.data;
    return images.map((name, place) => ({
      name,
      small: known?.[place] ?? (served ? `thumbs/${uid}-${place}.webp` : null),
      full: served ? `images/${uid}-${place}.webp` : addressOf(name),
    }));
  }

  function assemble(row, card, thumbs, neighbours = null, isPrepared = false) {
    const [uid, id, images, turns, numTurns] = card;
    const closest = columns.closest[row];
    return {
      ...{ row, uid, id, images, turns, numTurns, neighbours, isPrepared },
      pictures: pictures(card, thumbs),
      group: columns.group[row],
      cluster: columns.cluster[row],
      closest: Number.isNaN(closest) ? null : closest,
      source: meta().sources[columns.source[row]],
      reason: meta().reasons[columns.reason[row]],
      kept: columns.kept[row] === 1,
      score: Number.isNaN(columns.score[row]) ? null : columns.score[row],
      rank: columns.rank[row],
      groupKept: meta().kept[group(row)],
      groupSize: meta().sizes[group(row)],
    };
  }

  async function record(row) {
    await open();
    const card = prepared.cards[row];
    if (card) return assemble(row, card, card[5], card[6], true);
    return assemble(row, await cardOf(row), prepared.stubs[row]?.[5]);
  }

  async function cardOf(row) {
    const cards = await chunk(Math.floor(row / meta().perChunk));
    return cards[row % meta().perChunk];
  }

  // With neighbours and all turns, where the page has them or the server can make them.
  async function details(found) {
    if (found.isPrepared || !PRISM.data.served) return found;
    const made = await PRISM.packed.json(`record-${found.uid}`).catch(() => null);
    if (made === null) return found;
    Object.assign(prepared.cards, made.cards);
    for (const [row, card] of Object.entries(made.stubs)) prepared.stubs[row] ??= card;
    return record(found.row);
  }

  // A record that a prepared one names as its neighbour: at hand without a chunk.
  function neighbour(row) {
    const card = prepared.cards[row] ?? prepared.stubs[row];
    return assemble(row, card, card[5]);
  }

  // uids of rows, in their order.
  async function uidsOf(rows) {
    await open();
    const uids = [];
    for (const row of rows) uids.push((prepared.cards[row] ?? (await cardOf(row)))[0]);
    return uids;
  }

  // uid -> row, of the uids that are in the pool.
  async function rowsOf(uids) {
    await open();
    const heads = new Set(uids.map((uid) => Number.parseInt(uid.slice(0, 8), 16)));
    const candidates = [];
    columns.uid.forEach((head, row) => heads.has(head) && candidates.push(row));
    const found = await uidsOf(candidates);
    return new Map(found.map((uid, place) => [uid, candidates[place]]));
  }

  async function findUid(uid) {
    await open();
    const head = Number.parseInt(uid.slice(0, 8), 16);
    for (let row = 0; row < columns.uid.length; row += 1) {
      if (columns.uid[row] !== head) continue;
      const found = await record(row);
      if (found.uid === uid) return details(found);
    }
    return null;
  }

  // Rows in whose uid, id, image names and turns (those at hand) every word stands, in the order of the
  // pool. `progress(searched)` is called after every chunk; it returns false to stop.
  async function search(words, filter, limit, progress) {
    await open();
    const found = [];
    const { records, perChunk, prepared: known } = meta();
    for (let first = 0; first < records && found.length < limit; first += perChunk) {
      const last = Math.min(first + perChunk, records);
      const cards = known === records ? null : await chunk(first / perChunk);
      for (let row = first; row < last && found.length < limit; row += 1) {
        if (!matches(row, filter)) continue;
        const [uid, id, images, turns] = prepared.cards[row] ?? cards[row - first];
        const texts = [uid, id, ...images, ...turns.map((turn) => turn[1])];
        if (PRISM.words.holds(texts, words)) found.push(row);
      }
      if (!progress(last)) return null;
    }
    return found;
  }

  function list(view, filter) {
    return order(view).filter((row) => matches(row, filter));
  }

  return { open, list, record, neighbour, findUid, search, groupOf, uidsOf, rowsOf };
})();
