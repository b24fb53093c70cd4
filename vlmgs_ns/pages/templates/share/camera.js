// The camera: at a photo's pose, or led around a point in front of it.

const add = (a, b, s = 1) => a.map((value, k) => value + s * b[k]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / Math.hypot(...a));

/** Turn a vector about a unit axis. */
function turned(v, axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle), along = dot(axis, v) * (1 - c), side = cross(axis, v);
  return v.map((value, k) => value * c + side[k] * s + axis[k] * along);
}

/** Return the edges of a box as pairs of places [x, y] in a view; what is behind the camera is cut off. */
function boxEdges(corners, { eye, turn, focal, centre }, nearest) {
  const seen = corners.map((corner) => turn.map((row) => dot(row, add(corner, eye, -1)))), edges = [];
  // Corners are counted in binary, a bit for each axis.
  for (let from = 0; from < 8; from++) {
    for (const bit of [1, 2, 4]) {
      let a = seen[from], b = seen[from | bit];
      if (from & bit || Math.max(a[2], b[2]) <= nearest) continue;
      if (a[2] > b[2]) [a, b] = [b, a];
      if (a[2] < nearest) a = add(a, add(b, a, -1), (nearest - a[2]) / (b[2] - a[2]));
      edges.push([a, b].map((p) => [0, 1].map((k) => focal[k] * p[k] / p[2] + centre[k])));
    }
  }
  return edges;
}

class Camera {
  /** turn: rows right, down, forward in the world. pivot: distance of the point to turn around. */
  constructor(up, nearest, farthest) {
    Object.assign(this, { up, nearest, farthest });
  }

  get forward() { return this.turn[2]; }

  stand({ eye, turn, pivot }) {
    Object.assign(this, { eye: [...eye], turn: turn.map((row) => [...row]), pivot });
  }

  /** Go around the pivot by angles to the right and down; never over the top. */
  orbit(right, down) {
    const centre = add(this.eye, this.forward, this.pivot), height = Math.acos(Math.max(-1, Math.min(1, dot(this.forward, this.up))));
    const tilt = Math.max(0.05, Math.min(Math.PI - 0.05, height + down)) - height;
    const side = unit(cross(this.forward, this.up));
    this.turn = this.turn.map((row) => turned(turned(row, side, -tilt), this.up, -right));
    this.eye = add(centre, this.forward, -this.pivot);
  }

  /** Move by shares of the distance to the pivot: right, down, forward. */
  move(...shares) {
    shares.forEach((share, k) => { this.eye = add(this.eye, this.turn[k], share * this.pivot); });
  }

  /** Go nearer to the pivot or away from it; a pivot that is reached is pushed on. */
  zoom(factor) {
    const next = Math.max(this.nearest, Math.min(this.farthest, this.pivot * factor));
    this.eye = add(this.eye, this.forward, factor < 1 ? this.pivot * (1 - factor) : this.pivot - next);
    this.pivot = next;
  }

  /** Return the pose that looks at a point, upright, from some of the way there. */
  towards(point, share) {
    const eye = add(this.eye, add(point, this.eye, -1), share), forward = unit(add(point, eye, -1));
    const right = unit(cross(forward, this.up));
    return { eye, turn: [right, cross(forward, right), forward], pivot: Math.max(this.nearest, Math.hypot(...add(point, eye, -1))) };
  }

  /** Stand between two poses. */
  between(a, b, share) {
    const mix = (x, y) => x.map((value, k) => value + share * (y[k] - value));
    let forward = mix(a.turn[2], b.turn[2]);
    if (Math.hypot(...forward) < 0.1) forward = add(forward, a.turn[0], 0.5); // they look away from each other
    forward = unit(forward);
    const down = mix(a.turn[1], b.turn[1]), right = unit(cross(down, forward));
    this.stand({ eye: mix(a.eye, b.eye), turn: [right, cross(forward, right), forward], pivot: a.pivot + share * (b.pivot - a.pivot) });
  }
}
