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
        kept: part(Uint8Array, 5),
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

  const keys = {
    high: (row) => -columns.score[row],
    low: (row) => columns.score[row],
    cut: fromCut,
    draw: () => 0,
  };

  function order(view) {
    if (orders.has(view)) return orders.get(view);
    const number = meta().records;
    const key = new Float64Array(number);
    const rows = new Uint32Array(number);
    let count = 0;
    for (let row = 0; row < number; row += 1) {
      if (view !== "draw" && Number.isNaN(columns.score[row])) continue;
      key[row] = keys[view](row);
      rows[count] = row;
      count += 1;
    }
    const { uid } = columns;
    const sorted = rows.subarray(0, count).sort((a, b) => key[a] - key[b] || uid[a] - uid[b] || a - b);
    orders.set(view, sorted);
    return sorted;
  }

  // `filter`: {source: code or null, kept: 0, 1 or null}.
  function matches(row, filter) {
    if (filter.source !== null && columns.source[row] !== filter.source) return false;
    return filter.kept === null || columns.kept[row] === filter.kept;
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

  function thumbOf(card, known) {
    if (known) return known;
    return PRISM.data.served && card[2].length > 0 ? `thumbs/${card[0]}.webp` : null;
  }

  function assemble(row, card, { thumb = null, neighbours = null, isPrepared = false }) {
    const [uid, id, images, turns, numTurns] = card;
    return {
      ...{ row, uid, id, images, turns, numTurns, neighbours, isPrepared },
      thumb: thumbOf(card, thumb),
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
    if (card) return assemble(row, card, { thumb: card[5], neighbours: card[6], isPrepared: true });
    const cards = await chunk(Math.floor(row / meta().perChunk));
    const found = cards[row % meta().perChunk];
    return assemble(row, found, { thumb: prepared.stubs[row]?.[5] });
  }

  // A record that a prepared one names as its neighbour: at hand without a chunk.
  function neighbour(row) {
    const card = prepared.cards[row] ?? prepared.stubs[row];
    return assemble(row, card, { thumb: card[5] });
  }

  async function findUid(uid) {
    await open();
    const head = Number.parseInt(uid.slice(0, 8), 16);
    for (let row = 0; row < columns.uid.length; row += 1) {
      if (columns.uid[row] !== head) continue;
      const found = await record(row);
      if (found.uid === uid) return found;
    }
    return null;
  }

  // Rows whose uid, id, image names or first turns hold the text, in the order of the pool.
  // `progress(searched, rows)` is called after every chunk; it returns false to stop.
  async function search(text, filter, limit, progress) {
    await open();
    const wanted = text.toLowerCase();
    const found = [];
    for (let number = 0; number < meta().chunks && found.length < limit; number += 1) {
      const first = number * meta().perChunk;
      const cards = await chunk(number);
      for (let i = 0; i < cards.length && found.length < limit; i += 1) {
        if (!matches(first + i, filter)) continue;
        const [uid, id, images, turns] = cards[i];
        const texts = [uid, id, ...images, ...turns.map((turn) => turn[1])];
        if (texts.some((part) => part.toLowerCase().includes(wanted))) found.push(first + i);
      }
      if (!progress(first + cards.length, found)) return null;
    }
    return found;
  }

  function list(view, filter) {
    return order(view).filter((row) => matches(row, filter));
  }

  return { open, list, record, neighbour, findUid, search };
})();
