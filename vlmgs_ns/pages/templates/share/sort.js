// The order in which Gaussians are blended: by depth, the farthest first.

/** Return a function from the viewing direction to the order [N] uint32: a counting sort on 16 bits. Stands on its own. */
function depthSorter(places) {
  const count = places.length / 4, depths = new Float32Array(count), keys = new Uint16Array(count);
  return ([x, y, z]) => {
    let near = Infinity, far = -Infinity;
    for (let i = 0; i < count; i++) {
      const depth = depths[i] = x * places[4 * i] + y * places[4 * i + 1] + z * places[4 * i + 2];
      if (depth < near) near = depth;
      if (depth > far) far = depth;
    }
    const starts = new Uint32Array(65537), scale = 65535 / Math.max(far - near, 1e-9);
    for (let i = 0; i < count; i++) {
      keys[i] = (far - depths[i]) * scale;
      starts[keys[i] + 1]++;
    }
    for (let k = 0; k < 65536; k++) starts[k + 1] += starts[k];
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[starts[keys[i]]++] = i;
    return order;
  };
}

/** Sort in a worker, or on this thread where the browser allows none: `request(direction)` leads to `done(order)`. */
function backgroundSorter(places, done) {
  const source = `${depthSorter}; let sort;
    onmessage = ({ data }) => { if (data.length > 3) sort = depthSorter(data); else { const o = sort(data); postMessage(o, [o.buffer]); } };`;
  try {
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const worker = new Worker(address);
    worker.onmessage = ({ data }) => done(data);
    worker.postMessage(places);
    return (direction) => worker.postMessage(direction);
  } catch {
    const sort = depthSorter(places);
    return (direction) => setTimeout(() => done(sort(direction)));
  }
}
