// Gaussians from the planes that vlmgs_ns/splats/quantised.py writes, as the renderer takes them.

/** Return the bytes that an element of the page holds, deflated and in base64. */
async function inflated(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Return places [N, 4] (x, y, z, opacity), shapes [2, N, 4] (covariance xx, xy, xz, 0 and yy, yz, zz, 0), colours [N, 4] and
 * harmonics [K - 1, N, 4] as bytes, of which each fourth is not used.
 */
function decode(planes, header) {
  const { count, degree, middle, unit, reach, scales } = header;
  const plane = (k) => planes.subarray(k * count, (k + 1) * count);
  const places = new Float32Array(4 * count), shapes = [new Float32Array(4 * count), new Float32Array(4 * count)];
  for (let axis = 0; axis < 3; axis++) {
    const high = plane(axis), low = plane(3 + axis);
    for (let i = 0; i < count; i++) {
      const curved = ((high[i] * 256 + low[i]) / 65535 * 2 - 1) * reach;
      places[4 * i + axis] = middle[axis] + unit * Math.sign(curved) * Math.expm1(Math.abs(curved));
    }
  }
  const opacity = plane(13), greatest = plane(9);
  const sizes = [6, 7, 8].map(plane), others = [10, 11, 12].map(plane), q = [0, 0, 0, 0];
  const variance = Float64Array.from({ length: 256 }, (_, level) => Math.exp(2 * (scales[0] + level / 255 * (scales[1] - scales[0]))));
  for (let i = 0; i < count; i++) {
    places[4 * i + 3] = opacity[i] / 255;
    let rest = 1;
    for (let k = 0, from = 0; k < 4; k++) {
      if (k === greatest[i]) continue;
      q[k] = (others[from++][i] - 127) / 127 * Math.SQRT1_2;
      rest -= q[k] * q[k];
    }
    q[greatest[i]] = Math.sqrt(Math.max(0, rest));
    const [w, x, y, z] = q;
    const axes = [
      [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
      [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
      [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
    ];
    axes.forEach((axis, k) => {
      const v = variance[sizes[k][i]];
      for (let row = 0, to = 0; row < 3; row++) {
        for (let column = row; column < 3; column++, to++) {
          shapes[to < 3 ? 0 : 1][4 * i + to % 3] += v * axis[row] * axis[column];
        }
      }
    });
  }
  const triples = (first) => {
    const texels = new Uint8Array(4 * count);
    for (let channel = 0; channel < 3; channel++) {
      const from = plane(first + channel);
      for (let i = 0; i < count; i++) texels[4 * i + channel] = from[i];
    }
    return texels;
  };
  const harmonics = Array.from({ length: (degree + 1) ** 2 - 1 }, (_, k) => triples(17 + 3 * k));
  return { places, shapes, colours: triples(14), harmonics };
}
