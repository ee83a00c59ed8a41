"use strict";
// Large data arrive as packed scripts (see section.py), since a page opened from disk may not fetch
// anything. Each is loaded when it is asked for, and nothing is kept of it here.
PRISM.packed = (() => {
  function load(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => {
        const value = PRISM.data[name];
        delete PRISM.data[name];
        script.remove();
        resolve(value);
      };
      script.onerror = () => reject(new Error(`data/${name}.js cannot be read`));
      document.head.append(script);
    });
  }

  async function unpack(name) {
    const text = atob(await load(name));
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream);
  }

  const bytes = async (name) => (await unpack(name)).arrayBuffer();
  const json = async (name) => (await unpack(name)).json();
  return { bytes, json };
})();
